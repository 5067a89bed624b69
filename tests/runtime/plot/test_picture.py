"""How titles and notes are broken into lines."""

import numpy as np

from probegen.runtime.plot.picture import _TITLE


def test_what_equals_what_stays_in_one_line():
    title = "Attention rollout: block_2/attention — predicted kind (p = 0.53)"
    for width in np.arange(1.0, 9.0, 0.25):
        lines = _TITLE.wrap(title, width)
        assert " ".join(lines) == title
        assert any("(p = 0.53)" in line for line in lines)
