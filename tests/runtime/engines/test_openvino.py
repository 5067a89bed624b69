"""Artefacts in OpenVINO: gates, element types, names, threads, and what cannot be opened."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.artefact import onnx_file
from probegen.artefact.manifest import (
    ONNX_METADATA_KEY,
    InputSpec,
    Manifest,
    OutputSpec,
)
from probegen.errors import ArtefactError
from tests.engines import apart
from tests.runtime.support import SIZE, WEIGHTS, images, with_manifest


def gradient_of(classes):
    return WEIGHTS.T[classes].reshape(-1, 5, 7, 3)


@pytest.fixture(scope="module")
def art(image_path):
    return runtime.load(image_path, engine="openvino", threads=1)


@pytest.mark.parametrize("batch", [3, 1])
@pytest.mark.parametrize("form", ["image_path", "optional_path"])
def test_both_gates(request, form, batch):
    """OpenVINO takes an initializer for a constant; the optional gate works nonetheless."""
    art = runtime.load(request.getfixturevalue(form), engine="openvino", threads=1)
    x, target = images(batch), [3, 0, 2][:batch]
    np.testing.assert_allclose(
        art.run(x, target=target)["input_gradient/image"].array, gradient_of(target), rtol=1e-6
    )
    assert list(art.run(x, explain=False)) == ["animal"]
    assert art.run(x)["saliency/image"].shape == (batch, 5, 7)


def test_which_inputs_have_a_default(image_path, optional_path, plain_path, tmp_path):
    assert onnx_file.inputs_with_default(Path(optional_path)) == ["explain"]
    for path in (image_path, plain_path):
        assert onnx_file.inputs_with_default(Path(path)) == []
    (tmp_path / "text").write_text("no ONNX file")
    assert onnx_file.inputs_with_default(tmp_path / "text") == []


def test_a_size_that_the_file_fixes(tmp_path):
    x = keras.Input((4, 3), name="x", batch_size=2)
    model = keras.Model(x, layers.Dense(5, name="y")(layers.Flatten()(x)))
    pg.compile(model, pg.InputGradient(target=1), tmp_path / "m.onnx", verify=False)
    art, other = (runtime.load(tmp_path / "m.onnx", engine=e) for e in ("openvino", "onnxruntime"))
    assert art.engine.signatures[0].inputs["x"].shape == (2, 4, 3)
    x = np.random.default_rng(0).normal(size=(6, 4, 3))
    assert near(art.run_batched(x, 2), other.run_batched(x, 2)) < 1e-6


def near(found, expected):
    """Returns how far two results are apart at most, as a share of the largest number."""
    arrays = [{n: r.array for n, r in result.items()} for result in (found, expected)]
    return max(apart(*arrays).values())


#: Element type of the input, that of the layers, and how far the engines may be apart.
TYPES = [
    ("float16", "float16", 2e-3),
    ("float64", "float32", 1e-6),
    ("uint8", "float32", 1e-6),
    ("int64", "float32", 1e-6),
    ("bool", "float32", 1e-6),
]


@pytest.mark.parametrize(("given", "inside", "limit"), TYPES)
def test_element_types(tmp_path, given, inside, limit):
    keras.utils.set_random_seed(3)
    x = keras.Input((5, 4), name="x", dtype=given)
    y = keras.ops.cast(x, inside) / 4
    y = layers.Conv1D(6, 3, activation="relu", dtype=inside, name="maps")(y)
    y = layers.Dense(3, activation="softmax", dtype=inside, name="scores")(
        layers.Flatten(dtype=inside)(y)
    )
    probes = [pg.GradCAM("maps"), *([pg.InputGradient()] if "float" in given else [])]
    pg.compile(keras.Model(x, y), probes, tmp_path / "m.onnx", verify=False)
    art, other = (runtime.load(tmp_path / "m.onnx", engine=e) for e in ("openvino", "onnxruntime"))
    for batch in (3, 1):
        drawn = np.random.default_rng(batch).integers(0, 2 if given == "bool" else 9, (batch, 5, 4))
        x = drawn.astype(given)
        result, expected = art.run(x), other.run(x)
        assert [r.dtype for r in result.values()] == [r.dtype for r in expected.values()]
        assert near(result, expected) < limit
        assert np.any(expected["grad_cam/maps"])


def test_float64_is_said_to_be_computed_in_float32(tmp_path):
    model = keras.Sequential(
        [keras.Input((6,), dtype="float64"), layers.Dense(4, dtype="float64", name="y")]
    )
    pg.compile(model, pg.Activations("y"), tmp_path / "m.onnx", verify=False)
    art = runtime.load(tmp_path / "m.onnx", engine="openvino")
    assert art.engine.name == "OpenVINO, CPU, float64 in float32"
    x = np.random.default_rng(0).normal(size=(3, 6))
    exact = x @ model.layers[0].get_weights()[0]
    difference = np.abs(art.run(x)["y"].array - exact).max()
    assert 1e-12 < difference < 1e-6  # once it is less, the name has to say otherwise


BFLOAT16 = """<ir_version: 10, opset_import: ["":18]>
g (float[n,3] x) => (bfloat16[n,3] y) { y = Cast<to=16>(x) }"""


def test_bfloat16_comes_as_the_same_numbers_in_float32(tmp_path):
    """numpy has no such type, and OpenVINO hands its bits out as those of a float16."""
    manifest = Manifest(
        (InputSpec("x", "float32", (None, 3), ("batch", "feature")),),
        (OutputSpec("y", "prediction", "bfloat16", (None, 3), ("batch", "unit")),),
    )
    model = onnx.parser.parse_model(BFLOAT16)
    onnx.helper.set_model_props(model, {ONNX_METADATA_KEY: manifest.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    x = np.array([[1.5, -2.25, 0.0], [3.0, 1.0 + 2.0**-7, -(2.0**-100)]], np.float32)
    found = runtime.load(tmp_path / "m.onnx", engine="openvino").run(x)["y"].array
    np.testing.assert_array_equal(found, x)
    with pytest.raises(ArtefactError, match="onnxruntime could not run"):
        runtime.load(tmp_path / "m.onnx").run(x)


def test_names_with_odd_characters(tmp_path):
    names = ["bild a:0", "größe;2"]
    inputs = [keras.Input((4,), name=n) for n in names]
    y = layers.Dense(3, name="y")(layers.Concatenate()(inputs))
    probes = [
        pg.InputGradient(wrt=names[0], target=1, name="d/d x:0, 'a'"),
        pg.Saliency(wrt=names[1], target=1, name="größe 2;"),
    ]
    pg.compile(keras.Model(inputs, y), probes, tmp_path / "m.onnx", verify=False)
    art, other = (runtime.load(tmp_path / "m.onnx", engine=e) for e in ("openvino", "onnxruntime"))
    x = {n: np.random.default_rng(i).normal(size=(3, 4)) for i, n in enumerate(names)}
    assert list(art.run(x)) == ["y", "d/d x:0, 'a'", "größe 2;"]
    assert near(art.run(x), other.run(x)) < 1e-6


def test_threads_do_not_meet(art):
    batches = [images(1 + i % 4, seed=i) for i in range(40)]
    targets = [i % 4 for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(art.run, batches, targets))
    for x, target, result in zip(batches, targets, results, strict=True):
        gradient = result["input_gradient/image"].array
        np.testing.assert_allclose(gradient, gradient_of([target] * len(x)), rtol=1e-6)
        scores = result["animal"].array
        assert scores.argmax(1).tolist() == (x.reshape(-1, SIZE) @ WEIGHTS).argmax(1).tolist()
    assert 1 <= len(art.engine._idle) <= 8


def test_results_are_not_written_over(art):
    first = art.run(images(2, seed=1))["animal"].array
    kept = first.copy()
    art.run(images(2, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_a_request_that_failed_is_not_used_again(art):
    x = images(2)
    expected = art.run(x)["animal"].array
    idle = len(art.engine._idle)
    with pytest.raises(KeyError):
        art.engine.run({"image": x}, ["vegetable"])
    assert len(art.engine._idle) == idle - 1
    np.testing.assert_array_equal(art.run(x)["animal"].array, expected)


def test_float32_stays_float32_unless_asked_otherwise(image_path):
    art = runtime.load(image_path, engine="openvino")
    assert art.engine.compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    art = runtime.load(image_path, engine="openvino", threads=1, config=config)
    assert art.engine.compiled.get_property("INFERENCE_NUM_THREADS") == 2


def test_device_that_is_not_there(image_path):
    says = r"cannot compile .*zoo\.onnx' for the device 'TPU' \(it finds .*CPU.*\)\. OpenVINO says"
    with pytest.raises(ArtefactError, match=says):
        runtime.load(image_path, engine="openvino", device="TPU")


def test_foreign_and_damaged(image_path, tmp_path):
    path = with_manifest(image_path, tmp_path / "foreign.onnx", None)
    with pytest.raises(ArtefactError, match="was not made by probegen"):
        runtime.load(path, engine="openvino")
    with open(image_path, "rb") as file:
        data = file.read()
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 3])
    with pytest.raises(
        ArtefactError, match=r"OpenVINO cannot load .*cut\.onnx.* damaged, cut short"
    ):
        runtime.load(tmp_path / "cut.onnx", engine="openvino")


@pytest.mark.parametrize("gate", [True, False])
def test_lengths_of_sequences_are_refused(tmp_path, gate):
    """OpenVINO leaves them out; the last cell state behind a mask needs them."""
    x = keras.Input((None, 3), name="x")
    states = layers.LSTM(2, return_state=True)(layers.Masking()(x))
    model = keras.Model(x, states[2])
    path = tmp_path / "m.onnx"
    pg.compile(model, [pg.InputGradient(target=0)], path, gate=gate, verify=False)
    with pytest.raises(ArtefactError, match="sequence_lens"):
        runtime.load(path, engine="openvino")
    assert runtime.load(path).run(np.ones((1, 4, 3), "f")).predictions


def test_a_mask_without_last_cell_states_is_taken(tmp_path):
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, layers.LSTM(2, name="lstm_mask")(layers.Masking()(x)))
    path = tmp_path / "m.onnx"
    pg.compile(model, [pg.InputGradient(target=0)], path, verify=False)
    sample = np.random.default_rng(0).normal(size=(2, 11, 3)).astype("f")
    sample[0, 3:6] = sample[1, 8:] = 0
    a, b = (runtime.load(path, engine=e).run(sample) for e in ("openvino", "onnxruntime"))
    for name in ("lstm_mask", "input_gradient/x"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6)
