"""Operators of `ai.onnx.ml` in standard ones, and classifiers that end with a dictionary."""

from typing import Any

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import ProbegenError, SourceError, UnsupportedOpsError
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import assert_same, hard, operators, parse, run

ML = ', "ai.onnx.ml" : 1'
CASES = {
    "scaler": "Scaler<offset = [1.0, -2.0, 0.5], scale = [2.0, 0.1, -3.0]>(x)",
    "scaler, one number": "Scaler<offset = [1.0], scale = [2.0]>(x)",
    "largest": 'Normalizer<norm = "MAX">(x)',
    "sum": 'Normalizer<norm = "L1">(x)',
    "root of squares": 'Normalizer<norm = "L2">(x)',
    "regression": "LinearRegressor<coefficients = [0.3, 2.0, -1.0], intercepts = [0.5]>(x)",
    "two targets": "LinearRegressor<coefficients = [0.3, 2.0, -1.0, 1.0, 0.0, 0.5],targets = 2>(x)",
    "missing": "Imputer<imputed_value_floats = [0.5, 0.25, -1.0], replaced_value_float = 2.2>(x)",
    "features": "FeatureVectorizer<inputdimensions = [3, 3]>(x, x)",
}
#: Two support vectors; gamma, coef0 and degree.
VECTORS = (
    "n_supports = 2, support_vectors = [0.3, -1.0, 0.5, 1.5, 0.25, -0.75], "
    "coefficients = [0.7, -1.25], rho = [0.4], kernel_params = [0.6, 0.3, 3.0]"
)
CASES |= {
    f"support vectors, {kernel}": f'SVMRegressor<kernel_type = "{kernel}", {VECTORS}>(x)'
    for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID")
}
CASES["no support vectors"] = (
    "SVMRegressor<coefficients = [0.3, 2.0, -1.0], rho = [0.5], kernel_params = [0.0, 0.0, 0.0]>(x)"
)


@pytest.mark.parametrize("case", CASES)
def test_smooth_operators(case: str) -> None:
    model = parse(f"g (float[N,3] x) => (float[N,M] y) {{ y = ai.onnx.ml.{CASES[case]} }}", more=ML)
    array = hard(5, 3)
    array[3] = 0
    read = assert_same(model, {"x": array}, {"x": hard(2, 3, seed=1)})
    assert all(not n.domain for n in read.model.graph.all_nodes())


def test_missing_values_that_are_no_numbers() -> None:
    model = parse(
        """
        g (float[N,3] x) => (float[N,3] y) {
          y = ai.onnx.ml.Imputer<imputed_value_floats = [0.5, 0.25, -1.0]>(x)
        }""",
        more=ML,
    )
    missing = onnx.helper.make_attribute("replaced_value_float", float("nan"))
    model.graph.node[0].attribute.append(missing)
    array = hard(4, 3)
    array[1, 2] = array[3, 0] = np.nan
    assert_same(model, {"x": array})


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("words", [False, True])
def test_linear_classifiers(transform: str, words: bool) -> None:
    labels = 'classlabels_strings = ["a", "b", "c"]' if words else "classlabels_ints = [4, 2, 9]"
    model = parse(
        f"""
        g (float[N,2] x) => ({"string" if words else "int64"}[N] label, float[N,3] scores) {{
          label, scores = ai.onnx.ml.LinearClassifier<
            coefficients = [0.3, 2.0, -1.0, 1.0, 0.0, 0.5], intercepts = [0.1, -0.2, 0.3],
            {labels}, post_transform = "{transform}">(x)
        }}""",
        more=ML,
    )
    read = read_onnx(model)
    for n in (2, 5):
        expected, found = run(model, {"x": hard(n, 2)}), run(read.model, {"x": hard(n, 2)})
        assert expected["label"].tolist() == found["label"].tolist()
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-6)


