"""Which axioms each method holds, and the small models on which that is tried.

Every method but states stands in `HOLDS`; a new one has to say here what it holds. What it does not
say is tried as well, and has to fail: the table is what is found, not what is hoped. Models are
ONNX files whose scores are known in closed form.

- complete: the numbers of a sample add up to its score less that of the reference (zeros);
- sensitive: an element that alone differs from the reference, and changes the score, gets something
  even where the score is flat (Sundararajan et al. 2017);
- implementation: two ways to compute one function are explained alike (ibid.);
- linear: a score that is 2 of one less 3 of another has that of their explanations;
- symmetric: what the model treats alike, with equal values, gets the same;
- dummy: what does not matter gets 0; of maps, a channel that does not matter does not change them.

A row's answer depends on no other row, and on the weights, for every method: test_every_method.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import probegen as pg
from probegen import runtime

COMPLETE, SENSITIVE, IMPLEMENTATION = "complete", "sensitive", "implementation"
LINEAR, SYMMETRIC, DUMMY = "linear", "symmetric", "dummy"
EVERY = frozenset({COMPLETE, SENSITIVE, IMPLEMENTATION, LINEAR, SYMMETRIC, DUMMY})
_OF_GRADIENTS = EVERY - {COMPLETE, SENSITIVE}
_OF_MAPS = frozenset({IMPLEMENTATION, SYMMETRIC, DUMMY})

#: Method -> the axioms that it holds.
HOLDS: Mapping[str, frozenset[str]] = {
    "InputGradient": _OF_GRADIENTS,
    "Saliency": _OF_GRADIENTS - {LINEAR},
    "GradientXInput": _OF_GRADIENTS,
    "IntegratedGradients": EVERY,
    "SmoothGrad": _OF_GRADIENTS,
    "ExpectedGradients": EVERY - {COMPLETE},  # in expectation: test_axioms_of_paths.py
    "GuidedBackprop": _OF_GRADIENTS - {LINEAR},
    "Deconvnet": _OF_GRADIENTS - {LINEAR},
    "DeepLIFT": EVERY,
    "DeepSHAP": EVERY,
    # Of layers as they are written; complete without biases: test_lrp.py.
    "LRP": _OF_GRADIENTS - {IMPLEMENTATION},
    "Occlusion": EVERY - {COMPLETE},
    "RISE": frozenset({SENSITIVE, IMPLEMENTATION, LINEAR}),
    "FeatureAblation": EVERY - {COMPLETE},
    "KernelSHAP": EVERY,  # of all coalitions
    "LIME": frozenset({SENSITIVE, IMPLEMENTATION, LINEAR}),  # of drawn ones, with a ridge
    "GradCAM": _OF_MAPS,
    "GradCAMPlusPlus": _OF_MAPS,
    "HiResCAM": _OF_MAPS,
    "LayerCAM": _OF_MAPS,
    "XGradCAM": _OF_MAPS,
    "EigenCAM": _OF_MAPS - {DUMMY},  # it asks for no target
    "ScoreCAM": _OF_MAPS - {DUMMY},  # a channel is a mask, whatever reads it
    "ReciproCAM": _OF_MAPS - {SYMMETRIC},  # it lets neighbours through as well
    "ConceptSensitivity": frozenset({IMPLEMENTATION, LINEAR, DUMMY}),
    "Activations": _OF_MAPS - {DUMMY},
    "Attention": frozenset({IMPLEMENTATION, SYMMETRIC}),
    "AttentionRollout": frozenset({IMPLEMENTATION, SYMMETRIC}),
    "AttentionRelevance": frozenset({IMPLEMENTATION, SYMMETRIC}),
}
BATCH = 4


def _initialised(text: str, arrays: Mapping[str, Any]) -> onnx.ModelProto:
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 17]>' + text)
    for name, array in arrays.items():
        kind = np.int64 if np.asarray(array).dtype.kind == "i" else np.float32
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array, kind), name))
    return model


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest value."""
    return float(np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max(), 1e-12))


