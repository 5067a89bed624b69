"""Key-value caches as states: token by token is the whole text at once."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import probegen as pg
from probegen import runtime
from probegen.errors import ExportError, InputError
from probegen.sources.keras import missing_gradients
from tests.causal import LONGEST, gpt2, spread, written_by

CLOSE = {"rtol": 1e-4, "atol": 2e-5}
PROBES = [
    pg.InputGradient(target="input", region="input", wrt="token_ids"),
    pg.Attention(),
]


@pytest.fixture(scope="module")
def model():
    return gpt2()


@pytest.fixture(scope="module")
def place(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "m.onnx"
    exported = pg.compile(model, PROBES, path, states="io")
    assert exported.report.passed
    return path


def ids_of(batch, time, seed=0):
    return np.random.default_rng(seed).integers(0, 260, (batch, time))


def slopes(model, ids, tokens):
    """The gradient of the last position's scores at the embedding of each token, by a tape."""
    embedded = []
    layer = model.backbone.token_embedding
    call = layer.call

    def watched(inputs, reverse=False):
        found = call(inputs, reverse=reverse)
        if not reverse:
            embedded.append(found)
            tape.watch(found)
        return found

    fed = {"token_ids": tf.constant(ids), "padding_mask": tf.ones_like(ids)}
    with tf.GradientTape() as tape:
        layer.call = watched
        try:
            scores = model.call(fed)[:, -1]
        finally:
            layer.call = call
        score = tf.gather(scores, tokens, batch_dims=1)
    return tape.gradient(score, embedded[0]).numpy()


def test_token_by_token_is_the_whole_text(model, place):
    art, ids, tokens = runtime.load(place), ids_of(2, 8), [7, 20]
    right = np.asarray(model({"token_ids": ids, "padding_mask": np.ones_like(ids)}))
    last = np.zeros((2, 8))
    last[:, -1] = 1
    whole = art.run({"token_ids": ids}, target=tokens, region=last)
    np.testing.assert_allclose(whole["token_embedding"].array, right, **CLOSE)
    gradient = slopes(model, ids, tokens)
    np.testing.assert_allclose(whole["input_gradient/token_ids"].array, gradient, **CLOSE)
    weights = [name for name in whole if name.startswith("attention/")]
    assert len(weights) == 2
    for ends in ((3, 5, 8), range(1, 9)):
        states, start = None, 0
        for end in ends:
            chunk = ids[:, start:end]
            region = np.zeros(chunk.shape)
            region[:, -1] = 1
            found = art.run({"token_ids": chunk}, states=states, target=tokens, region=region)
            np.testing.assert_allclose(found["token_embedding"].array, right[:, start:end], **CLOSE)
            states, start = found.states, end
        assert states["state/cache"].shape[3] == 8
        np.testing.assert_allclose(states["state/cache"], whole.states["state/cache"], **CLOSE)
        new = chunk.shape[1]
        # Of the chunk's own tokens: what earlier ones are to the score goes through the cache.
        np.testing.assert_allclose(
            found["input_gradient/token_ids"].array, gradient[:, -new:], **CLOSE
        )
        for name in weights:
            row, of_whole = found[name].array[:, :, -1], whole[name].array[:, :, -1]
            np.testing.assert_allclose(row, of_whole, err_msg=name, **CLOSE)
            np.testing.assert_allclose(row.sum(-1), 1, rtol=1e-5)


def test_it_is_verified_from_its_manifest(model, place):
    assert pg.verify(place, model).passed


def test_what_the_cache_is(place):
    art = runtime.load(place)
    spec = next(i for i in art.inputs if i.next_state)
    assert (spec.name, spec.next_state) == ("state/cache", "next_state/cache")
    assert spec.axes == ("batch", "layer", "key_value", "past", "head", "feature")
    assert (spec.shape, spec.longest) == ((None, 2, 2, None, 2, 4), LONGEST)
    assert art.run("a cat in").predictions["token_embedding"].shape[1] == 6
    with pytest.raises(InputError, match="different lengths, and padding would go into the states"):
        art.run(["a cat", "the"])
    full = art.run({"token_ids": ids_of(1, LONGEST - 1)}, explain=False)
    for new, fits in ((1, True), (2, False)):
        if fits:
            art.run({"token_ids": ids_of(1, new)}, states=full.states, explain=False)
            continue
        with pytest.raises(InputError, match=f"holds {LONGEST - 1} steps, and with 2 more"):
            art.run({"token_ids": ids_of(1, new)}, states=full.states, explain=False)


