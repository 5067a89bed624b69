"""Changes: one a place, none that cannot matter."""

import random

import pytest

pytest.importorskip("cosmic_ray", reason="only `make mutants` installs it")

from mutants.changes import draw_changes

SOURCE = '''
from __future__ import annotations


def area(width: int | None, height: int = 3) -> int | None:
    """Returns 2 * 3."""
    if width > 4:
        return width * height
    return None
'''


def changes(tmp_path, source=SOURCE, seed=0):
    (tmp_path / "area.py").write_text(source)
    return list(draw_changes(tmp_path / "area.py", tmp_path, random.Random(seed)))


def test_each_place_is_changed_once(tmp_path):
    found = changes(tmp_path)
    assert sorted({c.line for c in found}) == [5, 7, 8]
    assert len({c.code for c in found}) == len(found) >= 4
    for change in found:
        removed, added = change.diff.split("\n")
        assert removed[1:] in SOURCE.split("\n")
        assert added[1:] in change.code.split("\n")
        assert "int | None" in change.code
        compile(change.code, "area.py", "exec")


def test_the_draw_depends_on_the_seed_alone(tmp_path):
    assert changes(tmp_path, seed=1) == changes(tmp_path, seed=1)
    assert len({tuple(c.code for c in changes(tmp_path, seed=s)) for s in range(5)}) > 1


def test_annotations_alone_are_left_as_they_are(tmp_path):
    source = "from __future__ import annotations\n\nx: int | None\ny: list[int | str] = []\n"
    assert not changes(tmp_path, source)
