"""`runtime.generate`: the tokens that KerasHub writes, each with what it was made of."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import ArtefactError, InputError
from probegen.runtime.plot import fonts
from tests.causal import LONGEST, gpt2, spread, written_by

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
    made = written_by(model, "a cat in", len(written.prompt) + 7)
    assert [*written.prompt, *written.ids] == made
    assert written.text == model.preprocessor.tokenizer.detokenize(written.ids)
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
    assert stopped.rows[ROW].shape == (first, len(written.prompt) + first)
    for stop in (np.int64(written.ids[2]), np.array(written.ids[2:3]), {written.ids[2]}):
        assert runtime.generate(art, "a cat in", 5, stop=stop).ids == stopped.ids
    for wrong in ("in", [1.5], None, -1):
        with pytest.raises(InputError, match="stop is"):
            runtime.generate(art, "a cat in", 5, stop=wrong)
    nothing = runtime.generate(art, "a cat", 0)
    assert (nothing.ids, nothing.text, nothing.rows[ROW].shape[0]) == ([], "", 0)


def same(found, right):
    assert (found.prompt, found.ids, found.text) == (right.prompt, right.ids, right.text)
    np.testing.assert_allclose(found.scores, right.scores, rtol=1e-5)
    for name, rows in {**right.rows, **right.attention}.items():
        got = {**found.rows, **found.attention}[name]
        np.testing.assert_allclose(got, rows, rtol=1e-3, atol=1e-5, err_msg=name)


def test_several_prompts_are_written_on_as_each_alone(art):
    """Of different lengths, in one list; and as a batch that is padded, left or right."""
    texts = ["a cat in the", "the", "cat", "a cat"]
    alone = [runtime.generate(art, text, 4) for text in texts]
    stop = alone[1].ids[2]  # one of them ends before the others
    alone = [runtime.generate(art, text, 4, stop=stop) for text in texts]
    assert len(alone[1].ids) < 4
    for found, right in zip(runtime.generate(art, texts, 4, stop=stop), alone, strict=True):
        same(found, right)
    rows = [one.prompt for one in alone]
    width = max(map(len, rows))
    left = [[0] * (width - len(row)) + row for row in rows]
    right = [row + [0] * (width - len(row)) for row in rows]
    for ids, mask in (
        (left, [[0] * (width - len(row)) + [1] * len(row) for row in rows]),
        (right, [[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    ):
        padded = {"token_ids": np.array(ids), "padding_mask": np.array(mask)}
        for found, one in zip(runtime.generate(art, padded, 4, stop=stop), alone, strict=True):
            same(found, one)


def test_rows_of_several_lengths_are_no_batch(art):
    with pytest.raises(InputError, match="padded to one length"):
        runtime.generate(art, {"token_ids": [[1, 2], [3]]}, 1)


def test_attention_rows_are_those_of_the_newest_token(art):
    written = runtime.generate(art, "a cat in", 3)
    known = [*written.prompt, *written.ids[:2]]
    result = art.run({"token_ids": [known], "padding_mask": [[1] * len(known)]})
    name = next(iter(written.attention))
    row = result[name].array[0][:, -1].mean(0)
    np.testing.assert_allclose(written.attention[name][2, : len(known)], row, rtol=1e-5)
    assert row.sum() == pytest.approx(1, rel=1e-5)
    assert written.words(2, name)[0][1] == pytest.approx(row[0], rel=1e-5)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt is empty"),
        ([3, 5000], "the prompt has the id 5000; the artefact takes 0 to"),
        ([0.5], "a text or a list of ids"),
        ([["a"], ["b"]], "a prompt is one text or a list of ids"),
        ([[5], []], "the prompt is empty"),
        ({"ids": [[1]]}, r"ids and the mask .* 'token_ids', 'padding_mask'; got 'ids'"),
        ({"padding_mask": [[1]]}, "ids 'token_ids' are missing"),
        (
            {"token_ids": [[5, 3, 0]]},
            "which of their tokens are padding: pass the mask 'padding_mask'",
        ),
        ({"token_ids": [[1, 2, 3]], "padding_mask": [[1, 0, 1]]}, "in the middle of a prompt"),
        ("half \ud800", "half of a surrogate pair"),
    ],
)
def test_what_is_no_prompt(art, prompt, message):
    with pytest.raises(InputError, match=message):
        runtime.generate(art, prompt, 2)


def test_a_prediction_that_there_is_none_of(art):
    known = art.manifest.predictions[0].name
    with pytest.raises(InputError, match=f"no prediction 'nexd' of the next token.*'{known}'"):
        runtime.generate(art, [5, 3], 1, output="nexd")


def test_a_classifier_writes_nothing(tmp_path):
    """Its best class was taken for the id of the next token."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    y = layers.GlobalMaxPooling1D()(layers.Embedding(9, 3)(ids))
    model = keras.Model(ids, layers.Dense(2, activation="softmax", name="mood")(y))
    pg.compile(model, [], tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"'mood' predicts no next token: it has 2 classes.* 9 "):
        runtime.generate(runtime.load(tmp_path / "m.onnx"), [3, 4], 2)


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
        ArtefactError, match=r"after 1 token \(0 of them new\) .* no more positions"
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
    with pytest.raises(InputError, match=r"explains other scores .*pg\.GradientXInput\(target"):
        runtime.generate(runtime.load(tmp_path / "m.onnx"), [3], 1)
    pg.compile(recurrent(), [], tmp_path / "p.onnx", verify=False)
    plain = runtime.generate(runtime.load(tmp_path / "p.onnx"), [3], 2)
    assert len(plain.ids) == 2
    assert plain.tokens == [str(i) for i in [3, *plain.ids]]
    with pytest.raises(InputError, match="there is none: compile with"):
        plain.plot()


