"""Methods by scores explain what has no gradient: tree ensembles, steps, comparisons."""

import keras
import numpy as np
import onnx.parser
import pytest
from keras import layers, ops
from onnx import TensorProto, helper

import probegen as pg
from probegen import runtime
from probegen.errors import NotDifferentiableError
from tests import models
from tests.methods.games import values_over_orders


def forest():
    """Two trees over three of four features, as scikit-learn's exporters write them."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * 5 + [1] * 3,
        nodes_nodeids=[0, 1, 2, 3, 4, 0, 1, 2],
        nodes_featureids=[0, 1, 0, 0, 0, 2, 0, 0],
        nodes_values=[0.0, 0.5, 0.0, 0.0, 0.0, -0.2, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "BRANCH_LEQ"]
        + ["LEAF"] * 2,
        nodes_truenodeids=[1, 3, 0, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 4, 0, 0, 0, 2, 0, 0],
        target_treeids=[0] * 3 + [1] * 2,
        target_nodeids=[2, 3, 4, 1, 2],
        target_ids=[0] * 5,
        target_weights=[5.0, 1.0, 3.0, -2.0, 4.0],
    )
    graph = helper.make_graph(
        [node],
        "forest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def worth(x):
    first = np.where(x[:, 0] > 0, 5.0, np.where(x[:, 1] <= 0.5, 1.0, 3.0))
    return first + np.where(x[:, 2] <= -0.2, -2.0, 4.0)


def test_shapley_values_of_a_forest(tmp_path):
    background = np.array([0.3, 0.1, -1.0, 0.0], np.float32)
    pg.compile(forest(), [pg.KernelSHAP(background=background)], tmp_path / "m.onnx")
    x = models.images((4,), count=5)

    def score(some):
        return worth(np.where(np.isin(np.arange(4), list(some)), x, background))

    found = runtime.load(tmp_path / "m.onnx").run(x)["kernel_shap/x"].array
    np.testing.assert_allclose(found, values_over_orders(score, 4), atol=1e-5)
    assert np.abs(found[:, 3]).max() < 1e-5
    assert np.abs(found).max() > 1


@keras.saving.register_keras_serializable(package="probegen_tests")
class Steps(layers.Layer):
    """Rounds, and compares with zero."""

    def call(self, x):
        return keras.ops.cast(x > 0, "float32") + keras.ops.round(x)


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
def test_steps_of_a_keras_model(tmp_path, path):
    keras.utils.set_random_seed(4)
    given = keras.Input((6,), name="row")
    model = keras.Model(given, layers.Dense(3, name="scores")(Steps(name="steps")(given)))
    if path == "m.onnx":
        with pytest.raises(NotDifferentiableError):
            pg.compile(model, pg.Saliency(), tmp_path / path)
    pg.compile(model, pg.FeatureAblation(target=1), tmp_path / path)
    x = models.images((6,), count=3)
    score = lambda v: model.predict_on_batch(v)[:, 1]  # noqa: E731
    expected = [score(x) - score(np.where(np.arange(6) == i, 0, x)) for i in range(6)]
    found = runtime.load(tmp_path / path).run(x)["feature_ablation/row"].array
    np.testing.assert_allclose(found, np.stack(expected, 1), atol=1e-5)


def test_numbers_that_are_compared_twice_are_hidden_from_both(tmp_path):
    """One comparison becomes a number, the other chooses: both are of what is hidden.

    Gradients were taken at the number that the first one becomes, under the name of the input.
    """
    keras.utils.set_random_seed(5)
    given = keras.Input((4,), name="row")
    counted = keras.ops.cast(given > 0.3, "float32")
    seen = keras.ops.where(given > -0.2, counted, 2.0 - counted)
    model = keras.Model(given, layers.Dense(2, name="scores")(seen))
    with pytest.raises(NotDifferentiableError, match="the gradient stops at Greater"):
        pg.compile(model, pg.IntegratedGradients(3), tmp_path / "n.onnx")
    done = pg.compile(model, pg.FeatureAblation(fill=-0.5, target=1), tmp_path / "m.onnx")
    assert done.report.passed
    x = models.images((4,), count=5)
    score = lambda v: np.asarray(model(v))[:, 1]  # noqa: E731
    expected = [score(x) - score(np.where(np.arange(4) == i, -0.5, x)) for i in range(4)]
    found = runtime.load(tmp_path / "m.onnx").run(x)["feature_ablation/row"].array
    np.testing.assert_allclose(found, np.stack(expected, 1), atol=1e-5)


MARKED = """
<ir_version: 8, opset_import: ["" : 14]>
marked (float[batch, 5] x) => (float[batch, 1] y)
<float twice = {2}, float mark = {-0.7}, float three = {3}, int64[1] one = {1}>
{
    doubled = Mul (x, twice)
    missing = Equal (doubled, mark)
    seen = Where (missing, three, doubled)
    y = ReduceSum (seen, one)
}
"""


@pytest.mark.parametrize("kind", ["keras", "onnx"])
def test_what_is_filled_with_a_mark_holds_the_mark(tmp_path, kind):
    """The reference moves tensors by a difference: in float32 it would miss -0.7 by rounding."""
    x = keras.Input((5,), name="x")
    doubled = layers.Rescaling(2.0, name="doubled")(x)
    seen = keras.ops.where(keras.ops.equal(doubled, -0.7), 3.0, doubled)
    model = keras.Model(x, keras.ops.sum(seen, axis=1, keepdims=True))
    source = model if kind == "keras" else onnx.parser.parse_model(MARKED)
    probe = pg.FeatureAblation(fill=-0.7, wrt="*doubled")
    done = pg.compile(source, probe, tmp_path / "m.onnx")
    assert done.report.passed
    data = models.images((5,), count=7)
    found = runtime.load(tmp_path / "m.onnx").run(data)[done.manifest.explanations[0].name].array
    np.testing.assert_allclose(found, 2 * data - 3, atol=1e-5)


def test_a_column_that_is_looked_up_and_counted_with_is_filled_for_both(tmp_path):
    """The buckets of what is hidden are those of the number in its place, not a vector of zeros."""
    keras.utils.set_random_seed(2)
    x = keras.Input((3,), name="row")
    ids = layers.Discretization([-0.5, 0.4], name="bucket")(x)
    vectors = layers.Embedding(3, 2, embeddings_initializer="normal")(ids) + x[..., None]
    model = keras.Model(x, layers.Dense(4)(layers.Flatten()(keras.ops.tanh(vectors))))
    done = pg.compile(model, pg.FeatureAblation(fill=0.2, target=3), tmp_path / "m.onnx")
    assert done.report.passed
    data = models.images((3,), count=5)
    score = lambda v: np.asarray(model(v))[:, 3]  # noqa: E731
    expected = [score(data) - score(np.where(np.arange(3) == i, 0.2, data)) for i in range(3)]
    found = runtime.load(tmp_path / "m.onnx").run(data)["feature_ablation/row"].array
    np.testing.assert_allclose(found, np.stack(expected, 1), atol=1e-5)


def test_what_the_target_does_not_depend_on_is_refused(tmp_path):
    left, right = keras.Input((3,), name="left"), keras.Input((4,), name="right")
    one = layers.Dense(2, name="one")(left)
    model = keras.Model([left, right], [one, layers.Dense(2, name="two")(right)])
    pg.compile(model, pg.Occlusion(2, output="one"), tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").manifest.explanations
    assert [o.name for o in found] == ["occlusion/left"]
    with pytest.raises(NotDifferentiableError, match="does not depend on input 'right'"):
        pg.compile(model, pg.Occlusion(2, output="one", wrt="right"), tmp_path / "n.onnx")
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
def test_what_an_input_is_looked_up_as_changes_with_it(tmp_path, path):
    """The buckets of a number, beside the number itself: neither is hidden by itself."""
    keras.utils.set_random_seed(5)
    given = keras.Input((4,), name="row")
    buckets = layers.Embedding(3, 2)(layers.Discretization([-0.4, 0.3])(given))
    joined = layers.Flatten()(buckets + given[..., None])
    model = keras.Model(given, layers.Dense(3, name="scores")(joined))
    pg.compile(model, pg.FeatureAblation(target=1, fill=-1.0), tmp_path / path)
    x = models.images((4,), count=3)
    score = lambda v: model.predict_on_batch(v)[:, 1]  # noqa: E731
    expected = [score(x) - score(np.where(np.arange(4) == i, -1, x)) for i in range(4)]
    found = runtime.load(tmp_path / path).run(x)["feature_ablation/row"].array
    np.testing.assert_allclose(found, np.stack(expected, 1), atol=1e-5)


def test_what_is_looked_up_by_a_moved_number_is_moved_as_well(tmp_path):
    """The vector of the id is hidden with the number, and not looked up anew by what hides it."""
    x = keras.Input((3,), dtype="int32", name="x")
    number = ops.cast(x, "float32")
    rows = keras.layers.Embedding(5, 4, embeddings_initializer="normal", name="rows")
    summed = rows(ops.cast(number, "int32")) + ops.expand_dims(number / 50, -1)
    score = keras.layers.Dense(2, name="score")
    model = keras.Model(x, score(keras.layers.Flatten()(summed)))
    pg.compile(model, [pg.FeatureAblation(target=1)], tmp_path / "m.onnx")
    ids = np.array([[0, 2, 4], [3, 1, 1]], np.int32)
    found = runtime.load(tmp_path / "m.onnx").run(ids)["feature_ablation/x"].array
    kernel = np.asarray(score.kernel)[:, 1].reshape(3, 4)
    lost = (np.asarray(rows(ids)) + ids[..., None] / 50) * kernel
    np.testing.assert_allclose(found, lost.sum(-1), rtol=1e-4, atol=1e-5)
