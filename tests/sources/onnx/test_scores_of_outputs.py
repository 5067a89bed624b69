"""What `logits=True` explains of outputs that are a softmax or sigmoid under another name."""

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from tests.sources.onnx.support import hard, parse

#: One column a class.
WEIGHTS = np.array([[0.3, -1.0, 0.5], [2.0, 1.0, -0.25]], np.float32)
#: One column a class of two, which are opposed.
OPPOSED = np.stack([-WEIGHTS[:, 0], WEIGHTS[:, 0]], 1)

_SCORES = "s = MatMul(x, w)"
_ONE = "t = MatMul(x, v) p = Sigmoid(t) one = Constant<value_float = 1.0>() q = Sub(one, p)"
#: What computes y; the scores' weights, one column a class.
SCORES = {
    "a logarithm of the sum, as naive Bayes": (
        f"{_SCORES} l = ReduceLogSumExp<keepdims = 0>(s, last) k = Reshape(l, column)"
        " d = Sub(s, k) y = Exp(d)",
        WEIGHTS,
    ),
    "a logarithm of the sum, as mixtures": (
        f"{_SCORES} l = ReduceLogSumExp<keepdims = 1>(s, last) d = Sub(s, l) y = Exp(d)",
        WEIGHTS,
    ),
    "of its logarithm": (f"{_SCORES} l = LogSoftmax(s) y = Exp(l)", WEIGHTS),
    "divided by the sum": (
        f"{_SCORES} e = Exp(s) t = ReduceSum(e, last) y = Div(e, t)",
        WEIGHTS,
    ),
    "less the largest, as discriminants": (
        f"{_SCORES} m = ReduceMax(s, last) d = Sub(s, m) e = Exp(d) t = ReduceSum(e, last)"
        " y = Div(e, t)",
        WEIGHTS,
    ),
    "and turned": (
        f"{_SCORES} l = LogSoftmax(s) e = Exp(l) r = Unsqueeze(e, last) y = Squeeze(r, last)",
        WEIGHTS,
    ),
    "and rounded to steps, as quantisers write it": (
        f"{_SCORES} p = Softmax(s) scale = Constant<value_float = 0.00390625>()"
        " o = Constant<value_int = 0>() zero = Cast<to = 2>(o)"
        " q = QuantizeLinear(p, scale, zero) y = DequantizeLinear(q, scale, zero)",
        WEIGHTS,
    ),
    "two classes": (f"{_ONE} y = Concat<axis = 1>(q, p)", OPPOSED),
    "two classes, the other first": (f"{_ONE} y = Concat<axis = -1>(p, q)", OPPOSED[:, ::-1]),
    "two classes, stacked": (
        f"{_ONE} a = Squeeze(p, last) b = Sub(one, a) c = Unsqueeze(b, last) d = Unsqueeze(a, last)"
        " y = Concat<axis = 1>(c, d)",
        OPPOSED,
    ),
    "several labels": (
        f"{_SCORES} p = Sigmoid(s) t = MatMul(x, v) q = Sigmoid(t) y = Concat<axis = 1>(q, p)",
        np.concatenate([WEIGHTS[:, :1], WEIGHTS], 1),
    ),
}


def _gradients(body: str, classes: int, x: np.ndarray, tmp_path) -> tuple[np.ndarray, list[bool]]:
    """Returns the gradient of each class, `[class, batch, feature]`, and which are of scores."""
    model = parse(
        f"g (float[N,2] x) => (float[N,{classes}] y)"
        f" <int64[1] last = {{1}}, int64[2] column = {{-1, 1}},"
        f" float[2,3] w = {{{', '.join(map(str, WEIGHTS.ravel()))}}},"
        f" float[2,1] v = {{{', '.join(map(str, WEIGHTS[:, 0]))}}}> {{ {body} }}"
    )
    probes = [pg.InputGradient(target=i, name=f"g{i}") for i in range(classes)]
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    result = runtime.load(tmp_path / "m.onnx").run(x)
    outputs = {o.name: o for o in exported.manifest.outputs}
    targets = [outputs[f"g{i}"].target for i in range(classes)]
    found = np.stack([result[f"g{i}"].array for i in range(classes)])
    return found, [target is not None and target.logits for target in targets]


@pytest.mark.parametrize("case", SCORES)
def test_scores_are_explained(case: str, tmp_path) -> None:
    """Their gradient is the column of weights, where that of a probability vanishes."""
    body, weights = SCORES[case]
    x = np.concatenate([hard(3, 2), [[30.0, -20.0]]]).astype(np.float32)
    found, of_scores = _gradients(body, weights.shape[1], x, tmp_path)
    assert all(of_scores)
    np.testing.assert_allclose(found, np.repeat(weights.T[:, None], len(x), 1), rtol=1e-6)


#: What only looks like one: its classes are ordered otherwise than its scores, or it has none.
PROBABILITIES = {
    "masked": (
        f"{_SCORES} e = Exp(s) o = Mul(e, half) t = ReduceSum(o, last) y = Div(o, t)",
        lambda s: np.exp(s) * [1, 0.5, 1] / (np.exp(s) * [1, 0.5, 1]).sum(1, keepdims=True),
    ),
    "two softmaxes": (
        f"{_SCORES} p = Softmax(s) r = Neg(s) q = Softmax(r) y = Concat<axis = 1>(p, q)",
        lambda s: np.concatenate(
            [np.exp(u) / np.exp(u).sum(1, keepdims=True) for u in (s, -s)], axis=1
        ),
    ),
    "two less": (
        f"{_SCORES} p = Sigmoid(s) two = Constant<value_float = 2.0>() q = Sub(two, p)"
        " y = Concat<axis = 1>(q, p)",
        lambda s: np.concatenate([2 - 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(-s))], 1),
    ),
    "the sum of other classes": (
        f"{_SCORES} r = Neg(s) l = ReduceLogSumExp<keepdims = 1>(r, last) d = Sub(s, l) y = Exp(d)",
        lambda s: np.exp(s) / np.exp(-s).sum(1, keepdims=True),
    ),
}


@pytest.mark.parametrize("case", PROBABILITIES)
def test_other_functions_stay_as_they_are(case: str, tmp_path) -> None:
    body, function = PROBABILITIES[case]
    body = f"half = Constant<value_floats = [1.0, 0.5, 1.0]>() {body}"
    x = hard(3, 2)

    def value(x: np.ndarray) -> np.ndarray:
        return function(np.asarray(x, np.float64) @ WEIGHTS.astype(np.float64))

    found, of_scores = _gradients(body, value(x).shape[1], x, tmp_path)
    assert not any(of_scores)
    steps = 1e-6 * np.eye(2)
    right = np.stack([(value(x + s) - value(x - s)) / 2e-6 for s in steps], -1)
    np.testing.assert_allclose(found, right.swapaxes(0, 1), rtol=1e-4, atol=1e-6)