#: Columns of weights and biases by class, and by what the scores are turned.
CLASSIFIERS = {
    "several classes": ([[0.3, 2.0], [-1.0, 1.0], [0.0, 0.5]], [0.1, -0.2, 0.3], "SOFTMAX"),
    "two classes": ([[-0.3, 2.0], [0.3, -2.0]], [-0.1, 0.1], "LOGISTIC"),
    "one against the rest": ([[0.3, 2.0], [-1.0, 1.0]], [0.1, -0.2], "LOGISTIC"),
}


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_scores_of_shares_that_are_divided_by_their_sum(case: str, tmp_path) -> None:
    """As skl2onnx writes a logistic regression, whose shares add up to one already.

    One against the rest is another function of its scores, so there are none to explain.
    """
    rows, bias, turned = CLASSIFIERS[case]
    weights, classes = np.asarray(rows, np.float32), len(rows)
    numbers = f"coefficients = {weights.ravel().tolist()}, intercepts = {bias}"
    model = parse(
        f"""
        g (float[N,2] x) => (int64[N] label, float[N,{classes}] probabilities) {{
          label, shares = ai.onnx.ml.LinearClassifier<
            {numbers}, classlabels_ints = {list(range(classes))}, post_transform = "{turned}">(x)
          probabilities = ai.onnx.ml.Normalizer<norm = "L1">(shares)
        }}""",
        more=ML,
    )
    probe = pg.InputGradient(target=1, output="probabilities")
    pg.compile(model, probe, tmp_path / "m.onnx")
    x = hard(4, 2)
    found = runtime.load(tmp_path / "m.onnx").run(x)["input_gradient/x"].array
    if case != "one against the rest":
        np.testing.assert_allclose(found, np.tile(weights[1], (4, 1)), rtol=1e-6)
        return

    def share(x: np.ndarray) -> np.ndarray:
        shares = 1 / (1 + np.exp(-(x @ weights.T.astype(np.float64) + bias)))
        return (shares / shares.sum(-1, keepdims=True))[:, 1]

    steps = 1e-6 * np.eye(2)
    slopes = [(share(x + s) - share(x - s)) / 2e-6 for s in steps]
    np.testing.assert_allclose(found, np.stack(slopes, 1), atol=1e-6)


def test_a_dictionary_of_probabilities_is_cut_off() -> None:
    """As skl2onnx writes a classifier of a network."""
    model = parse(
        """
        g (double[N,2] x) => (int64[N] label, float[N,3] output_probability) {
          f = Cast<to = 1>(x)
          probabilities = Softmax(f)
          best = ArgMax<axis = 1>(probabilities)
          picked = ai.onnx.ml.ArrayFeatureExtractor(classes, best)
          flat = Constant<value_ints = [-1]>()
          label = Reshape(picked, flat)
          output_probability = ai.onnx.ml.ZipMap<classlabels_int64s = [4, 2]>(probabilities)
        }""",
        more=ML,
    )
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([4, 2], np.int64), "classes")
    )
    kind = onnx.helper.make_map_type_proto(7, onnx.helper.make_tensor_type_proto(1, []))
    model.graph.output[1].type.CopyFrom(onnx.helper.make_sequence_type_proto(kind))
    read = read_onnx(model)
    assert read.notes[0].startswith("The output 'output_probability' of the file is a list")
    x = np.array([[0.3, -1.0], [2.0, 2.5], [0.0, 0.0]])
    found, expected = run(read.model, {"x": x}), run(model, {"x": x})
    dictionaries = [[d[4], d[2]] for d in expected["output_probability"]]
    np.testing.assert_allclose(found["output_probability"], dictionaries, atol=1e-6)
    assert found["label"].tolist() == expected["label"].tolist()
    assert list(run(read.original, {"x": x})) == ["label", "output_probability"]
    assert sorted(operators(read)) == sorted(
        ["Cast", "Softmax", "Identity", "ArgMax", "Reshape", "Gather", "Reshape"]
    )


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_gradients_of_support_vectors(kernel: str, tmp_path) -> None:
    model = parse(
        f"""
        g (float[N,3] x) => (float[N,1] y) {{
          y = ai.onnx.ml.SVMRegressor<kernel_type = "{kernel}", {VECTORS}>(x)
        }}""",
        more=ML,
    )
    pg.compile(model, pg.InputGradient(target=0), tmp_path / "m.onnx")
    x = 0.5 * hard(4, 3)
    found = runtime.load(tmp_path / "m.onnx").run(x)["input_gradient/x"].array
    vectors = np.array([[0.3, -1.0, 0.5], [1.5, 0.25, -0.75]])
    kernels = {
        "LINEAR": lambda d, _: d,
        "POLY": lambda d, _: (0.6 * d + 0.3) ** 3,
        "RBF": lambda _, square: np.exp(-0.6 * square),
        "SIGMOID": lambda d, _: np.tanh(0.6 * d + 0.3),
    }

    def score(x: np.ndarray) -> Any:
        squares = ((x[:, None] - vectors) ** 2).sum(-1)
        return kernels[kernel](x @ vectors.T, squares) @ [0.7, -1.25]

    moved = [score(x + s) - score(x - s) for s in 1e-5 * np.eye(3)]
    np.testing.assert_allclose(found, np.stack(moved, 1) / 2e-5, rtol=1e-4, atol=1e-5)