@dataclasses.dataclass(frozen=True)
class Family:
    """Methods that are tried on one model.

    Attributes:
        probes: method -> a probe of it for a class, under a name.
        tried: the axioms that are tried.
        check: (method, place of the artefacts) -> axiom -> what is missing to it.
    """

    probes: Mapping[str, Callable[[int, str], Any]]
    tried: frozenset[str]
    check: Callable[[str, Mapping[str, Any]], dict[str, float]]
    artefacts: Callable[[Path], Mapping[str, Any]]


# -- attributions of elements ------------------------------------------------------------------

FEATURES, HIDDEN = 6, 8
_DENSE = """ net (float[batch, 6] x) => (float[batch, 3] y) {
    product = MatMul (x, w)
    before = Add (product, b)
    hidden = Relu (before)
    y = MatMul (hidden, a)
}"""
#: The same: the first product of two halves, the rectifier as a maximum.
_DENSE_OTHERWISE = """ net (float[batch, 6] x) => (float[batch, 3] y) {
    two = Constant <value = float {2.0}> ()
    zero = Constant <value = float {0.0}> ()
    half = Div (x, two)
    part = MatMul (half, w)
    sum = Add (part, part)
    before = Add (sum, b)
    hidden = Max (before, zero)
    y = MatMul (hidden, a)
}"""

_OF_ELEMENTS: dict[str, Callable[[int, str], Any]] = {
    "InputGradient": lambda t, n: pg.InputGradient(target=t, name=n),
    "Saliency": lambda t, n: pg.Saliency(target=t, name=n),
    "GradientXInput": lambda t, n: pg.GradientXInput(target=t, name=n),
    "IntegratedGradients": lambda t, n: pg.IntegratedGradients(150, target=t, name=n),
    "SmoothGrad": lambda t, n: pg.SmoothGrad(7, 0.1, target=t, name=n),
    "ExpectedGradients": lambda t, n: pg.ExpectedGradients(
        np.zeros((2, FEATURES), np.float32), 5, target=t, name=n
    ),
    "GuidedBackprop": lambda t, n: pg.GuidedBackprop(target=t, name=n),
    "Deconvnet": lambda t, n: pg.Deconvnet(target=t, name=n),
    "DeepLIFT": lambda t, n: pg.DeepLIFT(0.0, target=t, name=n),
    "DeepSHAP": lambda t, n: pg.DeepSHAP(np.zeros((2, FEATURES), np.float32), target=t, name=n),
    "LRP": lambda t, n: pg.LRP(target=t, name=n),
    "Occlusion": lambda t, n: pg.Occlusion(1, target=t, name=n),
    "RISE": lambda t, n: pg.RISE(masks=40, cells=5, keep=0.5, target=t, name=n),
    "FeatureAblation": lambda t, n: pg.FeatureAblation(None, 0.0, target=t, name=n),
    "KernelSHAP": lambda t, n: pg.KernelSHAP(samples=2**FEATURES, target=t, name=n),
    "LIME": lambda t, n: pg.LIME(samples=40, target=t, name=n),
}


def _dense() -> dict[str, np.ndarray]:
    """Random weights: element 3 does not matter, 0 and 1 are alike, 5 has a unit that is flat."""
    rng = np.random.default_rng(4)
    w, b = rng.normal(size=(FEATURES, HIDDEN)), rng.normal(size=HIDDEN)
    a = rng.normal(size=(HIDDEN, 3))
    w[3], w[1], w[5], w[:, 7] = 0, w[0], 0, 0
    w[5, 7], b[7] = -1, 1
    a[:, 2] = 2 * a[:, 0] - 3 * a[:, 1]
    return {"w": w, "b": b, "a": a}


