"""End to end: model in, artefact out, and the numbers are those of TensorFlow on the source."""

import json
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime as ort
import pytest

import probegen as pg
from probegen import runtime
from probegen.artefact.manifest import ONNX_METADATA_KEY, Manifest
from probegen.errors import (
    ExportError,
    OutputExistsError,
    UnsupportedOpsError,
    VerificationError,
)
from tests import models

GRADIENTS = [
    pg.InputGradient(),
    pg.Saliency(target="input"),
    pg.IntegratedGradients(steps=5, baseline=0.1, target=0),
]
SUBJECTS = {
    "cnn": (models.cnn, [*GRADIENTS, pg.GradCAM(), pg.Activations("*")]),
    "transformer": (models.transformer, [*GRADIENTS, pg.Attention(), pg.GradCAM("block_1")]),
    "forecaster": (models.forecaster, [pg.InputGradient(), pg.Saliency(), pg.Activations("lstm")]),
    "nested": (models.nested, [*GRADIENTS, pg.InputGradient(wrt="backbone/conv1_out")]),
    "siamese": (models.siamese, [pg.InputGradient(), pg.Activations("tower")]),
    "two_heads": (
        models.two_heads,
        [pg.Saliency(output="label"), pg.InputGradient(output="value"), pg.Activations("trunk")],
    ),
}  # fmt: skip


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options)


@pytest.mark.parametrize("name", SUBJECTS)
def test_onnx_agrees_with_tensorflow(name, tmp_path):
    make, probes = SUBJECTS[name]
    exported = pg.compile(make(), probes, tmp_path / "m.onnx")
    assert exported.report.passed
    for output, parity in exported.report.items():
        # Far inside the limits: these models are small and their gates are away from ties.
        assert parity.max_rel < 2e-5, f"{output}: {parity}"
    proto = onnx.load(tmp_path / "m.onnx")
    assert {node.domain for node in proto.graph.node} == {""}
    assert {o.domain for o in proto.opset_import} == {""}
    manifest = Manifest.from_json(exported.manifest.to_json())
    assert [o.name for o in proto.graph.output] == [o.name for o in manifest.outputs]
    assert manifest.certificate["passed"]


@pytest.mark.parametrize("name", ["cnn", "transformer", "forecaster"])
def test_savedmodel_agrees_and_serves_plainly(name, tmp_path):
    import tensorflow as tf

    make, probes = SUBJECTS[name]
    model = make()
    exported = pg.compile(model, probes, tmp_path / "saved")
    assert all(p.max_rel < 1e-5 for p in exported.report.values())
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    assert set(loaded.signatures) == {"serving_default", "explain"}
    serving = loaded.signatures["serving_default"]
    assert set(serving.structured_outputs) == set(model.output_names)
    x = {i.name: np.zeros([2, *i.shape[1:]], i.dtype) + 1 for i in exported.manifest.inputs}
    got = serving(**{k: tf.constant(v) for k, v in x.items()})
    expected = model(next(iter(x.values())))
    np.testing.assert_allclose(got[model.output_names[0]], expected, rtol=1e-6)


def stateful():
    x = keras.Input(batch_shape=(2, 6, 3), name="x")
    y = keras.layers.LSTM(4, stateful=True, name="lstm")(x)
    return keras.Model(x, keras.layers.Dense(3, name="head")(y)), [pg.Saliency(target=1)]


def looked_up():
    x = keras.Input((4,), dtype="int64", name="codes")
    look = keras.layers.IntegerLookup(vocabulary=[3, 5, 7], name="lookup")
    y = keras.layers.Flatten()(keras.layers.Embedding(5, 3, name="embedding")(look(x)))
    return keras.Model(x, keras.layers.Dense(2, name="head")(y)), [pg.InputGradient(target=1)]


