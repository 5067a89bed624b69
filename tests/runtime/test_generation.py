"""`runtime.generate`: the tokens that KerasHub writes, each with what it was made of."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import ArtefactError, InputError
from tests.causal import LONGEST, gpt2

PROBE = pg.GradientXInput(region="input", per_token="dot", wrt="token_ids")
ROW = "gradient_x_input/token_ids"


@pytest.fixture(scope="module")
def model():
    return gpt2()


@pytest.fixture(scope="module")
def art(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt2") / "m.onnx"
    exported = pg.compile(model, [PROBE, pg.Attention()], path)
    assert exported.report.passed
    return runtime.load(path)


def test_texts_of_several_lengths(model, art):
    texts = ["a cat in the", "the", "\u00e9t\u00e9 <|endoftext|> \u4f60"]
    result = art.run(texts)
    fed = model.preprocessor.generate_preprocess(texts, sequence_length=result.predictions[
        "token_embedding"].shape[1])  # fmt: skip
    expected = np.asarray(model({k: np.asarray(v) for k, v in fed.items()}))
    np.testing.assert_allclose(result["token_embedding"].array, expected, rtol=1e-4, atol=1e-5)
    assert result.tokens["token_ids"][1] == ["<|endoftext|>", "the"]
    assert len([name for name in result if name.startswith("attention/")]) == 2


def test_the_tokens_that_keras_hub_writes(model, art):
    written = runtime.generate(art, "a cat in", 7)
    length = len(written.prompt) + 7
    fed = model.preprocessor.generate_preprocess(["a cat in"], sequence_length=length)
    preprocessor, model.preprocessor = model.preprocessor, None
    try:
        made = model.generate({k: np.asarray(v) for k, v in fed.items()}, stop_token_ids=None)
    finally:
        model.preprocessor = preprocessor
    assert [*written.prompt, *written.ids] == np.asarray(made["token_ids"])[0].tolist()
    assert written.text == preprocessor.tokenizer.detokenize(written.ids)
    assert written.tokens[:4] == ["<|endoftext|>", "a", " ", "cat"]
    again = runtime.generate(art, written.prompt, 7)
    assert again.ids == written.ids
    np.testing.assert_array_equal(again.rows[ROW], written.rows[ROW])


def test_rows_are_the_slopes_of_the_token_that_was_chosen(model, art):
    """A token's row is the slope of the score along its embedding: by differences of the model.

    The table's spare row stands for a token whose embedding is a little longer or shorter.
    """
    written = runtime.generate(art, "a cat in", 3)
    table = model.backbone.token_embedding.embeddings
    before, spare, small = keras.ops.convert_to_numpy(table), table.shape[0] - 1, 1e-3
    assert spare not in written.ids
    try:
        for step in (0, 2):
            known = [*written.prompt, *written.ids[:step]]
            for place in (1, 3, len(known) - 1):
                scores = []
                for factor in (1 + small, 1 - small):
                    changed = before.copy()
                    changed[spare] = before[known[place]] * factor
                    table.assign(changed)
                    ids = np.array([[*known[:place], spare, *known[place + 1 :]]])
                    fed = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
                    scores.append(float(np.asarray(model(fed))[0, -1, written.ids[step]]))
                slope = (scores[0] - scores[1]) / (2 * small)
                assert written.rows[ROW][step, place] == pytest.approx(slope, rel=0.02, abs=2e-3)
    finally:
        table.assign(before)
    assert np.isnan(written.rows[ROW][0, len(written.prompt) :]).all()
    words = written.words(1)
    assert [w for w, _ in words] == written.tokens[: len(written.prompt) + 1]
    assert words[2][1] == written.rows[ROW][1, 2]


def test_a_picture_of_it(art, tmp_path):
    written = runtime.generate(art, "the cat", 4)
    figure = written.plot(tmp_path / "g.png")
    drawn = [t.get_text() for t in figure.axes[0].texts]
    assert "<|endoftext|>" in drawn
    assert "new token" in drawn
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")


def test_stopping_and_writing_nothing(art):
    written = runtime.generate(art, "a cat in", 5)
    stopped = runtime.generate(art, "a cat in", 5, stop=written.ids[2])
    first = written.ids.index(written.ids[2])
    assert stopped.ids == written.ids[:first]
    nothing = runtime.generate(art, "a cat", 0)
    assert (nothing.ids, nothing.text, nothing.rows[ROW].shape[0]) == ([], "", 0)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt is empty"),
        ([3, 5000], "the prompt has the id 5000; the artefact takes 0 to"),
        ([0.5], "a text or a list of ids"),
        (["a", "b"], "one prompt; call it once"),
        ("half \ud800", "half of a surrogate pair"),
    ],
)
def test_what_is_no_prompt(art, prompt, message):
    with pytest.raises(InputError, match=message):
        runtime.generate(art, prompt, 2)


def test_more_than_the_model_has_positions_for(art):
    with pytest.raises(InputError, match=f"24 tokens, and with 3 more .* model takes {LONGEST}"):
        runtime.generate(art, [5] * LONGEST, 3)
    assert len(runtime.generate(art, [5] * LONGEST, 1).ids) == 1
    with pytest.raises(InputError, match=f"has positions for {LONGEST} at most"):
        art.run("q " * 20)


def test_an_engine_that_fails_on_the_way(art, monkeypatch):
    def failing(*_):
        raise RuntimeError("no more positions")

    monkeypatch.setattr(art.engine, "run", failing)
    with pytest.raises(
        ArtefactError, match=r"after 1 tokens \(0 of them new\) .* no more positions"
    ):
        runtime.generate(art, [5], 3)


def recurrent(length=None):
    """Predicts the next id behind the last, `[batch, class]`; 0 is padding."""
    keras.utils.set_random_seed(3)
    x = keras.Input((length,), dtype="int32", name="ids")
    y = layers.LSTM(6)(layers.Embedding(9, 5, mask_zero=True)(x))
    return keras.Model(x, layers.Dense(9, activation="softmax", name="next")(y))


@pytest.mark.parametrize(("target", "length"), [("argmax", None), ("input", None), ("argmax", 8)])
def test_a_prediction_behind_the_last_token(target, length, tmp_path):
    model = recurrent(length)
    probe = pg.IntegratedGradients(steps=4, target=target, per_token="dot")
    pg.compile(model, [probe], tmp_path / "m.onnx", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    written = runtime.generate(art, [3, 1, 4], 4)
    ids = [3, 1, 4]
    for score in written.scores:
        fed = ids + [0] * ((length or len(ids)) - len(ids))
        scores = np.asarray(model(np.array([fed])))[0]
        ids.append(int(scores.argmax()))
        assert score == pytest.approx(scores.max(), rel=1e-4)
    assert written.prompt + written.ids == ids
    assert written.rows["integrated_gradients/ids"].shape == (4, 7)
    assert np.isfinite(written.rows["integrated_gradients/ids"][3, :6]).all()
    if length:
        with pytest.raises(InputError, match="the model takes 8"):
            runtime.generate(art, [1] * 6, 4)


def test_rows_of_other_scores_are_refused(tmp_path):
    pg.compile(recurrent(), [pg.Saliency(target=2)], tmp_path / "m.onnx", verify=False)
    with pytest.raises(InputError, match=r"explain other scores .*pg\.GradientXInput\(target"):
        runtime.generate(runtime.load(tmp_path / "m.onnx"), [3], 1)
    pg.compile(recurrent(), [], tmp_path / "p.onnx", verify=False)
    plain = runtime.generate(runtime.load(tmp_path / "p.onnx"), [3], 2)
    assert len(plain.ids) == 2
    assert plain.tokens == [str(i) for i in [3, *plain.ids]]
    with pytest.raises(InputError, match="there is none: compile with"):
        plain.plot()
