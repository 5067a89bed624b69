"""Artefacts that take pictures as a server has them, of Keras models and of ONNX files."""

import json

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import probegen as pg
from probegen import runtime
from probegen.errors import ExportError, InputError, SpecError, VerificationError

RNG = np.random.default_rng(0)


def photos(batch, height, width, channels=3):
    return RNG.integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    image = keras.Input((17, 22, 3), name="photo")
    x = keras.layers.Conv2D(5, 3, activation="relu", padding="same", name="first")(image)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Conv2D(6, 3, activation="relu", name="last")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(4, activation="softmax", name="class")(x))


PROBES = [
    pg.Saliency(target="input"),
    pg.InputGradient(target=1),
    pg.GradCAM("last", target=1, upsample=True),
    pg.IntegratedGradients(target=1, steps=3, baseline=-1.0, completeness=True),
    pg.Occlusion(window=6, target=1),
    pg.FeatureAblation(groups="input", target=1),
]


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "m.onnx"
    pg.compile(model, PROBES, path, preprocess=pg.ImageInput(preset="tf"))
    return path


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "m.onnx"
    image = pg.ImageInput(preset="tf")
    pg.compile(model, [], path, preprocess=image, verify=False)
    return path


@pytest.fixture(scope="module")
def artefact(path):
    return runtime.load(path)


def fed(x, size=(17, 22)):
    """What the model is fed, as `image_dataset_from_directory` and `preprocess_input` make it."""
    return keras.applications.imagenet_utils.preprocess_input(
        tf.image.resize(x, size).numpy(), mode="tf"
    )


@pytest.mark.parametrize("size", [(3, 50, 33), (2, 9, 60), (1, 17, 22)])
def test_the_prediction_and_the_gradient_are_the_models(model, artefact, size):
    x = photos(*size)
    groups = np.arange(17 * 22).reshape(17, 22) % 3
    result = artefact.run(x, target=2, groups=groups)
    np.testing.assert_allclose(result["class"].array, model(fed(x)), rtol=1e-5)
    point = tf.constant(fed(x))
    logits = keras.Model(model.input, model.layers[-1].input)
    kernel, bias = model.layers[-1].kernel, model.layers[-1].bias
    with tf.GradientTape() as tape:
        tape.watch(point)
        score = (tf.matmul(logits(point), kernel) + bias)[:, 1]
    gradient = tape.gradient(score, point).numpy()
    found = result["input_gradient/photo"].array
    np.testing.assert_allclose(found, gradient, atol=1e-5 * np.abs(gradient).max())


def test_explanations_have_the_models_size(artefact):
    shapes = {o.name: o.shape for o in artefact.outputs}
    assert shapes["input_gradient/photo"] == (None, 17, 22, 3)
    assert shapes["grad_cam/last"] == shapes["occlusion/photo"] == (None, 17, 22)
    assert artefact.inputs[0].shape == (None, None, None, 3)
    assert artefact.inputs[0].dtype == "uint8"


def test_baselines_are_in_the_models_units(model, artefact):
    """Black is -1 to a model of the mode "tf": completeness from there."""
    x = photos(2, 30, 30)
    result = artefact.run(x, groups=np.zeros((17, 22), int))
    total = result["integrated_gradients/photo"].array.sum((1, 2, 3))
    head = model.layers[-1]
    features = keras.Model(model.input, head.input)
    scores = [
        (features(at).numpy() @ head.kernel.numpy() + head.bias.numpy())[:, 1]
        for at in (fed(x), np.full((2, 17, 22, 3), -1.0, np.float32))
    ]
    missing = result["completeness/integrated_gradients/photo"].array
    np.testing.assert_allclose(total - missing, scores[0] - scores[1], atol=1e-5)


