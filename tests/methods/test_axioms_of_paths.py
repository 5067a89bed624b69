"""Axioms of integrated gradients, SmoothGrad and expected gradients, over random small models.

The models are ONNX files whose scores are known in closed form; artefacts are run in onnxruntime.
"""

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime

#: `y = A tanh(x W + b)`, with whatever is put in for `act`; the last score is 2 y0 - 3 y1.
TEXT = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[batch, 6] x) => (float[batch, 3] y)
  <float[6, 7] w = {%s}, float[7] b = {%s}, float[7, 3] a = {%s}>
  {
    product = MatMul(x, w)
    before = Add(product, b)
    %s
    y = MatMul(hidden, a)
  }"""
ACTIVATIONS = {
    "tanh": ("hidden = Tanh(before)", np.tanh),
    "square": ("hidden = Mul(before, before)", np.square),
    "sigmoid times": (
        "gate = Sigmoid(before)\n hidden = Mul(gate, before)",
        lambda z: z / (1 + np.exp(-z)),
    ),
}
BATCH = 4


class Model:
    """A random model: its file's text, its scores, a batch, a baseline and a background."""

    def __init__(self, seed, activation="tanh"):
        rng = np.random.default_rng(seed)
        self.w = rng.normal(size=(6, 7)) / 2
        self.w[3] = 0  # the input's element 3 does not matter
        self.w[1] = self.w[0]  # elements 0 and 1 are symmetric
        self.b = rng.normal(size=7)
        self.a = rng.normal(size=(7, 3))
        self.a[:, 2] = 2 * self.a[:, 0] - 3 * self.a[:, 1]
        self.lines, self.function = ACTIVATIONS[activation]
        self.x = rng.normal(size=(BATCH, 6)).astype(np.float32)
        self.x[0, 2] = 0
        self.baseline = rng.normal(size=6).astype(np.float32)
        self.background = rng.normal(size=(3, 6)).astype(np.float32)

    def scores(self, x):
        return self.function(np.asarray(x, np.float64) @ self.w + self.b) @ self.a

    @property
    def text(self):
        return TEXT % (*(numbers(v) for v in (self.w, self.b, self.a)), self.lines)

    def run(self, probes, tmp_path, x=None, text=None):
        """Compiles probes, each called by its place, and returns what they say."""
        onnx.save(onnx.parser.parse_model(text or self.text), tmp_path / "source.onnx")
        path = tmp_path / "m.onnx"
        pg.compile(tmp_path / "source.onnx", probes, path, verify=False)
        result = runtime.load(path).run(self.x if x is None else x)
        return [result[p.name].array.astype(np.float64) for p in probes]


def numbers(array):
    return ", ".join(f"{v:.9f}" for v in array.reshape(-1))


def of_all(model, target=0, prefix=""):
    """One probe of each kind."""
    made = {
        "number": pg.IntegratedGradients(16, 0.25, target=target, name=f"{prefix}n"),
        "array": pg.IntegratedGradients(
            9, model.baseline, "gauss_legendre", target=target, name=f"{prefix}a"
        ),
        "several": pg.IntegratedGradients(
            6, model.background, "trapezoid", target=target, name=f"{prefix}s"
        ),
        "expected": pg.ExpectedGradients(
            model.background, 7, seed=2, target=target, name=f"{prefix}e"
        ),
        "smooth": pg.SmoothGrad(6, 0.2, target=target, name=f"{prefix}g"),
        "variance": pg.SmoothGrad(6, 0.2, statistic="variance", target=target, name=f"{prefix}v"),
        "smooth paths": pg.SmoothGrad(
            3, 0.2, of_method=pg.IntegratedGradients(4), target=target, name=f"{prefix}p"
        ),
    }
    return list(made), list(made.values())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rule", ["midpoint", "trapezoid", "gauss_legendre"])
def test_completeness(activation, rule, tmp_path):
    model = Model(1, activation)
    starts = {"n": (0.5, [np.full(6, 0.5)]), "a": (model.baseline, [model.baseline])}
    starts["s"] = (model.background, model.background)
    probes = [
        pg.IntegratedGradients(40, start, rule, target=1, name=f"{name}")
        for name, (start, _) in starts.items()
    ]
    for found, (_, rows) in zip(model.run(probes, tmp_path), starts.values(), strict=True):
        behind = np.mean([model.scores(row)[1] for row in rows])
        wanted = model.scores(model.x)[:, 1] - behind
        np.testing.assert_allclose(found.sum(1), wanted, atol=5e-3)
        if rule == "gauss_legendre":
            np.testing.assert_allclose(found.sum(1), wanted, atol=2e-5)


