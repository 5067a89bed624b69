"""The forward pass as ONNX: what it is made of, and which layer each node came from."""

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers

import probegen as pg
from probegen.graph.passes import prepare
from probegen.plan.making import make_plan
from probegen.sources.keras.instrumented import instrument
from probegen.sources.keras.keras_model import as_keras_model
from probegen.sources.keras.source import KerasSource
from probegen.sources.keras.to_onnx import lowering
from probegen.sources.keras.to_onnx.handlers.linear import _as_matmul
from probegen.sources.keras.to_onnx.lowering import forward_graph, layer_of
from tests import models


def forward_of(model):
    probed = instrument(model, pg.InputGradient())
    return forward_graph(probed.keras_model, probed.plan)


def layers_by_operator(forward, op_type):
    return {forward.layer_of(n.name) for n in forward.graph.all_nodes() if n.op_type == op_type}


def test_a_node_beside_a_loop_keeps_its_layer():
    forward = forward_of(models.forecaster())
    assert layers_by_operator(forward, "Conv") == {"conv"}
    assert layers_by_operator(forward, "Relu") == {"conv"}
    assert layers_by_operator(forward, "MatMul") == {"next"}


def test_a_source_runs_tf2onnx_once_for_a_plan_and_shares_no_graph(monkeypatch):
    """What one reader changes in its graph, another does not see."""
    runs = []
    convert = lowering.convert
    monkeypatch.setattr(lowering, "convert", lambda *a: runs.append(a[-1]) or convert(*a))
    source = KerasSource(as_keras_model(models.cnn()))
    plan, other = (make_plan(source.view, [pg.Saliency(target=i)], None) for i in (0, 1))
    first = source.forward_graph(plan, 18, None)
    written = ir.serde.serialize_model(first.model).SerializeToString(deterministic=True)
    prepare(first.model)
    for value in [*first.graph.initializers.values(), *(v for n in first.graph for v in n.outputs)]:
        value.name = f"{value.name}/changed"
    again = source.forward_graph(plan, 18, None)
    assert ir.serde.serialize_model(again.model).SerializeToString(deterministic=True) == written
    assert runs == [18]
    for asked in ((plan, 17, None), (plan, 17, 2), (other, 17, 2)):
        source.forward_graph(*asked)
    assert runs == [18, 17, 17, 17]
    assert source.forward_graph(other, 17, 2).graph.inputs[0].shape[0] == 2
    assert len(runs) == 4


def test_a_scope_is_known_by_what_its_layers_share():
    found = {"m/a_1/mul": "a", "m/rnn_1/step": "rnn", "m/rnn_1/cell_1/add": "rnn/cell"}
    assert layer_of(found, "m/a_1/mul__7") == "a"
    assert layer_of(found, "m/rnn_1/while/body/mul_3__12") == "rnn"
    assert layer_of(found, "m/outside") == ""
    assert layer_of(found, "Transpose__4") == ""


def test_attention_is_two_products():
    x = keras.Input((7, 6))
    y = layers.MultiHeadAttention(2, 3, name="mha")(x, x)
    forward = forward_of(keras.Model(x, layers.Flatten()(y)))
    kinds = [n.op_type for n in forward.graph]
    assert "Einsum" not in kinds
    # Three projections, two products, one projection out; no size is computed for them.
    assert kinds.count("MatMul") == 6
    assert "Max" not in kinds


@pytest.mark.parametrize(
    "equation",
    ["aecd,abcd->acbe", "acbe,aecd->abcd", "ij,jk->ik", "bik,bkj->jbi", "ij,ik->jk"],
)
def test_an_einsum_as_a_product(equation):
    sizes = dict(zip("abcdeijk", (2, 3, 4, 5, 6, 3, 7, 5), strict=True))
    rng = np.random.default_rng(0)
    first, second = (
        rng.normal(size=[sizes[c] for c in term]) for term in equation.partition("->")[0].split(",")
    )
    before, other, after = _as_matmul(equation)
    product = np.matmul(first.transpose(before), second.transpose(other)).transpose(after)
    np.testing.assert_allclose(product, np.einsum(equation, first, second))


@pytest.mark.parametrize("equation", ["abc,cd->abd", "aab,bc->ac", "i,j->ij", "ab->b"])
def test_an_einsum_that_is_more_than_a_product_stays_one(equation):
    assert _as_matmul(equation) is None


def test_images_that_are_outputs_and_multiplied_stay_outputs(tmp_path):
    x = keras.Input((9, 7, 3))
    y = layers.RMSNormalization()(layers.Conv2D(5, 3, use_bias=False, name="conv")(x))
    model = keras.Model(x, layers.Dense(3)(layers.GlobalMaxPooling2D()(y)))
    done = pg.compile(model, pg.Activations("conv"), tmp_path / "model.onnx")
    assert done.report["activation/conv"].max_rel < 1e-5


def test_sizes_that_tensorflow_knows_are_not_lost():
    """Methods by scores ask for them: how many positions there are to hide."""
    x = keras.Input([None, None, 2], dtype="uint8", name="x")
    resized = layers.Resizing(4, 3, name="resized")(x)
    both = layers.Maximum()([resized, layers.Dense(2, activation="relu")(resized)])
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(both)))
    source = KerasSource(as_keras_model(model))
    plan = make_plan(source.view, (pg.LIME(samples=20, background=0.5),))
    found = source.forward_graph(plan, 18, None).sources
    assert [list(found[ref].shape)[1:] for ref in plan.refs] == [[4, 3, 2]] * 2