def _elements(place: Path) -> dict[str, Any]:
    arrays, found = _dense(), {}
    for file, text, targets in (("one", _DENSE, (0, 1, 2)), ("two", _DENSE_OTHERWISE, (0,))):
        probes = [p(t, f"{n}/{t}") for n, p in _OF_ELEMENTS.items() for t in targets]
        path = place / f"{file}.onnx"
        pg.compile(_initialised(text, arrays), probes, path, verify=False)
        found[file] = runtime.load(path, threads=1)
    x = np.random.default_rng(5).normal(size=(BATCH, FEATURES)).astype(np.float32)
    x[:, 1] = x[:, 0]
    x[3] = 0
    x[3, 5] = 3.0  # from 1 on, the unit of element 5 is 0
    score = lambda v: np.maximum(v @ arrays["w"] + arrays["b"], 0) @ arrays["a"]  # noqa: E731
    gained = score(x.astype(float))[:, 0] - score(np.zeros((1, FEATURES)))[:, 0]
    return {**{n: r.run(x) for n, r in found.items()}, "gained": gained}


def _of_elements(method: str, made: Mapping[str, Any]) -> dict[str, float]:
    first, second, third = (made["one"][f"{method}/{t}"].array.astype(float) for t in range(3))
    size = np.abs(first).max()
    return {
        COMPLETE: _apart(first.sum(1), made["gained"]),
        SENSITIVE: float(np.abs(first[3, 5]) < 1e-3 * size),
        IMPLEMENTATION: _apart(first, made["two"][f"{method}/0"].array.astype(float)),
        LINEAR: _apart(third, 2 * first - 3 * second),
        SYMMETRIC: _apart(first[:, 0], first[:, 1]),
        DUMMY: float(np.abs(first[:, 3]).max() / size),
    }


# -- maps of a layer ---------------------------------------------------------------------------

CHANNELS, UNUSED = 5, 3
_SERIES = """ net (float[batch, 2, 11] x) => (float[batch, 3] y) {
    summed = Conv <kernel_shape = [3]> (x, k)
    map = Sigmoid (summed)
    mean = ReduceMean <axes = [2], keepdims = 0> (map)
    square = Mul (mean, mean)
    y = MatMul (square, a)
}"""
_SERIES_OTHERWISE = """ net (float[batch, 2, 11] x) => (float[batch, 3] y) {
    nine = Constant <value = float {9.0}> ()
    two = Constant <value = float {2.0}> ()
    axis = Constant <value = int64[1] {2}> ()
    summed = Conv <kernel_shape = [3]> (x, k)
    map = Sigmoid (summed)
    sum = ReduceSum <keepdims = 0> (map, axis)
    mean = Div (sum, nine)
    square = Pow (mean, two)
    y = MatMul (square, a)
}"""
_ALONG_UNUSED = np.eye(CHANNELS, dtype=np.float32)[[UNUSED]]
_CONCEPTS = np.vstack([_ALONG_UNUSED, np.ones((1, CHANNELS), np.float32)])

_OF_MAPS_MADE: dict[str, Callable[[int, str], Any]] = {
    **{
        name: lambda t, n, name=name: getattr(pg, name)("map", target=t, name=n)
        for name in (
            "GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM", "EigenCAM",
            "ScoreCAM", "ReciproCAM",
        )
    },
    "ConceptSensitivity": lambda t, n: pg.ConceptSensitivity("map", _CONCEPTS, target=t, name=n),
    "Activations": lambda _, n: pg.Activations("map", name=n),
}  # fmt: skip


def _maps(place: Path) -> dict[str, Any]:
    rng = np.random.default_rng(6)
    k, a = rng.normal(size=(CHANNELS, 2, 3)), rng.normal(size=(CHANNELS, 3))
    a[UNUSED] = 0
    a[:, 2] = 2 * a[:, 0] - 3 * a[:, 1]
    other = k.copy()
    other[UNUSED] = rng.normal(size=(2, 3))
    x = rng.normal(size=(BATCH, 2, 11)).astype(np.float32)
    x[:, :, 5:] = x[:, :, 5:6]  # from position 5 of the map on all is alike
    found = {}
    for file, text, kernel, targets in (
        ("one", _SERIES, k, (0, 1, 2)),
        ("two", _SERIES_OTHERWISE, k, (0,)),
        ("other", _SERIES, other, (0,)),
    ):
        probes = [p(t, f"{n}/{t}") for n, p in _OF_MAPS_MADE.items() for t in targets]
        path = place / f"{file}.onnx"
        pg.compile(_initialised(text, {"k": kernel, "a": a}), probes, path, verify=False)
        found[file] = runtime.load(path, threads=1).run(x)
    return found