def in_a_closure():
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden")

    class Holder(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(2, name="head")

        def call(self, x):
            return self.head(hidden(x))

    model = Holder()
    model(models.images((5,)))
    return model, [pg.InputGradient(target=1), pg.Activations("hidden")]


def masked():
    """As in BERT: ids and a mask, of one open length."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    mask = keras.Input((None,), dtype="int32", name="mask")
    y = keras.layers.Embedding(11, 6, name="embedding")(ids)
    seen = keras.ops.cast(keras.ops.expand_dims(mask, 1), "bool")
    y = keras.layers.MultiHeadAttention(2, 3, name="look")(y, y, attention_mask=seen)
    y = keras.layers.Dense(3, activation="softmax", name="head")(y[:, 0])
    return keras.Model({"ids": ids, "mask": mask}, y), [pg.InputGradient(), pg.Attention()]


def oddly_named():
    x = keras.Input((5,), name="in put-1")
    return keras.Model(x, keras.layers.Dense(3, name="9out")(x)), [pg.InputGradient()]


@pytest.mark.parametrize("make", [stateful, looked_up, in_a_closure, masked, oddly_named])
def test_savedmodels_of_unusual_models(make, tmp_path):
    model, probes = make()
    exported = pg.compile(model, probes, tmp_path / "saved")
    assert all(p.max_rel < 1e-5 for p in exported.report.values())


@pytest.mark.parametrize("make", [stateful, looked_up, in_a_closure, masked, oddly_named])
def test_onnx_of_unusual_models(make, tmp_path):
    model, probes = make()
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    assert all(p.max_rel < 1e-5 for p in exported.report.values())


def test_stateful_models_keep_their_batch_and_start_from_the_states_at_export(tmp_path):
    model, probes = stateful()
    exported = pg.compile(model, probes, tmp_path / "m.onnx", verify=False)
    assert exported.manifest.inputs[0].shape == (2, 6, 3)
    art, x = runtime.load(tmp_path / "m.onnx"), models.images((6, 3), count=2)
    once, again = (art.run(x)["head"].array for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_names_and_order_are_the_contracts(tmp_path):
    pg.compile(
        models.cnn(),
        [pg.Activations("conv1"), pg.Saliency(target="input"), pg.GradCAM(name="where")],
        tmp_path / "m.onnx",
        verify=False,
    )
    s = session(tmp_path / "m.onnx")
    assert [(i.name, i.type) for i in s.get_inputs()] == [
        ("image", "tensor(float)"),
        ("target", "tensor(int32)"),
        ("explain", "tensor(bool)"),
    ]
    assert s.get_inputs()[0].shape[1:] == [11, 8, 2]
    assert s.get_inputs()[2].shape == []
    assert not s.get_overridable_initializers()
    names = [o.name for o in s.get_outputs()]
    assert names == ["scores", "activation/conv1", "saliency/image", "where"]
    manifest = Manifest.from_json(s.get_modelmeta().custom_metadata_map[ONNX_METADATA_KEY])
    assert manifest.target_input
    assert manifest.gate == "required"


def test_batches_of_any_size_give_the_same_rows(tmp_path):
    model = models.cnn()
    probes = [pg.Saliency(), pg.GradCAM(), pg.IntegratedGradients(steps=3)]
    pg.compile(model, probes, tmp_path / "m.onnx", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    x = models.images((11, 8, 2), count=8)
    whole = art.run(x)
    for size in (1, 3):
        part = art.run(x[:size])
        for name, record in part.items():
            np.testing.assert_allclose(record.array, whole[name].array[:size], rtol=1e-5, atol=1e-7)


def test_request_time_targets(tmp_path):
    model = models.cnn()
    probed = pg.instrument(model, pg.InputGradient(target="input"))
    pg.export(probed, tmp_path / "m.onnx", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    x = models.images((11, 8, 2))
    got = art.run(x, target=[2, -1, 0])["input_gradient/image"].array
    expected = probed(x, target=[2, -1, 0])["input_gradient/image"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(got[0] - art.run(x, target=1)["input_gradient/image"].array[0]).max() > 1e-3


@pytest.mark.parametrize("gate", [True, "optional"])
def test_a_client_with_onnxruntime_alone(tmp_path, gate):
    pg.compile(models.cnn(), [pg.Saliency(), pg.GradCAM()], tmp_path / "m.onnx", gate=gate)
    s, x = session(tmp_path / "m.onnx"), models.images((11, 8, 2))
    here = runtime.load(tmp_path / "m.onnx").run(x)
    on = s.run(None, {"image": x, "explain": np.array(True)})
    for got, record in zip(on, here.values(), strict=True):
        np.testing.assert_array_equal(got, record.array)
    off = s.run(None, {"image": x, "explain": np.array(False)})
    np.testing.assert_allclose(off[0], on[0], rtol=1e-6)
    assert [o.shape[0] for o in off[1:]] == [0, 0]
    if gate == "optional":
        unasked = s.run(None, {"image": x})
        np.testing.assert_array_equal(unasked[0], off[0])
        assert [o.shape for o in unasked[1:]] == [o.shape for o in off[1:]]
    else:
        with pytest.raises(ValueError, match=r"explain.* are missing from input feed"):
            s.run(None, {"image": x})


def test_an_optional_gate_that_is_not_fed_computes_no_explanation(tmp_path):
    pg.compile(models.cnn(), pg.Saliency(), tmp_path / "m.onnx", gate="optional", verify=False)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    s, x = ort.InferenceSession(str(tmp_path / "m.onnx"), options), models.images((11, 8, 2))
    for feed in ({}, {"explain": np.array(False)}, {"explain": np.array(True)}):
        s.run(None, {"image": x, **feed})
    events = json.loads(Path(s.end_profiling()).read_text())
    starts = sorted(e["ts"] for e in events if e["name"] == "model_run")
    kernels = [e["ts"] for e in events if e["name"].endswith("_kernel_time")]
    counts = [
        sum(a <= k < b for k in kernels) for a, b in zip(starts, [*starts[1:], 1e18], strict=True)
    ]
    assert counts[0] == counts[1] < counts[2] / 2


@pytest.mark.parametrize("gate", ["yes", "required", 1, None])
def test_a_gate_of_no_known_form(tmp_path, gate):
    with pytest.raises(ExportError, match=r"gate= takes True .* 'optional' .* False .*, got"):
        pg.compile(models.cnn(), pg.Saliency(), tmp_path / "m.onnx", gate=gate)
    assert not list(tmp_path.iterdir())


def test_without_gate_and_with_a_fixed_batch(tmp_path):
    pg.compile(models.cnn(), pg.Saliency(), tmp_path / "m.onnx", gate=False, dynamic_batch=False)
    s = session(tmp_path / "m.onnx")
    assert s.get_inputs()[0].shape == [1, 11, 8, 2]
    assert [i.name for i in s.get_inputs()] == ["image"]
    assert not s.get_overridable_initializers()
    assert "If" not in {n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node}


def test_weights_are_stored_once(tmp_path):
    model = models.cnn()
    wide = keras.layers.Dense(900, activation="relu", name="wide")
    y = keras.layers.Dense(3, activation="softmax")(wide(model.layers[-2].output))
    model = keras.Model(model.inputs, y)
    plain = {"gate": False, "verify": False}
    pg.compile(model, pg.Activations("gap"), tmp_path / "plain.onnx", **plain)
    pg.compile(model, [pg.Saliency(), pg.GradCAM("conv2")], tmp_path / "m.onnx", verify=False)
    floats = [
        sum(np.prod(i.dims) for i in onnx.load(tmp_path / f).graph.initializer if i.data_type == 1)
        for f in ("plain.onnx", "m.onnx")
    ]
    assert floats[1] <= floats[0] + 200


@pytest.mark.parametrize("opset", [16, 20])  # 18 is the usual one
def test_opsets(tmp_path, opset):
    exported = pg.compile(
        models.cnn(), [pg.Saliency(), pg.GradCAM()], tmp_path / "m.onnx", opset=opset
    )
    assert exported.report.passed
    proto = onnx.load(tmp_path / "m.onnx")
    assert proto.opset_import[0].version == opset


def test_stopped_branches_stay_stopped(tmp_path):
    x = keras.Input((5,), name="x")
    free = keras.layers.Dense(4, activation="tanh")(x)
    held = keras.ops.stop_gradient(keras.layers.Dense(4, activation="tanh")(x))
    model = keras.Model(x, keras.layers.Dense(3)(free * held))
    exported = pg.compile(model, pg.InputGradient(), tmp_path / "m.onnx")
    assert exported.report["input_gradient/x"].max_rel < 1e-5


# -- refusals ------------------------------------------------------------------------------


def test_an_existing_folder_is_kept(tmp_path):
    probed = pg.instrument(models.cnn(), pg.Saliency())
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine").write_text("precious")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        pg.export(probed, tmp_path / "saved")
    assert (tmp_path / "saved" / "mine").read_text() == "precious"
    pg.export(probed, tmp_path / "saved", overwrite=True, verify=False)
    assert not (tmp_path / "saved" / "mine").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


def test_unsupported_operations_are_listed_with_their_layers(tmp_path):
    x = keras.Input((6, 6), name="x")
    y = keras.layers.Lambda(keras.ops.linalg.inv, name="inverse")(x)
    y = keras.layers.Lambda(lambda v: keras.ops.real(keras.ops.linalg.eigh(v)[0]), name="eigen")(y)
    model = keras.Model(x, keras.layers.Dense(2)(y))
    with pytest.raises(UnsupportedOpsError, match=r"(?s)inverse.*eigen|eigen.*inverse"):
        pg.compile(model, pg.Saliency(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"opset": 12}, "opsets 13 to"),
        ({"format": "tflite"}, "onnx, savedmodel, keras"),
        ({"format": "savedmodel", "gate": "split"}, "'split'.* ONNX .* two signatures"),
        ({"format": "savedmodel", "gate": "optional"}, "'optional'.* ONNX .* two signatures"),
        ({"format": "keras", "gate": "split"}, "'split'.* ONNX .* computes everything"),
        ({"format": "savedmodel", "external_data": True}, "external_data=.* ONNX"),
    ],
)
def test_options_are_checked(tmp_path, options, says):
    with pytest.raises(ExportError, match=says):
        pg.compile(models.cnn(), pg.Saliency(), tmp_path / "m.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_only_instrumented_models_are_exported(tmp_path):
    with pytest.raises(ExportError, match=r"pg\.compile"):
        pg.export(models.cnn(), tmp_path / "m.onnx")


# -- verification --------------------------------------------------------------------------


def test_verify_finds_another_model(tmp_path):
    pg.compile(models.cnn(seed=1), [pg.Saliency()], tmp_path / "m.onnx", verify=False)
    assert pg.verify(tmp_path / "m.onnx", models.cnn(seed=1)).passed
    with pytest.raises(VerificationError, match="'scores'") as caught:
        pg.verify(tmp_path / "m.onnx", models.cnn(seed=2))
    assert caught.value.report["scores"].max_rel > 1e-3


def test_a_failed_verification_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("probegen.parity.comparison.TOLERANCES", {"float32": 0.0})
    with pytest.raises(VerificationError, match="limit"):
        pg.compile(models.cnn(), pg.Saliency(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_verify_on_given_samples(tmp_path):
    model = models.cnn()
    pg.compile(model, pg.Saliency(), tmp_path / "m.onnx", verify=False)
    report = pg.verify(tmp_path / "m.onnx", model, models.images((11, 8, 2), count=5))
    assert (report.samples, report.generated) == (5, False)


def test_callable_targets_are_verified_with_the_instrumented_model(tmp_path):
    probed = pg.instrument(models.cnn(), pg.InputGradient(target=lambda y: y[:, 1] - y[:, 2]))
    pg.export(probed, tmp_path / "m.onnx")
    assert pg.verify(tmp_path / "m.onnx", probed).passed
    with pytest.raises(VerificationError, match="pass the instrumented model"):
        pg.verify(tmp_path / "m.onnx", probed.source)