def test_it_is_verified_from_its_manifest(path, model):
    assert pg.verify(path, model).passed
    assert pg.verify(path, model, photos(3, 40, 19)).passed
    image = keras.Input((17, 21, 3), name="photo")
    x = keras.layers.Conv2D(2, 3, activation="relu", name="last")(image)
    x = keras.layers.Dense(4, name="class")(keras.layers.GlobalAveragePooling2D()(x))
    other = keras.Model(image, x)
    with pytest.raises(VerificationError, match=r"takes float32 .*width=21"):
        pg.verify(path, other)


@pytest.mark.parametrize(
    "changed",
    [
        {"mean": [0.99]},
        {"channels": [2, 1, 0]},
        {"resize": "nearest"},
        {"antialias": True},
    ],
)
def test_another_preprocessing_than_the_graphs_is_found(plain, model, changed, tmp_path):
    """The manifest says what the verification computes: a lie there has to be seen."""
    proto = onnx.load(plain)
    entry = next(e for e in proto.metadata_props if e.key == "probegen.manifest")
    said = json.loads(entry.value)
    said["inputs"][0]["preprocessing"].update(changed)
    entry.value = json.dumps(said)
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(VerificationError, match="does not agree"):
        pg.verify(tmp_path / "wrong.onnx", model)