def _of_maps(method: str, made: Mapping[str, Any]) -> dict[str, float]:
    first, second, third = (made["one"][f"{method}/{t}"].array.astype(float) for t in range(3))
    said = {IMPLEMENTATION: _apart(first, made["two"][f"{method}/0"].array.astype(float))}
    if method == "ConceptSensitivity":
        said[LINEAR] = _apart(third, 2 * first - 3 * second)
        said[DUMMY] = float(np.abs(first[:, 0]).max() / np.abs(first).max())
        return said
    said[SYMMETRIC] = _apart(first[..., 5:], first[..., 5:6])
    said[DUMMY] = _apart(first, made["other"][f"{method}/0"].array.astype(float))
    return said


# -- attention ---------------------------------------------------------------------------------

LENGTH, WIDTH = 5, 4
_ATTENTIVE = """ net (float[batch, 5, 4] x) => (float[batch, 3] y) {{
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    v = MatMul (x, wv)
    kt = Transpose <perm = [0, 2, 1]> (k)
    {scores}
    weights = Softmax <axis = -1> (scores)
    read = MatMul (weights, v)
    h = Add (x, read)
    bent = Tanh (h)
    mean = ReduceMean <axes = [1], keepdims = 0> (bent)
    y = MatMul (mean, a)
}}"""
_SCORES = "plain = MatMul (q, kt)\n scores = Mul (plain, scale)"
_SCORES_OTHERWISE = "small = Mul (q, scale)\n scores = MatMul (small, kt)"
_OF_ATTENTION: dict[str, Callable[[int, str], Any]] = {
    "Attention": lambda _, n: pg.Attention(name=n),
    "AttentionRollout": lambda _, n: pg.AttentionRollout(name=n),
    "AttentionRelevance": lambda t, n: pg.AttentionRelevance(target=t, name=n),
}


def _attention(place: Path) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    arrays = {n: rng.normal(size=(WIDTH, WIDTH)) for n in ("wq", "wk", "wv")}
    arrays |= {"a": rng.normal(size=(WIDTH, 3)), "scale": np.float32(0.5)}
    x = rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    x[:, 1] = x[:, 0]
    found = {}
    for file, scores in (("one", _SCORES), ("two", _SCORES_OTHERWISE)):
        path = place / f"{file}.onnx"
        model = _initialised(_ATTENTIVE.format(scores=scores), arrays)
        pg.compile(model, [p(0, f"{n}/0") for n, p in _OF_ATTENTION.items()], path, verify=False)
        found[file] = runtime.load(path, threads=1).run(x)
    return found


def _of_attention(method: str, made: Mapping[str, Any]) -> dict[str, float]:
    one, two = (made[f][f"{method}/0"].array.astype(float) for f in ("one", "two"))
    return {
        IMPLEMENTATION: _apart(one, two),
        # What other queries read of two equal tokens; each stays itself beside it.
        SYMMETRIC: _apart(one[..., 2:, 0], one[..., 2:, 1]),
    }


FAMILIES: Mapping[str, Family] = {
    "elements": Family(_OF_ELEMENTS, EVERY, _of_elements, _elements),
    "maps": Family(_OF_MAPS_MADE, _OF_MAPS | {LINEAR}, _of_maps, _maps),
    "attention": Family(_OF_ATTENTION, HOLDS["Attention"], _of_attention, _attention),
}
#: What may be missing to an axiom that holds, relative to the largest value.
MISSING: Mapping[str, float] = {COMPLETE: 1e-2, SENSITIVE: 0.5}
MISSING_ELSEWHERE = 1e-4
