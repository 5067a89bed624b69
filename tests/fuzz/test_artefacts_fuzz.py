"""Hostile artefacts of a fixed seed are refused by us or give the old numbers."""

import contextlib
import types

import numpy as np
import pytest

from fuzz import artefacts
from fuzz.artefacts import attempted, originals
from fuzz.drawing import Draw
from fuzz.outcome import CRASHES, DIFFERS, EQUAL, REFUSED
from probegen import runtime
from probegen.runtime.loaded import Artefact


@pytest.mark.parametrize("start", range(0, 160, 40))
def test_hostile_artefacts_are_refused_or_right(start):
    outcomes = [attempted(f"3:{number}") for number in range(start, start + 40)]
    wrong = [o for o in outcomes if o.verdict not in (EQUAL, REFUSED)]
    assert not wrong
    assert sum(o.verdict == REFUSED for o in outcomes) > 10


@pytest.mark.parametrize("damage", dict.fromkeys(artefacts.DAMAGES), ids=lambda d: d.__name__)
def test_every_damage_damages(tmp_path, damage):
    """Each changes what lies there, so that the suite tries something."""
    before = {p.name: p.read_bytes() for p in originals().iterdir()}
    for number in range(9):
        path = tmp_path / str(number) / "data.onnx"
        path.parent.mkdir()
        for name, content in before.items():
            (path.parent / name).write_bytes(content)
        with contextlib.suppress(ValueError):  # it drew a thing that has no such part
            damage(Draw(f"1:{number}"), path)
    places = [tmp_path / str(i) / name for i in range(9) for name in before]
    same = [p.is_file() and p.read_bytes() == before[p.name] for p in places]
    assert not all(same)


def test_faults_are_found(monkeypatch):
    def fails(*_):
        raise KeyError("gone")

    keys = [f"3:{number}" for number in range(60)]
    with monkeypatch.context() as patch:
        patch.setattr(Artefact, "__repr__", fails)
        assert any(attempted(key).verdict == CRASHES for key in keys[:20])
    load = runtime.load
    blind = types.SimpleNamespace(load=lambda path, **_: load(path, threads=1))
    monkeypatch.setattr(artefacts, "runtime", blind)
    monkeypatch.setattr(artefacts, "_expected", lambda _: {"scores": np.zeros(3)})
    assert any(attempted(key).verdict == DIFFERS for key in keys)
