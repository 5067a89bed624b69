"""The instrumented model: what it returns, takes, refuses, and how it is saved."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import probegen as pg
from probegen.errors import InputError, InstrumentError
from tests import models


def test_predictions_come_first_and_are_unchanged():
    model, x = models.cnn(), models.images((11, 8, 2))
    probed = pg.instrument(model, [pg.Activations("conv*"), pg.Saliency()])
    outputs = probed(x)
    assert list(outputs) == ["scores", "activation/conv1", "activation/conv2", "saliency/image"]
    np.testing.assert_array_equal(outputs["scores"], model(x))
    np.testing.assert_array_equal(probed.predict(x, verbose=0)["scores"], outputs["scores"])


def test_activations_are_the_layers_outputs():
    model, x = models.cnn(), models.images((11, 8, 2))
    expected = keras.Model(model.inputs, model.get_layer("conv2").output)(x)
    outputs = pg.instrument(
        model,
        [
            pg.Activations("conv2"),
            pg.Activations("conv2", reduce="mean", axes="spatial", name="mean"),
            pg.Activations("conv2", reduce="max", name="max"),
            pg.Activations("conv2", reduce="norm", axes=(1, 3), name="norm"),
            pg.Activations("conv2", channels=(4, 1), dtype="float16", name="half"),
        ],
    )(x)
    e = np.asarray(expected)
    np.testing.assert_allclose(outputs["activation/conv2"], e, rtol=1e-6)
    np.testing.assert_allclose(outputs["mean"], e.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(outputs["max"], e.max(-1), rtol=1e-6)
    np.testing.assert_allclose(outputs["norm"], np.sqrt((e**2).sum((1, 3))), rtol=1e-5)
    assert outputs["half"].dtype == "float16"
    np.testing.assert_array_equal(outputs["half"], e[..., [4, 1]].astype("float16"))


def test_target_at_request_time():
    model, x = models.cnn(), models.images((11, 8, 2), count=4)
    probed = pg.instrument(model, pg.InputGradient(target="input"))
    fixed = [
        pg.instrument(model, pg.InputGradient(target=t))(x)["input_gradient/image"]
        for t in (0, 3, "argmax")
    ]
    got = probed(x, target=[0, 3, -1, -1])["input_gradient/image"]
    expected = np.stack([fixed[0][0], fixed[1][1], fixed[2][2], fixed[2][3]])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    by_dict = probed({"image": x, "target": np.array([0, 3, -1, -1])})
    np.testing.assert_array_equal(by_dict["input_gradient/image"], got)
    np.testing.assert_allclose(probed(x)["input_gradient/image"], fixed[2], rtol=1e-5, atol=1e-7)


@keras.saving.register_keras_serializable(package="probegen_tests")
class Anonymous(keras.layers.Layer):
    """A layer whose inner layers have no names of their own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = keras.layers.MultiHeadAttention(2, 3)
        self.first, self.second = keras.layers.Dense(6), keras.layers.Dense(4)

    def build(self, shape):
        self.attention.build(shape, shape)
        self.first.build(shape)
        self.second.build((*shape[:-1], 6))

    def call(self, x):
        return self.second(self.first(self.attention(x, x)))


def test_layers_that_keras_numbers_anew_keep_their_outputs(tmp_path):
    x = keras.Input((5, 4), name="x")
    model = keras.Model(x, Anonymous(name="block")(x))
    probes = [
        pg.Attention(),
        pg.Activations("type:Dense", name="dense"),
        pg.InputGradient(wrt="block/dense*", target=(0, 1)),
        pg.GradCAM(model.layers[1].second, target=(0, 1)),
    ]
    probed = pg.instrument(model, probes)
    probed.save(tmp_path / "m.keras")
    model.save(tmp_path / "source.keras")
    pg.export(probed, tmp_path / "m.onnx", verify=False)
    for _ in range(2):  # the numbers go on counting
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        assert loaded.source.layers[1].first.name != model.layers[1].first.name
        data = models.images((5, 4))
        outputs = loaded(data)
        assert list(outputs) == list(probed(data))
        for name, value in probed(data).items():
            np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-7)
    assert pg.verify(tmp_path / "m.onnx", tmp_path / "source.keras").passed


def test_targets_of_a_call_are_checked():
    probed = pg.instrument(models.cnn(), pg.Saliency(target="input"))
    for target in (4, [0, 9, 1], -2):
        with pytest.raises(InstrumentError, match="legal are 0 to 3, or -1"):
            probed(models.images((11, 8, 2)), target=target)


def test_instrumented_models_are_not_trained():
    probed = pg.instrument(models.cnn(), pg.Saliency())
    with pytest.raises(InstrumentError, match=r"train `probed\.source`"):
        probed.fit(models.images((11, 8, 2)))


def test_save_and_load_in_a_fresh_process(tmp_path):
    model, x = models.cnn(), models.images((11, 8, 2))
    probed = pg.instrument(
        model,
        [pg.Saliency(target="input"), pg.GradCAM(), pg.Activations("bn1", reduce="mean")],
        class_names=["a", "b", "c", "d"],
    )
    probed.save(tmp_path / "m.keras")
    np.savez(tmp_path / "x.npz", x=x, **{k.replace("/", "|"): v for k, v in probed(x).items()})
    code = """
import sys, numpy as np
import probegen
assert "tensorflow" not in sys.modules
import keras
model = keras.saving.load_model(sys.argv[1] + "/m.keras")
data = np.load(sys.argv[1] + "/x.npz")
outputs = model(data["x"])
for name, value in outputs.items():
    np.testing.assert_allclose(value, data[name.replace("/", "|")], rtol=1e-6, atol=1e-7)
assert model.manifest.class_names == ("a", "b", "c", "d")
print("same", len(outputs))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "same 4" in done.stdout, done.stderr


def test_inputs_of_another_shape_are_refused():
    probed = pg.instrument(models.cnn(), [pg.Saliency()])
    with pytest.raises(InstrumentError, match=r"'image' .*\[\?, 11, 8, 2\], got \[3, 11, 8, 1\]"):
        probed(np.zeros((3, 11, 8, 1), "float32"))


def test_callable_targets_cannot_be_saved(tmp_path):
    probed = pg.instrument(models.cnn(), pg.Saliency(target=lambda y: y[:, 0]))
    with pytest.raises(pg.ProbegenError, match="a class index or a tuple"):
        probed.save(tmp_path / "m.keras")


def test_names_of_features_are_kept(tmp_path):
    """In the manifest, in a .keras file, and in an artefact of the instrumented model."""
    model = models.forecaster()
    name = model.inputs[0].name
    features = ["wind [m/s]", ("load", "MW")]
    probed = pg.instrument(model, pg.InputGradient(target=0), feature_names=features)
    expected = {"wind": "m/s", "load": "MW"}
    assert {f.name: f.unit for f in probed.manifest.inputs[0].features} == expected
    probed.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.manifest.inputs == probed.manifest.inputs
    exported = pg.export(probed, tmp_path / "m.onnx", verify=False)
    assert exported.manifest.inputs[0].features == probed.manifest.inputs[0].features
    with pytest.raises(InputError, match=f"3 entries for the input '{name}', which has 2 features"):
        pg.instrument(model, [], feature_names={name: list("abc")})
