"""Recurrent states as inputs and outputs: a series in chunks is the series."""

import keras
import numpy as np
import onnxruntime as ort
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import ExportError, InputError, SelectionError

CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def tagger(stateful=False):
    """Two recurrent layers over masked series of any length."""
    keras.utils.set_random_seed(5)
    x = keras.Input(batch_shape=(3 if stateful else None, None, 2), name="series")
    y = layers.Masking()(x)
    y = layers.LSTM(4, return_sequences=True, stateful=stateful, name="lower")(y)
    y = layers.GRU(3, stateful=stateful, name="upper")(y)
    return keras.Model(x, layers.Dense(5, activation="softmax", name="tags")(y))


def series(batch, time, seed=0):
    x = np.random.default_rng(seed).standard_normal((batch, time, 2)).astype("float32")
    x[0, 2:5] = 0
    return x


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("io") / "m.onnx"
    probes = [
        pg.InputGradient(target=2),
        pg.States("upper"),
        pg.InputGradient(2, "state/lower", name="start"),
    ]
    given = {"samples": series(3, 9)}  # without states, which are zeros then
    pg.compile(tagger(), probes, path, states="io", class_names=list("abcde"), **given)
    return path


def test_two_chunks_give_what_the_whole_gives(place):
    art = runtime.load(place)
    x = series(3, 9)
    whole = art.run(x)
    np.testing.assert_allclose(whole["tags"].array, tagger().predict(x, verbose=0), **CLOSE)
    first = art.run(x[:, :4], explain=False)
    assert list(first.states) == ["state/lower", "state/lower:1", "state/upper"]
    second = art.run(x[:, 4:], states=first.states)
    for name, value in second.states.items():
        np.testing.assert_allclose(value, whole.states[name], err_msg=name, **CLOSE)
    np.testing.assert_allclose(second["tags"].array, whole["tags"].array, **CLOSE)
    for name in ("input_gradient/series", "states/upper"):
        np.testing.assert_allclose(
            second[name].array, whole[name].array[:, 4:], err_msg=name, **CLOSE
        )
    assert list(whole.predictions) == ["tags"]
    assert whole["start"].shape == (3, 4)
    assert whole.plot().axes


def test_any_runtime_can_feed_them(place):
    session = ort.InferenceSession(place)
    assert {i.name: i.shape for i in session.get_inputs() if "state" in i.name} == {
        "state/lower": ["batch", 4],
        "state/lower:1": ["batch", 4],
        "state/upper": ["batch", 3],
    }
    x = series(2, 6, seed=1)
    feed = {"series": x, "explain": np.array(False)}
    rng = np.random.default_rng(2)
    for name, width in (("state/lower", 4), ("state/lower:1", 4), ("state/upper", 3)):
        feed[name] = rng.standard_normal((2, width)).astype("float32")
    names = ["tags", "next_state/lower", "next_state/lower:1", "next_state/upper"]
    found = dict(zip(names, session.run(names, feed), strict=True))
    model = tagger()
    low, up = (
        keras.layers.RNN(model.get_layer(n).cell, return_sequences=True, return_state=True)
        for n in ("lower", "upper")
    )
    mask = (x != 0).any(-1)
    y, h, c = low(x, mask=mask, initial_state=[feed["state/lower"], feed["state/lower:1"]])
    _, g = up(y, mask=mask, initial_state=[feed["state/upper"]])
    for name, value in zip(names[1:], (h, c, g), strict=True):
        np.testing.assert_allclose(found[name], value, err_msg=name, **CLOSE)
    np.testing.assert_allclose(found["tags"], model.get_layer("tags")(g), **CLOSE)


def test_a_stateful_model_goes_on_as_it_does(tmp_path):
    model = tagger(stateful=True)
    probed = pg.instrument(model, pg.Saliency(target=0))
    pg.export(probed, tmp_path / "m.onnx", states="io")
    art = runtime.load(tmp_path / "m.onnx")
    assert pg.verify(tmp_path / "m.onnx", model).passed
    x, states = series(3, 8), None
    for name in ("lower", "upper"):
        model.get_layer(name).reset_states()
    for at in (slice(0, 3), slice(3, 4), slice(4, 8)):
        found = art.run(x[:, at], states=states)
        states = found.states
        np.testing.assert_allclose(found["tags"].array, model(x[:, at]), **CLOSE)


