"""The rounding of an output, told by the model's scores where it is in doubt."""

from types import SimpleNamespace

import numpy as np
import pytest

from probegen.parity.absolute_rounding import AbsoluteRounding
from probegen.parity.calls import Call


def explained(logits=True, layer=None):
    """The rounding of an output that explains a score or a layer's; the output; and a call."""
    target = SimpleNamespace(output="y", layer=layer, logits=logits, several=None)
    axes = ("batch", "feature")
    output = SimpleNamespace(name="saliency/x", target=target, axes=axes, input=None, unit="score")
    group = SimpleNamespace(target=SimpleNamespace(spec=target), outputs=[])
    group.outputs.append(SimpleNamespace(spec=output))
    near = SimpleNamespace(computed_near=lambda _: 0.5, computed_in="float32")
    terms = np.array([42.0, 1e6, 3.0])
    told = SimpleNamespace(terms=lambda *asked: terms + 2 * asked[-1])
    rounding = AbsoluteRounding(
        SimpleNamespace(predictions=[SimpleNamespace(name="y")]),
        SimpleNamespace(plan=SimpleNamespace(groups=[group])),
        near,
        calls=[],
        witness=SimpleNamespace(differences=told),
        by_scores=lambda _: False,
    )
    batch = SimpleNamespace(feed={}, ordinary=[0, 2])
    expected = {"y": np.full((3, 4), 0.5, np.float32), output.name: np.zeros((3, 9))}
    return rounding, output, Call(1, batch, None, {}, expected)


@pytest.mark.parametrize(
    ("in_doubt", "logits", "sizes"),
    [(False, True, [0.5, 0.5]), (True, True, [42.0, 3.0]), (True, False, [43.0, 4.0])],
)
def test_in_doubt_the_model_tells_what_its_score_is_rounded_with(in_doubt, logits, sizes):
    """Probabilities of at most a half: their logits, and 42 positions that are summed, are more."""
    rounding, output, call = explained(logits)
    assert rounding.sizes_of_scores(output, call, in_doubt) == sizes


@pytest.mark.parametrize(
    ("in_doubt", "layer", "sizes"),
    [(False, None, [0.5, 0.5]), (False, "h", []), (True, None, [0.5, 0.5]), (True, "h", [42, 3])],
)
def test_in_doubt_the_model_tells_the_size_of_a_layers_score(in_doubt, layer, sizes):
    """A gradient of its size is the score over each of nine elements."""
    rounding, output, call = explained(layer=layer)
    assert rounding.natural_sizes(output, call, in_doubt) == [size / 3 for size in sizes]
