"""One file, every engine: those of the runtime, and onnx's own evaluator, gated and not.

How far each pair may be apart is max |a - b| over max |b| of an output. Measured on these models:
predictions 2e-7, gradients and integrated gradients 4e-7, Grad-CAM 9e-7. A fault of the kinds that
these files once had (a mask of 0.5 at 0, a weight taken the wrong way round) is 0.1 and more.
"""

import functools

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from tests.engines import apart, with_onnxruntime, with_openvino, with_the_reference

LIMIT = 2e-6
#: TensorFlow computes a SavedModel's gradients in another order: measured 9e-7.
LIMIT_OF_TENSORFLOW = 5e-6
#: onnx's evaluator says so of each Scan that begins with the last step.
REVERSED = "Scan is not implemented for other output input_direction than 0"


def cnn():
    x = keras.Input((11, 9, 2), name="image")
    y = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    y = layers.MaxPooling2D()(y)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.ReLU(6.0, name="maps")(layers.BatchNormalization()(y))
    y = layers.GlobalAveragePooling2D()(y)
    y = layers.Dense(6, activation="relu")(y)
    return keras.Model(x, layers.Dense(5, activation="softmax", name="scores")(y))


def transformer():
    """Every matrix square, also those of the heads: 12 = 3 * 4."""
    x = keras.Input((None,), dtype="int32", name="tokens")
    y = layers.Embedding(31, 12, mask_zero=True, name="embedding")(x)
    seen = layers.MultiHeadAttention(3, 4, name="attention")(y, y, use_causal_mask=True)
    y = layers.LayerNormalization()(layers.Add()([y, seen]))
    y = layers.Dense(12, activation="gelu")(y)
    y = layers.Dense(12, activation="relu")(y)
    y = layers.GlobalAveragePooling1D()(y)
    return keras.Model(x, layers.Dense(12, activation="softmax", name="scores")(y))


def lstm():
    x = keras.Input((None, 5), name="series")
    y = layers.LSTM(7, return_sequences=True)(x)
    y = layers.LSTM(6)(y)
    return keras.Model(x, layers.Dense(4, activation="softmax", name="scores")(y))


def masked():
    """Loops in the forward pass, in both directions; the GRU's weights are square."""
    x = keras.Input((None, 12), name="series")
    y = layers.Masking()(x)
    y = layers.Bidirectional(layers.GRU(4, return_sequences=True))(y)
    y = layers.SimpleRNN(8)(y)
    return keras.Model(x, layers.Dense(4, activation="softmax", name="scores")(y))


def rolled():
    """Sizes that the file finds at run time alone, before it sums what was broadcast."""
    x = keras.Input((6,), name="features")
    y = layers.Dense(6)(keras.ops.roll(x, 2, axis=-1) * (x + 1))
    return keras.Model(x, layers.Dense(4, activation="softmax", name="scores")(y))


INTEGRATED = pg.IntegratedGradients(steps=3)
SUBJECTS = {
    "cnn": (cnn, [pg.Saliency(target="input"), pg.GradCAM("maps"), INTEGRATED], (11, 9, 2)),
    "transformer": (transformer, [pg.InputGradient(), pg.Attention(), INTEGRATED], (None,)),
    "lstm": (lstm, [pg.InputGradient(), INTEGRATED], (None, 5)),
    "masked": (masked, [pg.InputGradient()], (None, 12)),
    "rolled": (rolled, [pg.InputGradient()], (6,)),
}
INPUTS = {
    "cnn": "image",
    "transformer": "tokens",
    "lstm": "series",
    "masked": "series",
    "rolled": "features",
}
#: Value of the gate in a request, with the form that it has in the file.
FORMS = {"on": True, "off": True, "optional": "optional", "ungated": False}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """Returns the path of a subject with a form of gate, or as a SavedModel; written once."""
    folder, models, made = tmp_path_factory.mktemp("artefacts"), {}, {}

    def path_of(name, gate):
        if (name, gate) not in made:
            make, probes, _ = SUBJECTS[name]
            if name not in models:
                keras.utils.set_random_seed(7)
                models[name] = make()
            suffix = "" if gate == "savedmodel" else ".onnx"
            made[name, gate] = folder / f"{name}_{gate}{suffix}"
            options = {} if gate == "savedmodel" else {"gate": gate}
            pg.compile(models[name], probes, made[name, gate], verify=False, **options)
        return made[name, gate]

    return path_of


def requests(name, form):
    """Yields feeds of two batch sizes and lengths, with zeros, padded rows and equal values."""
    shape = SUBJECTS[name][2]
    for batch, length, seed in ((3, 7, 0), (1, 4, 1)):
        rng = np.random.default_rng(seed)
        sizes = (batch, *(length if d is None else d for d in shape))
        if name == "transformer":
            x = rng.integers(1, 31, sizes).astype(np.int32)
        else:
            x = rng.normal(size=sizes).astype(np.float32)
            x[0, :2] = np.round(x[0, :2])
        x[0, -3:] = 0
        x[-1, 1:] = x[-1, :1]
        feeds = {INPUTS[name]: x}
        if name == "cnn":
            feeds["target"] = np.array([2, -1, 0], np.int32)[:batch]
        if form != "ungated":
            feeds["explain"] = np.array(form != "off")
        yield feeds