def test_a_text_is_written_on_with_it(model, tmp_path):
    """One token a run, and what KerasHub writes; each with its attention row."""
    pg.compile(model, pg.Attention(), tmp_path / "m.onnx", states="io", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    texts = ["a cat in the", "the", "a cat"]
    for written, text in zip(runtime.generate(art, texts, 5), texts, strict=True):
        known = [*written.prompt, *written.ids]
        assert known == written_by(model, text, len(written.prompt) + 5)
        for step in range(5):
            whole = art.run({"token_ids": [known[: len(written.prompt) + step]]})
            for name, rows in written.attention.items():
                row = rows[step, : len(written.prompt) + step]
                right = whole[name].array[0][:, -1].mean(0)
                np.testing.assert_allclose(row, right, err_msg=name, **CLOSE)
    with pytest.raises(InputError, match=f"the model takes {LONGEST}"):
        runtime.generate(art, [5] * 20, 6)


def test_heads_that_share_keys_and_a_window(tmp_path):
    """Rotary positions, and attention that sees the latest tokens alone."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.MistralBackbone(
        vocabulary_size=30, num_layers=1, num_query_heads=4, num_key_value_heads=2, hidden_dim=8,
        intermediate_dim=6, sliding_window=4,
    )  # fmt: skip
    model = spread(keras_hub.models.MistralCausalLM(backbone, preprocessor=None), 0.2)
    pg.compile(model, [], tmp_path / "m.onnx", states="io", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    ids = ids_of(2, 9) % 30
    right = np.asarray(model({"token_ids": ids, "padding_mask": np.ones_like(ids)}))
    first = art.run({"token_ids": ids[:, :4]})
    second = art.run({"token_ids": ids[:, 4:]}, states=first.states)
    (name,) = second.predictions
    np.testing.assert_allclose(second[name].array, right[:, 4:], **CLOSE)


def test_a_cache_that_does_not_stand_for_the_tokens_before(model, tmp_path, monkeypatch):
    honest = type(model).call_with_cache

    def forgetting(self, token_ids, cache, cache_update_index):
        return honest(self, token_ids, cache * 0.9, cache_update_index)

    monkeypatch.setattr(type(model), "call_with_cache", forgetting)
    with pytest.raises(ExportError, match=r"fed in chunks, predicts .* apart"):
        pg.compile(model, [], tmp_path / "m.onnx", states="io")

    def other(self, token_ids, cache, images):
        return honest(self, token_ids, cache, images)

    monkeypatch.setattr(type(model), "call_with_cache", other)
    with pytest.raises(ExportError, match=r"of the arguments \['token_ids', 'cache', 'images'\]"):
        pg.compile(model, [], tmp_path / "m.onnx", states="io")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("start", [[0, 1], [1, 2], [3, -2], [9, 9]])
def test_the_gradient_of_a_block_that_is_written(start):
    """By differences of the operation itself; a start that does not fit is moved."""
    missing_gradients.register()
    rng = np.random.default_rng(0)
    x, block, weight = (rng.standard_normal(s) for s in ((3, 5), (2, 2), (3, 5)))
    arrays = [tf.constant(x), tf.constant(block)]

    def score(whole, part):
        written = keras.ops.slice_update(whole, tf.constant(start), part)
        return tf.reduce_sum(written**2 * weight)

    with tf.GradientTape() as tape:
        tape.watch(arrays)
        gradients = tape.gradient(score(*arrays), arrays)
    for place, gradient in enumerate(gradients):
        for entry in np.ndindex(*gradient.shape):
            step = np.zeros(gradient.shape)
            step[entry] = 1e-6
            moved = [
                float(score(*(a + sign * step if i == place else a for i, a in enumerate(arrays))))
                for sign in (1, -1)
            ]
            assert float(gradient[entry]) == pytest.approx((moved[0] - moved[1]) / 2e-6, abs=1e-6)