def test_a_savedmodel_has_them_too(tmp_path):
    pg.compile(tagger(), pg.Saliency(target=0), tmp_path / "m", states="io:upper")
    art = runtime.load(tmp_path / "m")
    first = art.run(series(2, 5))
    assert list(first.states) == ["state/upper"]
    assert art.run(series(2, 3, seed=4), states=first.states)["tags"].shape == (2, 5)


def test_convolutional_states_have_positions(tmp_path):
    keras.utils.set_random_seed(1)
    x = keras.Input((None, 4, 5, 1), name="film")
    y = layers.ConvLSTM2D(2, 3, padding="same", name="conv")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    pg.compile(model, pg.GradCAM("conv", target=1), tmp_path / "m.onnx", states="io")
    art = runtime.load(tmp_path / "m.onnx")
    film = np.random.default_rng(0).standard_normal((2, 5, 4, 5, 1)).astype("float32")
    first = art.run(film[:, :2])
    assert first.states["state/conv:1"].shape == (2, 4, 5, 2)
    second = art.run(film[:, 2:], states=first.states)
    np.testing.assert_allclose(
        second["grad_cam/conv"].array, art.run(film)["grad_cam/conv"].array, **CLOSE
    )


def test_a_decoder_keeps_the_states_of_its_encoder(tmp_path):
    keras.utils.set_random_seed(2)
    source, past = keras.Input((None, 2), name="source"), keras.Input((None, 3), name="past")
    _, h, c = layers.LSTM(4, return_state=True, name="encoder")(source)
    y = layers.LSTM(4, return_sequences=True, name="decoder")(past, initial_state=[h, c])
    model = keras.Model([source, past], layers.Dense(3)(y))
    probed = pg.instrument(model, pg.Saliency(target=("steps", 1)))
    exported = pg.export(probed, tmp_path / "m.onnx", states="io")
    assert [i.name for i in exported.manifest.inputs if i.next_state] == [
        "state/encoder",
        "state/encoder:1",
    ]
    titles = {o.name: o.title for o in exported.manifest.predictions}
    assert titles.pop("next_state/encoder:1") == "State after the last step"
    assert titles.pop("next_state/encoder") == "State after the last step"
    assert set(titles.values()) == {"Prediction"}
    with pytest.raises(ExportError, match="'decoder' gets its first state from the model"):
        pg.export(probed, tmp_path / "n.onnx", states="io:decoder")


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ({"state/lower": np.zeros((2, 5))}, r"'state/lower' has the size 5 .* expected 4"),
        ({"state/lower": np.zeros((1, 4))}, "all inputs must have the same batch size|has 1 rows"),
        ({"state/middle": np.zeros((2, 4))}, "no state 'state/middle'; it has 'state/lower'"),
    ],
)
def test_states_of_another_size(place, states, said):
    with pytest.raises(InputError, match=said):
        runtime.load(place).run(series(2, 3), states=states)


def test_what_cannot_be_run_in_chunks(tmp_path):
    keras.utils.set_random_seed(3)
    x = keras.Input((None, 2), name="series")
    both = layers.Bidirectional(layers.GRU(2, name="gru"), name="both")
    model = keras.Model(x, layers.Dense(2)(both(x)))
    probed = pg.instrument(model, pg.Saliency(target=1))
    path = tmp_path / "m.onnx"
    with pytest.raises(ExportError, match=r"'both/backward_gru' reads a series from its end"):
        pg.export(probed, path, states="io")
    with pytest.raises(ExportError, match=r"states= takes 'io'"):
        pg.export(probed, path, states="out")
    with pytest.raises(SelectionError, match="can be probed for states"):
        pg.export(probed, path, states="io:dense*")
    assert not path.exists()
    pg.export(probed, path, states="io:both/forward*")
    art = runtime.load(path)
    assert list(art.run(series(1, 3)).states) == ["state/both/forward_gru"]
    pg.export(probed, tmp_path / "n.onnx", verify=False)
    without = runtime.load(tmp_path / "n.onnx")
    with pytest.raises(InputError, match="compile it with states='io'"):
        without.run(series(1, 3), states={})
