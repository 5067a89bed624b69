"""Attention weights of an artefact put into the model: which of them its prediction proves."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from probegen.parity.judging import Call, Comparison
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


def explained(logits=True, layer=None):
    """A comparison, an output that explains a score or a layer's, and a call of three samples."""
    target = SimpleNamespace(output="y", layer=layer, logits=logits, several=None)
    axes = ("batch", "feature")
    output = SimpleNamespace(name="saliency/x", target=target, axes=axes, input=None, unit="score")
    group = SimpleNamespace(target=SimpleNamespace(spec=target), outputs=[])
    group.outputs.append(SimpleNamespace(spec=output))
    near = SimpleNamespace(computed_near=lambda _: 0.5, computed_in="float32")
    comparison = Comparison(
        SimpleNamespace(predictions=[SimpleNamespace(name="y")]),
        SimpleNamespace(plan=SimpleNamespace(groups=[group])),
        near,
        calls=[],
        predicted=[],
        same_engine=False,
    )
    terms = np.array([42.0, 1e6, 3.0])
    told = SimpleNamespace(terms=lambda *asked: terms + 2 * asked[-1])
    comparison.__dict__["_differences"] = told
    batch = SimpleNamespace(feed={}, ordinary=[0, 2])
    expected = {"y": np.full((3, 4), 0.5, np.float32), output.name: np.zeros((3, 9))}
    return comparison, output, Call(1, batch, None, {}, expected)


@pytest.mark.parametrize(
    ("in_doubt", "logits", "sizes"),
    [(False, True, [0.5, 0.5]), (True, True, [42.0, 3.0]), (True, False, [43.0, 4.0])],
)
def test_in_doubt_the_model_tells_what_its_score_is_rounded_with(in_doubt, logits, sizes):
    """Probabilities of at most a half: their logits, and 42 positions that are summed, are more."""
    comparison, output, call = explained(logits)
    assert comparison._sizes_of_scores(output, call, in_doubt) == sizes


@pytest.mark.parametrize(
    ("in_doubt", "layer", "sizes"),
    [(False, None, [0.5, 0.5]), (False, "h", []), (True, None, [0.5, 0.5]), (True, "h", [42, 3])],
)
def test_in_doubt_the_model_tells_the_size_of_a_layers_score(in_doubt, layer, sizes):
    """A gradient of its size is the score over each of nine elements."""
    comparison, output, call = explained(layer=layer)
    assert comparison._natural_sizes(output, call, in_doubt) == [size / 3 for size in sizes]