#: How many support vectors a class has -> those, and the decisions between each pair, by hand.
COUNTS = {2: [2, 1], 3: [2, 1, 2]}


def support_vectors(classes: int, kernel: str, more: str = "") -> tuple[Any, Any]:
    """A classifier by support vectors, and its decisions on an array in float64."""
    draw, counts = np.random.default_rng(classes), COUNTS[classes]
    total, pairs = sum(counts), classes * (classes - 1) // 2
    vectors, weights = draw.normal(size=(total, 3)), draw.normal(size=(classes - 1, total))
    rho, labels = draw.normal(size=pairs), [f"{name}" for name in ("ant", "bee", "cow")[:classes]]
    model = parse(
        f"""
        g (float[N,3] x) => (string[N] label, float[N,M] scores) {{
          label, scores = ai.onnx.ml.SVMClassifier<kernel_type = "{kernel}",
            kernel_params = [0.6, 0.3, 3.0], support_vectors = {vectors.ravel().tolist()},
            coefficients = {weights.ravel().tolist()}, rho = {rho.tolist()},
            vectors_per_class = {counts}, classlabels_strings = {labels} {more}>(x)
        }}""".replace("'", '"'),
        more=ML,
    )
    kernels = {
        "LINEAR": lambda d, _: d,
        "POLY": lambda d, _: (0.6 * d + 0.3) ** 3,
        "RBF": lambda _, square: np.exp(-0.6 * square),
        "SIGMOID": lambda d, _: np.tanh(0.6 * d + 0.3),
    }

    def decisions(x: np.ndarray) -> Any:
        squares = ((x[:, None] - vectors) ** 2).sum(-1)
        values, found, ends = kernels[kernel](x @ vectors.T, squares), [], np.cumsum([0, *counts])
        for i in range(classes):
            for j in range(i + 1, classes):
                one, other = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
                found.append(values[:, one] @ weights[j - 1, one])
                found[-1] = found[-1] + values[:, other] @ weights[i, other] + rho[len(found) - 1]
        return np.stack(found, 1)

    return model, decisions


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("classes", [2, 3])
def test_classifiers_by_support_vectors(classes: int, kernel: str, tmp_path) -> None:
    model, decisions = support_vectors(classes, kernel)
    read = read_onnx(model)
    assert all(not n.domain for n in read.model.graph.all_nodes())
    for x in (0.5 * hard(7, 3), hard(1, 3, seed=2), np.zeros((2, 3), np.float32)):
        expected, found = run(model, {"x": x}), run(read.model, {"x": x})
        assert found["label"].tolist() == expected["label"].tolist()
        np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
    pg.compile(model, pg.InputGradient(target=1, output="scores"), tmp_path / "m.onnx")
    x = 0.5 * hard(4, 3)
    found = runtime.load(tmp_path / "m.onnx").run(x)["input_gradient/x"].array
    moved = [decisions(x + s) - decisions(x - s) for s in 1e-5 * np.eye(3)]
    column = 0 if classes == 2 else 1
    slopes = np.stack(moved, 1)[..., column] / 2e-5
    np.testing.assert_allclose(found, slopes, rtol=1e-3, atol=1e-4)