def test_an_onnx_file_of_channels_first(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 13]>
    g (float[n, 3, 9, 14] image, float[n, 2] age) => (float[n, 5] scores)
    <float[5, 3, 3, 3] w = {KERNEL}, float[2, 5] v = {1.0,2.0,-1.0,0.5,3.0,0.0,1.0,2.0,1.0,-1.0}> {
        c = Conv <pads = [1, 1, 1, 1]> (image, w)
        r = Relu (c)
        p = GlobalAveragePool (r)
        f = Flatten (p)
        a = MatMul (age, v)
        scores = Add (f, a)
    }
    """
    numbers = ",".join(f"{n:.4f}" for n in RNG.normal(size=135))
    source = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text.replace("KERNEL", numbers)), source)
    image = pg.ImageInput(preset="caffe", resize="bicubic", antialias=True, fit="pad", fill=114)
    for gate in (True, "split"):
        path = tmp_path / f"{gate}.onnx"
        probes = [pg.Saliency(wrt="image"), pg.GradCAM()]
        pg.compile(source, probes, path, gate=gate, preprocess={"image": image})
        art = runtime.load(path)
        x = {"image": photos(2, 20, 33), "age": RNG.normal(size=(2, 2)).astype("float32")}
        result = art.run(x)
        assert result["saliency/image"].shape == (2, 9, 14)
        resized = keras.ops.image.resize(
            x["image"].astype("float32"), (9, 14), interpolation="bicubic", antialias=True,
            pad_to_aspect_ratio=True, fill_value=114.0,
        )  # fmt: skip
        own = keras.applications.imagenet_utils.preprocess_input(np.array(resized), mode="caffe")
        fed = {"image": np.moveaxis(own, -1, 1).copy(), "age": x["age"]}
        right = onnxruntime.InferenceSession(source).run(None, fed)[0]
        np.testing.assert_allclose(result["scores"].array, right, rtol=1e-4)
    assert pg.verify(path, source).passed


def test_two_images_and_a_size_that_the_model_leaves_open(tmp_path):
    left, right = keras.Input((12, 9, 3), name="left"), keras.Input((None, None, 1), name="right")
    a = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(left))
    b = keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(right))
    model = keras.Model(
        [left, right], keras.layers.Dense(3, name="scores")(keras.layers.Concatenate()([a, b]))
    )
    images = {
        "left": pg.ImageInput(scale=1 / 255, resize="nearest", channels=1),
        "right": pg.ImageInput(scale=1 / 255, to=(8, 15), fit="crop"),
    }
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx", preprocess=images)
    art = runtime.load(tmp_path / "m.onnx")
    x = {"left": photos(2, 30, 7, 1), "right": photos(2, 11, 40, 1)}
    result = art.run(x)
    assert result["input_gradient/right"].shape == (2, 8, 15, 1)
    left_image = tf.image.resize(x["left"], (12, 9), "nearest").numpy() / 255
    right_image = keras.ops.image.resize(
        x["right"].astype("float32"), (8, 15), crop_to_aspect_ratio=True
    )
    fed = [np.repeat(left_image, 3, -1), np.array(right_image) / 255]
    np.testing.assert_allclose(
        result.predictions["scores"].array,
        model([tf.constant(f) for f in fed]),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_attributions_over_the_picture(model, fit, tmp_path):
    """They are the model's own, brought to the picture's size where the model sees it."""
    x = photos(2, 41, 30)
    probes = [pg.InputGradient(target=1), pg.GradCAM("last", target=1, upsample=True)]
    found = {}
    for of in ("model", "input"):
        image = pg.ImageInput(preset="tf", fit=fit, attributions=of)
        pg.compile(model, probes, tmp_path / "m.onnx", preprocess=image, verify=of == "input")
        found[of] = runtime.load(tmp_path / "m.onnx").run(x)
    specs = {o.name: o for o in found["input"].manifest.explanations}
    assert specs["input_gradient/photo"].shape == (None, None, None, 3)
    assert not specs["input_gradient/photo"].is_gradient
    heat = found["model"]["input_gradient/photo"].array
    over = found["input"]["input_gradient/photo"].array
    assert over.shape == (2, 41, 30, 3)
    assert found["input"]["grad_cam/last"].shape == (2, 41, 30)
    # 41x30 seen by 17x22: all of it, 23x30 of its middle, or 41x52 with borders.
    seen = {"stretch": (41, 30), "crop": (23, 30), "pad": (41, 52)}[fit]
    wide = tf.image.resize(heat, seen).numpy()
    right = np.zeros_like(over)
    if fit == "crop":
        right[:, 9:32] = wide
    else:
        right = wide[:, :, (seen[1] - 30) // 2 :][:, :, :30]
    np.testing.assert_allclose(over, right, atol=1e-5 * np.abs(heat).max())
    drawn = {of: r["input_gradient/photo"].plot() for of, r in found.items()}
    first, second = (np.asarray(f.axes[1].images[0].get_array()) for f in drawn.values())
    np.testing.assert_allclose(first, second, atol=0.02)


def test_what_lies_wrongly_over_the_picture_is_found(model, tmp_path):
    """Its channels are a tenth off."""
    path = tmp_path / "m.onnx"
    image = pg.ImageInput(preset="tf", attributions="input")
    pg.compile(model, [pg.InputGradient(target=1)], path, preprocess=image, gate=False)
    proto = onnx.load(path)
    made = next(n for n in proto.graph.node if "input_gradient/photo" in n.output)
    made.output[0] = "right"
    proto.graph.node.append(
        onnx.helper.make_node("Mul", ["right", "slightly"], ["input_gradient/photo"])
    )
    ramp = np.linspace(0.9, 1.1, 3).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(ramp, "slightly"))
    onnx.save(proto, path)
    with pytest.raises(VerificationError, match="in the size of the pictures"):
        pg.verify(path, model)


def test_groups_of_the_pictures_pixels(artefact):
    """Superpixels of what arrived: each pixel of the model has the group of the nearest one."""
    x = photos(2, 51, 33)
    groups = np.arange(51)[:, np.newaxis] // 17 + np.zeros((1, 33), int)
    own = tf.image.resize(groups[..., np.newaxis], (17, 22), "nearest").numpy()[..., 0]
    results = [artefact.run(x, target=1, groups=g) for g in (groups, own)]
    first, second = (r["feature_ablation/photo"].array for r in results)
    np.testing.assert_array_equal(first, second)
    with pytest.raises(InputError, match="groups"):
        artefact.run(x, target=1, groups=groups[:20])


def test_metrics_go_by_the_pictures_pixels(artefact):
    x, groups = photos(2, 30, 25), np.zeros((17, 22), int)
    for baseline in (0, "blur"):
        area = runtime.metrics.insertion(
            artefact, x, "grad_cam/last", baseline=baseline, step=0.5, groups=groups, target=1
        )
        assert area.shape == (2,)
        assert ((area > 0) & (area < 1)).all()
    with pytest.raises(InputError, match="baseline goes from -1"):
        runtime.metrics.deletion(artefact, x, "grad_cam/last", baseline=-1, groups=groups)
    for metric in (runtime.metrics.infidelity, runtime.metrics.max_sensitivity):
        with pytest.raises(InputError, match="takes pictures"):
            metric(artefact, x, "input_gradient/photo", groups=groups)
    with pytest.raises(InputError, match="takes pictures"):
        runtime.maximise(artefact, "input_gradient/photo", steps=2)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_a_saved_model_says_what_onnx_says(model, fit, tmp_path):
    """Predictions, attributions of the model's tensor, and those that lie over the picture."""
    of = "model" if fit == "stretch" else "input"
    image = pg.ImageInput(preset="tf", fit=fit, fill=99.0, attributions=of)
    probes = PROBES if fit == "stretch" else [PROBES[0], PROBES[2]]
    pg.compile(model, probes, tmp_path / "saved", preprocess=image)
    pg.compile(model, probes, tmp_path / "m.onnx", preprocess=image, verify=False)
    arts = [runtime.load(tmp_path / name) for name in ("saved", "m.onnx")]
    assert arts[0].manifest.inputs == arts[1].manifest.inputs
    assert arts[0].manifest.outputs == arts[1].manifest.outputs
    for size in ((3, 50, 33), (2, 9, 60), (1, 17, 22)):
        x = photos(*size)
        more = {"target": np.array([3, -1, 0])[: size[0]]}
        if fit == "stretch":
            more["groups"] = np.arange(size[1] * size[2]).reshape(size[1:]) % 3
        found, right = (art.run(x, **more) for art in arts)
        for name, record in right.items():
            scale = max(np.abs(record.array).max(), 1e-2)
            # What is missing is a small difference of large sums.
            atol = 1e-3 if name.startswith("completeness") else 1e-5
            ours, theirs = found[name].array / scale, record.array / scale
            np.testing.assert_allclose(ours, theirs, atol=atol, err_msg=name)
        alone = arts[0].run(x, explain=False)
        np.testing.assert_allclose(alone["class"].array, found["class"].array, atol=1e-6)
    assert runtime.verify(tmp_path / "saved").passed