def test_gauss_legendre_is_exact_for_polynomials(tmp_path):
    """A score of degree 2 has a gradient of degree 1 along a line: one point is enough."""
    model = Model(2, "square")
    names = ("gauss_legendre", "midpoint", "trapezoid")
    probes = [pg.IntegratedGradients(2, 0.0, rule, target=0, name=rule) for rule in names]
    wanted = model.scores(model.x)[:, 0] - model.scores(np.zeros(6))[0]
    for found in model.run(probes, tmp_path):
        np.testing.assert_allclose(found.sum(1), wanted, rtol=1e-5, atol=1e-5)


def test_expected_gradients_are_complete_in_expectation(tmp_path):
    model = Model(3)
    probes = [
        pg.ExpectedGradients(model.background, count, seed, target=0, name=f"{count}_{seed}")
        for count in (12, 768)
        for seed in range(3)
    ]
    wanted = model.scores(model.x)[:, 0] - model.scores(model.background)[:, 0].mean()
    off = [np.abs(found.sum(1) - wanted).max() for found in model.run(probes, tmp_path)]
    assert max(off[3:]) < 0.02
    assert max(off[3:]) < max(off[:3])


@pytest.mark.parametrize("seed", [4, 5])
def test_what_does_not_matter_gets_nothing_and_what_does_gets_something(seed, tmp_path):
    model = Model(seed)
    names, probes = of_all(model)
    for name, found in zip(names, model.run(probes, tmp_path), strict=True):
        np.testing.assert_array_equal(found[:, 3], 0, err_msg=name)
        assert (np.abs(found[:, [0, 1, 4, 5]]) > 0).all(), name


def test_linearity(tmp_path):
    """The last score is 2 of the first minus 3 of the second."""
    model = Model(6)
    names, first = of_all(model, 0, "first_")
    second, third = of_all(model, 1, "second_")[1], of_all(model, 2, "third_")[1]
    found = model.run([*first, *second, *third], tmp_path)
    count = len(names)
    for i, name in enumerate(names):
        if name != "variance":
            combined = 2 * found[i] - 3 * found[count + i]
            np.testing.assert_allclose(found[2 * count + i], combined, atol=2e-5, err_msg=name)


def test_symmetry(tmp_path):
    """Elements that the model treats alike, of equal value and baseline, get the same."""
    model = Model(7)
    for rows in (model.x, model.baseline[None], model.background):
        rows[:, 1] = rows[:, 0]
    names, probes = of_all(model)
    for name, found in zip(names, model.run(probes, tmp_path), strict=True):
        if name in ("smooth paths",):
            continue  # the noise at two elements differs
        np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-5, atol=1e-6, err_msg=name)


def test_two_ways_to_compute_a_model_are_explained_alike(tmp_path):
    model = Model(8)
    names, probes = of_all(model)
    one = model.run(probes, tmp_path)
    halves = model.text.replace(
        "product = MatMul(x, w)",
        "two = Constant <value = float {2.0}> ()\n half = Div(x, two)\n"
        " part = MatMul(half, w)\n other = MatMul(half, w)\n product = Add(part, other)",
    ).replace(
        "hidden = Tanh(before)",
        "twice = Add(before, before)\n gate = Sigmoid(twice)\n both = Add(gate, gate)\n"
        " one = Constant <value = float {1.0}> ()\n hidden = Sub(both, one)",
    )
    other = model.run(probes, tmp_path, text=halves)
    for name, a, b in zip(names, one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)


def test_rows_do_not_depend_on_each_other(tmp_path):
    model = Model(9)
    names, probes = of_all(model)
    together = model.run(probes, tmp_path)
    alone = model.run(probes, tmp_path, x=model.x[2:3])
    turned = model.run(probes, tmp_path, x=model.x[::-1].copy())
    for i, name in enumerate(names):
        np.testing.assert_allclose(alone[i][0], together[i][2], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(turned[i][::-1], together[i], atol=1e-6, err_msg=name)


def test_other_weights_are_explained_otherwise(tmp_path):
    """Adebayo et al. 2018: a map that randomised weights do not change explains no model."""
    model, other = Model(10), Model(11)
    names, probes = of_all(model)
    found = model.run(probes, tmp_path), model.run(probes, tmp_path, text=other.text)
    for name, a, b in zip(names, *found, strict=True):
        cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
        assert cosine < 0.9, name