def test_probabilities_of_support_vectors_stay_and_are_offered_no_gradients(tmp_path) -> None:
    model, _ = support_vectors(2, "RBF", ", prob_a = [-2.0], prob_b = [0.1]")
    point = pg.inspect(model)[0]
    assert point.probes == ()
    assert "SVMClassifier" in point.reason
    assert "pg.KernelSHAP" in point.reason
    probe = pg.KernelSHAP(target=1, output="scores")
    pg.compile(model, probe, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedOpsError, match="SVC without probability=True"):
        pg.compile(model, pg.InputGradient(target=1, output="scores"), tmp_path / "m.onnx")


FOREST = """
g (float[N,2] x) => (string[N] label, float[N,3] output_probability) {
  label, probabilities = ai.onnx.ml.TreeEnsembleClassifier<
    nodes_treeids = [0, 0, 0, 1, 1, 1], nodes_nodeids = [0, 1, 2, 0, 1, 2],
    nodes_featureids = [0, 0, 0, 1, 0, 0], nodes_values = [0.5, 0.0, 0.0, -1.0, 0.0, 0.0],
    nodes_modes = ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
    nodes_truenodeids = [1, 0, 0, 1, 0, 0], nodes_falsenodeids = [2, 0, 0, 2, 0, 0],
    class_treeids = [0, 0, 1, 1, 1], class_nodeids = [1, 2, 1, 2, 2], class_ids = [0, 1, 2, 0, 1],
    class_weights = [1.0, 0.5, 0.25, 0.75, 0.125], classlabels_strings = ["ant", "bee", "cow"]>(x)
  output_probability = ai.onnx.ml.ZipMap<classlabels_strings = ["ant", "bee", "cow"]>(probabilities)
}"""


def test_trees_at_the_end_of_a_file_are_explained_by_scores(tmp_path) -> None:
    """As skl2onnx writes a forest with labels of text; onnx tells no axes of its result."""
    model = parse(FOREST, more=ML)
    kind = onnx.helper.make_map_type_proto(8, onnx.helper.make_tensor_type_proto(1, []))
    model.graph.output[1].type.CopyFrom(onnx.helper.make_sequence_type_proto(kind))
    probe = pg.KernelSHAP(output="output_probability", target=1)
    pg.compile(model, probe, tmp_path / "m.onnx")
    x = np.array([[2.0, 3.0], [0.0, -2.0], [1.0, -1.0]], np.float32)
    result = runtime.load(tmp_path / "m.onnx").run(x)
    # Class 1 is the sum of a step of each feature: Shapley values are their changes from 0.
    first = 0.5 * (x[:, 0] > 0.5)
    second = 0.125 * (x[:, 1] > -1) - 0.125
    found = result["kernel_shap/x"].array
    np.testing.assert_allclose(found, np.stack([first, second], 1), atol=1e-6)
    assert result["output_probability"].array.shape == (3, 3)
    assert result["label"].array.tolist() == run(model, {"x": x})["label"].tolist()
    gradient = pg.Saliency(output="output_probability", target=1)
    with pytest.raises(ProbegenError, match=r"no slope.*KernelSHAP"):
        pg.compile(model, gradient, tmp_path / "g.onnx")


def test_sequences_are_refused() -> None:
    model = parse("g (float[N] x) => (float[N] y) { y = SequenceConstruct(x) }")
    tensor = onnx.helper.make_tensor_type_proto(1, ["N"])
    model.graph.output[0].type.CopyFrom(onnx.helper.make_sequence_type_proto(tensor))
    with pytest.raises(SourceError, match="the output 'y' is a sequence; an artefact has tensors"):
        read_onnx(model)