@pytest.fixture(scope="module")
def opened(artefact):
    """Returns an artefact in an engine; each file is opened in it once."""

    @functools.cache
    def load(name, gate, engine):
        return runtime.load(artefact(name, gate), engine=engine, threads=1)

    return load


def asked(feeds):
    """Returns a request of an engine as the arguments of an artefact's `run`."""
    inputs = dict(feeds)
    explain = bool(inputs.pop("explain", True))
    return {"target": inputs.pop("target", None), "explain": explain, "x": inputs}


def arrays(result):
    return {name: record.array for name, record in result.items()}


@pytest.mark.parametrize(
    ("name", "form"),
    # The gate is made an input again in the same way whatever is behind it.
    [(n, f) for n in SUBJECTS for f in FORMS if f != "optional" or n in ("cnn", "lstm")],
)
def test_openvino_agrees_with_onnxruntime(opened, name, form):
    mine, theirs = (opened(name, FORMS[form], engine) for engine in ("onnxruntime", "openvino"))
    for feeds in requests(name, form):
        request = asked(feeds)
        expected, found = mine.run(**request), theirs.run(**request)
        batch = len(feeds[INPUTS[name]])
        assert list(found) == ["scores"] if form == "off" else len(found) > 1
        for record in expected.values():
            assert record.shape[0] == batch
            assert np.abs(record.array).max() > 1e-6
        assert_near(arrays(found), arrays(expected), "OpenVINO and onnxruntime")


@pytest.mark.parametrize("name", ["cnn", "transformer", "lstm"])
def test_tensorflow_agrees_with_onnxruntime(artefact, opened, name):
    mine = opened(name, True, "onnxruntime")
    theirs = runtime.load(artefact(name, "savedmodel"))
    for feeds in requests(name, "on"):
        expected, found = mine.run(**asked(feeds)), theirs.run(**asked(feeds))
        assert_near(
            arrays(found), arrays(expected), "TensorFlow and onnxruntime", LIMIT_OF_TENSORFLOW
        )


@pytest.mark.parametrize("name", SUBJECTS)
def test_openvino_alone_from_memory(artefact, name):
    """As somebody runs it who has that engine alone; it reads bytes otherwise than a file."""
    path = artefact(name, True)
    mine, theirs = with_onnxruntime(path), with_openvino(path, from_memory=True)
    for form in ("on", "off"):
        for feeds in requests(name, form):
            expected = mine(feeds)
            batch = len(feeds[INPUTS[name]])
            for output, array in expected.items():
                assert len(array) == (0 if form == "off" and output != "scores" else batch)
            assert_near(theirs(feeds), expected, "OpenVINO, from memory, and onnxruntime")


@pytest.mark.parametrize("form", ["on", "off", "ungated"])
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_evaluator_of_onnx_agrees_with_onnxruntime(artefact, name, form):
    path = artefact(name, FORMS[form])
    if walks_backwards(path):
        pytest.skip(f"onnx's evaluator: {REVERSED}")
    evaluator, mine = with_the_reference(path), with_onnxruntime(path)
    for feeds in requests(name, form):
        with np.errstate(over="ignore"):  # a mask multiplies by 2**127 in Python as well
            found = evaluator(feeds)
        assert_near(mine(feeds), found, "onnxruntime and onnx's evaluator")


def assert_near(found, expected, which, limit=LIMIT):
    for output, distance in apart(found, expected).items():
        assert distance < limit, f"{which} are {distance:.1e} apart in {output!r}"


def walks_backwards(path):
    """Tells whether a file has a Scan against time, which onnx's evaluator refuses."""
    return any(
        attribute.name == "scan_input_directions" and any(attribute.ints)
        for node in nodes_of(onnx.load(path).graph)
        for attribute in node.attribute
    )


def nodes_of(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g)


@pytest.mark.parametrize("name", SUBJECTS)
def test_no_attribute_or_input_of_a_form_that_is_misread(artefact, name):
    for node in nodes_of(onnx.load(artefact(name, True)).graph):
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "HardSigmoid":
            assert given["alpha"] != 0
            assert given["beta"] != 0
        elif node.op_type == "Constant":
            assert 0 not in given["value"].dims
        elif node.op_type == "Softmax":
            assert given.get("axis", -1) != 0
        elif node.op_type == "Scan":
            assert "Scan" not in {n.op_type for n in nodes_of(given["body"])}
            assert all(i.type.tensor_type.HasField("shape") for i in given["body"].input)
