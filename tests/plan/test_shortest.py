"""How short inputs may be, of both kinds of sources."""

import keras
import numpy as np
import onnx.parser
import pytest
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from probegen.sources import open_source

SERIES, IMAGE = (None, 3), (None, None, 3)


def of_keras(shape, *behind):
    x = inputs = keras.Input(shape, name="x")
    for layer in behind:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(2)(ops.sum(x, range(1, len(shape)))))


def runs(model, size):
    """Tells whether a model leaves anything of one sample, called as a user calls it."""
    shape = [size if n is None else n for n in model.input_shape[1:]]
    x = np.ones((1, *shape), np.float32)
    try:
        for layer in model.layers[1:-1]:
            x = layer(x)
            # TensorFlow with oneDNN hands the input on where a convolution leaves nothing.
            if 0 in x.shape or x.shape[-1] != getattr(layer, "filters", x.shape[-1]):
                return False
    except Exception:
        return False
    return True


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ([layers.Conv1D(4, 5)], 5),
        ([layers.Conv1D(4, 5, padding="same", strides=2), layers.Conv1D(5, 2)], 3),
        ([layers.Conv1D(4, 3, padding="causal")], None),
        ([layers.MaxPooling1D(3)], 3),
        ([layers.AveragePooling1D(2), layers.Dense(4), layers.Conv1D(5, 3, strides=2)], 6),
        ([layers.Cropping1D((2, 1)), layers.ReLU(), layers.MaxPooling1D(2)], 5),
        ([layers.ZeroPadding1D(1), layers.Conv1D(4, 4)], 2),
        ([layers.Lambda(lambda x: ops.pad(x, [[0, 0], [3, 2], [0, 0]], "reflect"))], 4),
        ([layers.Lambda(lambda x: x[:, 1:-2:2]), layers.Conv1D(2, 2)], 6),
        ([layers.Lambda(lambda x: ops.concatenate([x[:, :1], x[:, 1:] - x[:, :-1]], 1))], None),
        ([layers.GRU(4, return_sequences=True), layers.AveragePooling1D(3)], 3),
        ([layers.UpSampling1D(2), layers.Conv1D(2, 3)], None),  # not followed: nothing is refused
    ],
    ids=str,
)
def test_series_of_keras(behind, expected):
    model = of_keras(SERIES, *behind)
    found = open_source(model).view.shortest()
    assert found == ({} if expected is None else {0: (None, expected, None)})
    if expected is not None:
        assert runs(model, expected)
        assert not runs(model, expected - 1)


def test_each_axis_of_an_image():
    model = of_keras(IMAGE, layers.Conv2D(4, (5, 3)), layers.MaxPooling2D((1, 2)))
    assert open_source(model).view.shortest() == {0: (None, 5, 4, None)}
    fixed = of_keras((9, 9, 3), layers.Conv2D(4, (5, 3)))
    assert open_source(fixed).view.shortest() == {}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("z = Conv <dilations = [2]> (t, kernel)", 5),
        ("z = Conv <pads = [1, 1]> (t, kernel)", None),
        ("p = AveragePool <kernel_shape = [2], strides = [2]> (t)  z = Conv (p, kernel)", 6),
        ("z = MaxPool <kernel_shape = [4], strides = [2]> (t)", None),  # the file answers
        ('z = Pad <mode = "reflect"> (t, reflected)', 3),
        ("c = Slice (t, one, last, two)  z = Conv (c, kernel)", 5),
        ("z = Slice (t, one, last, two)", None),
    ],
)
def test_series_of_onnx(nodes, expected):
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
      net (float[batch, time, 2] x) => (float[batch, 2] y)
      <float[2, 2, 3] kernel = {{1,2,3,4,5,6,7,8,9,1,2,3}}, int64[1] one = {{1}},
       int64[1] two = {{2}}, int64[1] last = {{-1}}, int64[6] reflected = {{0,0,2,0,0,1}}> {{
        t = Transpose <perm = [0, 2, 1]> (x)
        {nodes}
        y = ReduceMean <keepdims = 0> (z, two) }}"""
    found = open_source(onnx.parser.parse_model(text)).view.shortest()
    assert found == ({} if expected is None else {0: (None, expected, None)})


def test_what_is_too_short_is_refused_before_the_engine_runs(tmp_path):
    """onnxruntime would pool two steps to one, of which Keras leaves none."""
    model = of_keras(SERIES, layers.MaxPooling1D(3))
    pg.compile(model, pg.Saliency(target=0), tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    assert artefact.inputs[0].shortest == (None, 3, None)
    assert artefact.run(np.ones((2, 3, 3), np.float32))["saliency/x"].shape == (2, 3)
    with pytest.raises(InputError, match=r"2 entries on the axis 'time'.* needs 3 at least"):
        artefact.run(np.ones((2, 2, 3), np.float32))