def test_a_saved_model_that_preprocesses_otherwise_is_found(model, tmp_path):
    image = pg.ImageInput(preset="tf", attributions="input")
    path = tmp_path / "saved"
    pg.compile(model, [pg.InputGradient(target=1)], path, preprocess=image, verify=False)
    asset = path / "assets.extra" / "probegen.json"
    said = json.loads(asset.read_text())
    said["inputs"][0]["preprocessing"]["mean"] = [0.99]
    asset.write_text(json.dumps(said))
    with pytest.raises(VerificationError, match=r"does not agree|in the size of the pictures"):
        pg.verify(path, model)


def test_what_is_refused(model, tmp_path):
    image = pg.ImageInput()
    with pytest.raises(ExportError, match="preprocess= is for ONNX and SavedModel"):
        pg.compile(model, [pg.Saliency()], tmp_path / "m.keras", preprocess=image)
    for wrong, told in (
        ("tf", "takes pg.ImageInput"),
        ({"photo": "tf"}, "takes pg.ImageInput"),
        ({"foto": image}, "Did you mean 'photo'"),
    ):
        with pytest.raises(SpecError, match=told):
            pg.compile(model, [pg.Saliency()], tmp_path / "m.onnx", preprocess=wrong)
    assert not list(tmp_path.iterdir())
