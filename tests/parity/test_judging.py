"""Attention weights of an artefact put into the model: which of them its prediction proves."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from probegen.parity.calls import Call
from probegen.parity.judging import Comparison
from probegen.parity.report import IN_PLACE, SOURCE_MODEL

PROVED = f"{SOURCE_MODEL}, and {IN_PLACE}"


@dataclasses.dataclass(frozen=True)
class Figures:
    passed: bool = True
    witness: str = SOURCE_MODEL


def in_place(right, not_placed=(), unfit=(), off=1.0, dtype="float32"):
    """What is said of weights `a`, `b`, `c`: those that are right, cannot be placed, are unfit."""
    tokens = np.arange(6.0).reshape(2, 3)
    weights = np.ones((2, 3, 3), dtype)

    def predictions_with(_, given):
        if set(given) & set(not_placed):
            return None
        return {"y": tokens + off * sum(name not in right for name in given)}

    names = [n for n in "abc" if n not in unfit]
    plain = [SimpleNamespace(spec=SimpleNamespace(name=n), is_whole_attention=True) for n in names]
    batch = SimpleNamespace(size=2, feed={}, hard=(False, False))
    comparison = Comparison(
        SimpleNamespace(predictions=[SimpleNamespace(name="y")]),
        SimpleNamespace(plan=SimpleNamespace(plain=plain)),
        SimpleNamespace(predictions_with=predictions_with, computed_in="float32"),
        [Call(1, batch, None, dict.fromkeys("abc", weights), {"y": tokens})],
        predicted=[],
        same_engine=False,
    )
    found = comparison._in_place({n: Figures() for n in ("a", "b", "c", "y")})
    assert found["y"] == Figures()
    return [(found[n].passed, found[n].witness) for n in "abc"]


@pytest.mark.parametrize(
    ("right", "not_placed", "unfit", "said"),
    [
        ("abc", "", "", [(True, PROVED)] * 3),
        ("ac", "", "", [(True, PROVED), (False, IN_PLACE), (True, PROVED)]),
        ("abc", "b", "", [(True, PROVED), (True, SOURCE_MODEL), (True, PROVED)]),
        ("bc", "b", "", [(False, IN_PLACE), (True, SOURCE_MODEL), (True, PROVED)]),
        ("bc", "", "a", [(True, SOURCE_MODEL), (True, PROVED), (True, PROVED)]),
    ],
    ids=["all", "one wrong", "one without a place", "both", "one that is not whole"],
)
def test_each_is_proved_refuted_or_left(right, not_placed, unfit, said):
    assert in_place(right, not_placed, unfit) == said


@pytest.mark.parametrize(
    ("dtype", "off", "said"),
    [
        ("float32", 4e-3, (True, PROVED)),
        ("float32", 6e-3, (False, IN_PLACE)),
        ("float16", 4e-3, (True, PROVED)),
        ("float16", 6e-3, (True, SOURCE_MODEL)),
        ("float16", 2.0, (False, IN_PLACE)),
    ],
)
def test_what_a_coarse_type_explains_refutes_nothing(dtype, off, said):
    """Weights given out as float16 are not quite those that a model of float32 applies."""
    assert in_place("bc", off=off, dtype=dtype) == [said, (True, PROVED), (True, PROVED)]