def sampled(length=None):
    """The chances of the next id of `recurrent`, called as a user calls it."""
    model = recurrent(length)
    return lambda ids: np.asarray(model(np.array([ids])))[0].astype(np.float64)


def test_drawing_tokens(tmp_path):
    probe = pg.InputGradient(target="input", per_token="dot")
    pg.compile(recurrent(), [probe], tmp_path / "m.onnx", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    chances = sampled()
    prompts = [[3, 1, 4], [2], [3, 1, 4]]
    made = runtime.generate(art, prompts, 3, temperature=1.5, top_k=4, seed=[5, 6, 7])
    for prompt, found, seed in zip(prompts, made, (5, 6, 7), strict=True):
        same(runtime.generate(art, prompt, 3, temperature=1.5, top_k=4, seed=seed), found)
        rng, ids = np.random.default_rng(seed), list(prompt)
        for token, score in zip(found.ids, found.scores, strict=True):
            p = chances(ids)
            kept = np.where(p >= np.sort(p)[-4], p ** (1 / 1.5), 0)
            assert token == np.searchsorted(np.cumsum(kept) / kept.sum(), rng.random())
            assert score == pytest.approx(p[token], rel=1e-4)
            row = art.run([ids], target=token)["input_gradient/ids"].array[0]
            step = len(ids) - len(prompt)
            got = found.rows["input_gradient/ids"][step, : len(ids)]
            np.testing.assert_allclose(got, row, rtol=1e-4, atol=1e-7)
            ids.append(token)
    assert made[0].ids != made[2].ids
    first = [runtime.generate(art, [4], 1, temperature=1.0, seed=s).ids[0] for s in range(400)]
    shares = np.bincount(first, minlength=9) / 400
    assert np.abs(shares - chances([4])).max() < 0.08
    assert runtime.generate(art, [4], 3, temperature=2.0, top_k=1).ids == runtime.generate(
        art, [4], 3).ids  # fmt: skip
    for more, said in (
        ({"temperature": -1}, "temperature is -1; it must be 0 or more"),
        ({"top_k": 3}, "with temperature=0 none is drawn"),
        ({"top_k": 0, "temperature": 1.0}, "top_k is 0"),
        ({"seed": [1, 2], "temperature": 1.0}, "seed has 2 numbers and there are 1 prompts"),
        ({"padding": "both"}, "padding is 'left' or 'right'"),
    ):
        with pytest.raises(InputError, match=said):
            runtime.generate(art, [4], 3, **more)


def test_the_likeliest_token_explains_no_drawn_one(art):
    with pytest.raises(InputError, match=r"explains the likeliest token.*target='input'"):
        runtime.generate(art, "a cat", 2, temperature=1.0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_model_of_a_fixed_length_without_a_mask(side, tmp_path):
    """What it was padded with in training is the user's to say: here are both."""
    keras.utils.set_random_seed(4)
    x = keras.Input((6,), dtype="int32", name="ids")
    y = layers.LSTM(5)(layers.Embedding(9, 4)(x))
    model = keras.Model(x, layers.Dense(9, name="next")(y))
    probe = pg.InputGradient(per_token="dot")
    pg.compile(model, [probe], tmp_path / "m.onnx", verify=False, dynamic_batch=False)
    art = runtime.load(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="padding='left' or padding='right'"):
        runtime.generate(art, [3, 1], 2)
    for written in runtime.generate(art, [[3, 1], [2, 5, 8]], 3, padding=side):
        ids = list(written.prompt)
        for step, token in enumerate(written.ids):
            zeros = [0] * (6 - len(ids))
            fed = [zeros + ids if side == "left" else ids + zeros]
            assert token == int(np.asarray(model(np.array(fed))).argmax())
            row = art.run(np.array(fed))["input_gradient/ids"].array[0]
            expected = row[-len(ids) :] if side == "left" else row[: len(ids)]
            got = written.rows["input_gradient/ids"][step, : len(ids)]
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
            ids.append(token)


def test_states_stand_for_the_text_so_far(tmp_path, monkeypatch):
    """One token a run, and the same text; not where the model looks at more than states hold."""
    model = recurrent()
    pg.compile(model, [], tmp_path / "m.onnx", verify=False, states="io")
    art, fed = runtime.load(tmp_path / "m.onnx"), []
    run = art.engine.run

    def counted(feeds, outputs):
        fed.append(feeds["ids"].shape)
        return run(feeds, outputs)

    monkeypatch.setattr(art.engine, "run", counted)
    prompts = [[3, 1, 4], [2, 7], [8, 1, 1]]
    made = runtime.generate(art, prompts, 5)
    chances = sampled()
    for found in made:
        ids = list(found.prompt)
        for token in found.ids:
            assert token == int(chances(ids).argmax())
            ids.append(token)
    # Held against the whole text after 1, 2 and 4 tokens, not after 3.
    step = [(2, 1), (1, 1)]
    compared = [[(2, 1), (2, n), (1, 1), (1, n - 1)] for n in (4, 5, 7)]
    assert fed == [(2, 3), (1, 2), *compared[0], *compared[1], *step, *compared[2]]

    x = keras.Input((None,), dtype="int32", name="ids")
    y = layers.Embedding(9, 4)(x)
    y = layers.Concatenate()([layers.LSTM(4)(y), layers.GlobalAveragePooling1D()(y)])
    wide = keras.Model(x, layers.Dense(9, name="next")(y))
    pg.compile(wide, [], tmp_path / "w.onnx", verify=False, states="io")
    written = runtime.generate(runtime.load(tmp_path / "w.onnx"), [3, 1, 4, 1, 5], 4)
    ids = [3, 1, 4, 1, 5]
    for token in written.ids:
        assert token == int(np.asarray(wide(np.array([ids]))).argmax())
        ids.append(token)


def test_states_that_fall_short_only_later(tmp_path):
    """What the model looks for, and its states do not hold, comes with the third new token."""
    keras.utils.set_random_seed(3)
    x = keras.Input((None,), dtype="int32", name="ids")
    seen = layers.Embedding(9, 1, embeddings_initializer="zeros", name="seen")
    read = layers.LSTM(6)(layers.Embedding(9, 5)(x))
    y = layers.Concatenate()([read, layers.GlobalMaxPooling1D()(seen(x))])
    model = spread(keras.Model(x, layers.Dense(9, name="next")(y)), 1.0)

    def written(count):
        ids = [3, 1]
        for _ in range(count):
            ids.append(int(np.asarray(model(np.array([ids]))).argmax()))
        return ids[2:]

    seen.set_weights([np.zeros((9, 1))])
    third = written(3)[2]
    assert third not in (3, 1, *written(2))
    before = written(8)
    seen.set_weights([10.0 * np.eye(9)[:, third : third + 1]])
    right = written(8)
    assert right[:3] == before[:3]
    pg.compile(model, [], tmp_path / "m.onnx", verify=False, states="io")
    assert runtime.generate(runtime.load(tmp_path / "m.onnx"), [3, 1], 8).ids == right


def test_a_page_of_it(art, tmp_path):
    written = runtime.generate(art, "a cat", 3)
    page = written.to_html(tmp_path / "g.html").read_text()
    assert page.count("<svg") == 1 + len(written.attention)
    assert "&lt;|endoftext|&gt;" in page
    assert f'title="{written.rows[ROW][0, 0]:+.4g}"' in page
    assert "<script" not in page
    only = written.to_html(tmp_path / "a.html", ROW).read_text()
    assert only.count("<svg") == 1
    with pytest.raises(InputError, match="no row of 'saliency'"):
        written.to_html(tmp_path / "n.html", "saliency")
    assert not (tmp_path / "n.html").exists()


def test_whole_words(art, tmp_path):
    """Numbers of the pieces of a word are summed up; down stands each new token by itself."""
    written = runtime.generate(art, "a cat in the", 3)
    assert written.tokens[:4] == ["<|endoftext|>", "a", " ", "cat"]
    for step in range(3):
        pieces = written.words(step)
        words = written.words(step, whole_words=True)
        assert [w for w, _ in words][:4] == ["<|endoftext|>", "a", "cat", "in"]
        assert words[2][1] == pytest.approx(pieces[2][1] + pieces[3][1])
        assert sum(v for _, v in words) == pytest.approx(sum(v for _, v in pieces), abs=1e-6)
        name = next(iter(written.attention))
        assert sum(v for _, v in written.words(step, name, True)) == pytest.approx(1, rel=1e-5)
    figure = written.plot(output=ROW, whole_words=True)
    drawn = [t.get_text() for t in figure.axes[0].texts]
    assert {"cat", "word before"} <= set(drawn)
    assert "\u2423" not in drawn
    page = written.to_html(tmp_path / "g.html", ROW, whole_words=True).read_text()
    assert f'title="{written.words(0, whole_words=True)[2][1]:+.4g}"' in page
    ids = dataclasses.replace(
        written, tokenizer=None, tokens=list("abcdefghij")[: len(written.tokens)]
    )
    assert ids.words(0, ROW, whole_words=True) == ids.words(0, ROW)


def test_nothing_to_draw(art, tmp_path):
    for nothing in (
        runtime.generate(art, "a cat", 0),
        runtime.generate(art, "a", 1, stop=range(999)),
    ):
        for draw in (nothing.plot, nothing.to_html):
            with pytest.raises(InputError, match="no token was written"):
                draw(tmp_path / "n.html", ROW)
    assert not (tmp_path / "n.html").exists()


def test_a_page_leaves_signs_to_the_fonts_of_its_reader(art, tmp_path, monkeypatch):
    written = runtime.generate(art, "a cat", 2)
    of_machine = fonts._family_of
    monkeypatch.setattr(fonts, "_family_of", lambda s: None if s == "\u65e5" else of_machine(s))
    foreign = dataclasses.replace(written, tokens=["\u65e5", *written.tokens[1:]])
    page = foreign.to_html(tmp_path / "g.html", ROW).read_text(encoding="utf-8")
    drawn = page[page.index("<svg") : page.index("</svg>")]
    assert "\u65e5" in drawn
    assert "\u27e8" not in drawn
