"""Models cut behind their text layers: the same predictions of the same texts, in any form."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import ExportError, InputError, InstrumentError
from tests.runtime.texts.support import TEXTS

WORDS = ["the", "cat", "mat", "sat", "on", "a", "\u4f60\u597d", "\u00e9t\u00e9"]


def words(**options):
    given = {"vocabulary": WORDS, "output_sequence_length": 7, "name": "words"} | options
    return layers.TextVectorization(**given)


def head(ids, size=3):
    y = layers.Embedding(len(WORDS) + 2, 4, name="embedding")(ids)
    y = layers.GlobalAveragePooling1D()(y)
    return layers.Dense(size, activation="softmax", name="y")(y)


def functional():
    x = keras.Input((1,), dtype="string", name="text")
    return keras.Model(x, head(words()(x)))


def sequential():
    return keras.Sequential(
        [
            keras.Input((), dtype="string", name="text"),
            words(output_sequence_length=None),
            layers.Embedding(10, 4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax", name="y"),
        ]
    )


def nested():
    front = keras.Sequential([keras.Input((1,), dtype="string"), words()], name="front")
    x = keras.Input((1,), dtype="string", name="text")
    return keras.Model(x, head(front(x)))


def counted():
    x = keras.Input((1,), dtype="string", name="text")
    vectors = words(output_sequence_length=None, output_mode="tf_idf", idf_weights=[1.5] * 8)
    return keras.Model(x, layers.Dense(3, activation="softmax", name="y")(vectors(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.words = words(split="character")
        self.table = layers.Embedding(10, 4)
        self.y = layers.Dense(3, activation="softmax")

    def call(self, text):
        return self.y(keras.ops.mean(self.table(self.words(text)), 1))


def subclassed():
    model = Subclassed()
    model(np.array(["the cat"]))
    return model


MODELS = {f.__name__: f for f in (functional, sequential, nested, counted, subclassed)}


def as_fed(model, texts):
    shape = (-1,) if model.input_shape in ((None,), ()) else (-1, 1)
    return tf.reshape(tf.constant(texts), shape)


@pytest.mark.parametrize("name", MODELS)
def test_texts_through_the_artefact(name, tmp_path):
    model = MODELS[name]()
    inputs = keras.InputSpec(shape=(None,), dtype="string") if name == "subclassed" else None
    exported = pg.compile(
        model, [pg.IntegratedGradients(steps=4)], tmp_path / "m.onnx", inputs=inputs
    )
    assert exported.report.passed
    art = runtime.load(tmp_path / "m.onnx")
    (text,) = exported.manifest.texts
    assert [i.name for i in exported.manifest.inputs] == [text.name]
    fed = tf.constant(TEXTS) if name == "subclassed" else as_fed(model, TEXTS)
    result = art.run(TEXTS)
    (prediction,) = result.predictions.values()
    np.testing.assert_allclose(prediction.array, np.asarray(model(fed)), rtol=1e-5, atol=1e-6)
    alone = art.run("the cat sat")
    (prediction,) = alone.predictions.values()
    fed = tf.constant(["the cat sat"]) if name == "subclassed" else as_fed(model, ["the cat sat"])
    np.testing.assert_allclose(prediction.array, np.asarray(model(fed)), rtol=1e-5, atol=1e-6)


def test_words_of_an_attribution(tmp_path):
    pg.compile(functional(), [pg.IntegratedGradients(steps=4)], tmp_path / "m.onnx")
    result = runtime.load(tmp_path / "m.onnx").run(["The cat, unheard of.", "", "a mat"])
    record = result["integrated_gradients/text"]
    assert result.tokens == {"text": [["the", "cat", "[UNK]", "[UNK]"], [], ["a", "mat"]]}
    assert record.shape == (3, 7, 4)
    shares = [(w, pytest.approx(float(v), abs=1e-6)) for w, v in zip(
        ["the", "cat", "[UNK]", "[UNK]"], record.array[0].sum(-1), strict=False)]  # fmt: skip
    assert record.words() == shares
    assert record.words(1) == []
    assert "text, sample 0: the | cat | [UNK] | [UNK]" in repr(result)
    with pytest.raises(InputError, match="gives nothing to words"):
        result["y"].words()
    drawn = "".join(t.get_text() for t in record.plot().axes[0].texts)
    assert drawn == "thecat[UNK][UNK]"
    record.plot(sample=1)  # an empty text is drawn as one empty box
    assert "cat</span>" in result.to_html(tmp_path / "r.html").read_text()
    again = runtime.read_npz(result.to_npz(tmp_path / "r.npz"))
    assert again.tokens == result.tokens


def siamese():
    """Two texts through one layer, and a third through two layers, beside a number."""
    shared = words()
    a, b = (keras.Input((1,), dtype="string", name=n) for n in ("left", "right"))
    colour = keras.Input((1,), dtype="string", name="colour")
    size = keras.Input((2,), name="size")
    table = layers.Embedding(10, 4, name="table")
    parts = [layers.GlobalAveragePooling1D()(table(shared(t))) for t in (a, b)]
    parts.append(layers.StringLookup(
        vocabulary=["red", "blue"], output_mode="one_hot", name="hot")(colour))  # fmt: skip
    letters = words(split="character", name="letters", vocabulary=["r", "e", "d"])(colour)
    parts.append(layers.GlobalAveragePooling1D()(layers.Embedding(5, 2)(letters)))
    merged = layers.Concatenate()([*parts, size])
    return keras.Model([a, size, b, colour], layers.Dense(2, name="y")(merged))


def test_several_texts_and_layers(tmp_path):
    model = siamese()
    exported = pg.compile(model, [pg.Saliency(target=1)], tmp_path / "m.onnx")
    names = ["left", "size", "right", "colour/letters", "colour/hot"]
    assert [i.name for i in exported.manifest.inputs] == names
    art = runtime.load(tmp_path / "m.onnx")
    size = np.array([[0.5, -1.0], [2.0, 0.0]], np.float32)
    feed = {
        "left": ["the cat", "a mat"],
        "right": ["on", "\u00e9t\u00e9 sat"],
        "colour": ["red", "?"],
    }
    left, right, colour = (tf.constant(feed[n])[:, None] for n in ("left", "right", "colour"))
    expected = model([left, tf.constant(size), right, colour])
    result = art.run({**feed, "size": size})
    np.testing.assert_allclose(result["y"].array, np.asarray(expected), rtol=1e-5)
    assert result.tokens["right"] == [["on"], ["\u00e9t\u00e9", "sat"]]
    assert not np.array_equal(result["saliency/left"].array, result["saliency/right"].array)
    with pytest.raises(InputError, match="the text 'right' is missing"):
        art.run({"left": ["a"], "colour": ["red"], "size": size[:1]})
    in_order = art.run([feed["left"], size, feed["right"], feed["colour"]])
    np.testing.assert_array_equal(in_order["y"].array, result["y"].array)
    with pytest.raises(InputError, match="takes 'left', 'size', 'right', 'colour': pass a dict"):
        art.run("the cat")


def test_an_instrumented_model_is_cut_at_export(tmp_path):
    model = functional()
    probed = pg.instrument(model, [pg.Saliency(target=1)])
    onnx = pg.export(probed, tmp_path / "m.onnx")
    folder = pg.export(probed, tmp_path / "saved")
    assert onnx.manifest.texts
    assert not folder.manifest.texts  # a SavedModel keeps its strings
    assert [o.name for o in onnx.manifest.outputs] == [o.name for o in folder.manifest.outputs]
    results = [runtime.load(e.path).run(["the cat", "a mat"]) for e in (onnx, folder)]
    for name, record in results[0].items():
        np.testing.assert_allclose(record.array, results[1][name].array, rtol=1e-5, atol=1e-7)
    assert pg.verify(tmp_path / "m.onnx", probed).passed


def test_an_open_length_of_empty_texts(tmp_path):
    pg.compile(sequential(), [], tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    assert art.run(["", "the cat"]).tokens["text"] == [[], ["the", "cat"]]
    with pytest.raises(InputError, match="no words in it, in any sample"):
        art.run(["", " "])


def lowered():
    x = keras.Input((1,), dtype="string", name="text")
    lower = layers.Lambda(tf.strings.lower, output_shape=(1,), name="lower")
    return keras.Model(x, head(words()(lower(x))))


def measured():
    x = keras.Input((1,), dtype="string", name="text")
    size = layers.Lambda(lambda t: tf.cast(tf.strings.length(t), "float32"), output_shape=(1,),
                         name="length")(x)  # fmt: skip
    return keras.Model(x, layers.Dense(1)(layers.Concatenate()([head(words()(x)), size])))


def lengths():
    x = keras.Input((1,), dtype="string", name="text")
    size = layers.Lambda(lambda t: tf.cast(tf.strings.length(t), "float32"), output_shape=(1,))(x)
    return keras.Model(x, layers.Dense(1)(size))


def own_standard():
    x = keras.Input((1,), dtype="string", name="text")
    return keras.Model(x, head(words(standardize=tf.strings.lower)(x)))


def own_split():
    x = keras.Input((1,), dtype="string", name="text")
    split = words(split=lambda t: tf.strings.split(t, ","))
    return keras.Model(x, head(split(x)))


def backwards():
    x = keras.Input((1,), dtype="int64", name="ids")
    text = keras.Input((1,), dtype="string", name="text")
    names = layers.StringLookup(vocabulary=["a"], invert=True, name="names")
    return keras.Model([x, text], [names(x), head(words()(text))])


def turned_round():
    x = keras.Input((1,), dtype="string", name="text")
    return keras.Model(x, layers.StringLookup(vocabulary=["a"], invert=True)(x))


def counted_in_two():
    x = keras.Input((2, 3), dtype="string", name="text")
    given = layers.StringLookup(vocabulary=["a"], output_mode="count", name="words")(x)
    return keras.Model(x, layers.Dense(1)(given))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lowered, "'words' is not what is fed: something before it changes the strings"),
        (measured, "used elsewhere too: StringLength in layer 'length'"),
        (lengths, r"no layer does that whose work the runtime can do \(TextVectorization"),
        (own_standard, r"'words' has a function of your own as standardize=.*SavedModel"),
        (own_split, r"'words' has a function of your own as split="),
        (backwards, "string|invert"),
        (turned_round, r"does not run on texts \(.*Cast string to int64"),
        (counted_in_two, r"'words' counts \(output_mode='count'\) over the first of the axes"),
    ],
)
def test_what_cannot_be_cut(make, message, tmp_path):
    with pytest.raises((ExportError, InstrumentError), match=message):
        pg.compile(make(), [], tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_numbers_are_hashed_beside_texts(tmp_path):
    """That writes them out as strings, which no runtime has to take apart."""
    text = keras.Input((1,), dtype="string", name="text")
    user = keras.Input((1,), dtype="int64", name="user")
    rows = layers.Hashing(7, output_mode="one_hot")(user)
    model = keras.Model([text, user], [head(words()(text)), layers.Dense(2, name="of_user")(rows)])
    pg.compile(model, [pg.Saliency(output="of_user")], tmp_path / "m.onnx")
    texts, users = ["the cat", "on a mat", "cat"], np.int64([[3], [-(2**40)], [123456789]])
    found = runtime.load(tmp_path / "m.onnx").run({"text": texts, "user": users})
    right = model([tf.constant([[t] for t in texts]), tf.constant(users)])[1]
    np.testing.assert_allclose(found["of_user"].array, right, rtol=1e-5, atol=1e-6)


def test_the_model_is_as_it_was(tmp_path):
    x = keras.Input((1,), dtype="string", name="text", batch_size=2)
    memory = layers.GRU(3, stateful=True)
    model = keras.Model(x, layers.Dense(3)(memory(layers.Embedding(10, 4)(words()(x)))))
    call, texts = layers.TextVectorization.call, tf.constant([["the cat"], ["on a mat"]])
    (state,) = memory.states
    state.assign(np.linspace(-1, 1, 6).reshape(2, 3))
    pg.compile(model, [pg.Saliency()], tmp_path / "m.onnx")
    assert layers.TextVectorization.call is call
    np.testing.assert_array_equal(state, np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3))
    found = runtime.load(tmp_path / "m.onnx").run(["the cat", "on a mat"]).predictions
    right = np.asarray(model(texts))
    np.testing.assert_allclose(next(iter(found.values())).array, right, rtol=1e-4, atol=1e-6)
