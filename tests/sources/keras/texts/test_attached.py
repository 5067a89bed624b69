"""KerasHub's tasks with a preprocessor, and its tokenizers inside of models."""

import json

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.artefact.texts import IDS, MASK, SEGMENTS, TextSpec
from probegen.cli.reading import samples_of
from probegen.errors import ExportError, VerificationError
from probegen.runtime.texts import tokenizer_of
from probegen.runtime.texts.pieces import Pieces
from probegen.sources.keras.texts import hub
from tests.command_line import status_of
from tests.runtime.texts.test_hub import word_piece_vocabulary

TEXTS = ["The cat, unheard of.", "", "\u0130stanbul \U0001f468\u200d\U0001f469 stra\u00dfe [SEP] x"]


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(2)
    tokenizer = keras_hub.models.BertTokenizer(word_piece_vocabulary(), lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=12)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_heads=2, hidden_dim=8,
        intermediate_dim=12, max_sequence_length=12,
    )  # fmt: skip
    return keras_hub.models.BertTextClassifier(backbone, num_classes=3, preprocessor=preprocessor)


def test_a_classifier_of_texts(classifier, tmp_path):
    exported = pg.compile(
        classifier, [pg.Saliency(wrt="token_ids")], tmp_path / "m.onnx", samples=TEXTS
    )
    assert exported.report.passed
    result = runtime.load(tmp_path / "m.onnx").run(TEXTS)
    expected = np.asarray(classifier(classifier.preprocessor(TEXTS)))
    np.testing.assert_allclose(result["logits"].array, expected, rtol=1e-4, atol=1e-6)
    assert result.tokens["token_ids"][:2] == [
        ["[CLS]", "the", "cat", ",", "u", "##n", "##h", "##e", "##a", "##r", "##d", "[SEP]"],
        ["[CLS]", "[SEP]"],
    ]
    assert [w for w, _ in result["saliency/token_ids"].words(1)] == ["[CLS]", "[SEP]"]


def test_a_preprocessor_that_the_runtime_does_not_know(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier.preprocessor.tokenizer, "split", False)
    with pytest.warns(UserWarning, match="takes ids and no text.*split=True"):
        exported = pg.compile(classifier, [], tmp_path / "m.onnx", verify=False)
    assert exported.manifest.texts == ()


def model_of(tokenizer):
    x = keras.Input((), dtype="string", name="text")
    y = layers.GlobalAveragePooling1D()(layers.Embedding(600, 3)(tokenizer(x)))
    return keras.Model(x, layers.Dense(2, name="y")(y))


@pytest.mark.parametrize("name", ["word pieces", "bytes"])
def test_a_tokenizer_inside_of_a_model(name, tmp_path):
    tokenizer = {
        "word pieces": lambda: keras_hub.tokenizers.WordPieceTokenizer(
            word_piece_vocabulary(), sequence_length=9
        ),
        "bytes": lambda: keras_hub.tokenizers.ByteTokenizer(sequence_length=20),
    }[name]()
    model = model_of(tokenizer)
    pg.compile(model, [pg.Saliency(target=1)], tmp_path / "m.onnx")
    got = runtime.load(tmp_path / "m.onnx").run(TEXTS)["y"].array
    expected = np.asarray(model(keras.ops.convert_to_tensor(TEXTS)))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_tokenizer_of_ragged_rows():
    from probegen.sources.keras.texts.hub import tokenizer

    layer = keras_hub.tokenizers.WordPieceTokenizer(["[UNK]", "a"])
    with pytest.raises(ExportError, match=r"ragged tensors.*sequence_length="):
        tokenizer(layer, "words")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("truncate", ["round_robin", "waterfall"])
def test_pairs_of_texts(classifier, side, truncate):
    """`[CLS] a [SEP] b [SEP]` with segments, as the preprocessor packs, cuts and pads them."""
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        classifier.preprocessor.tokenizer, sequence_length=9, truncate=truncate
    )
    preprocessor.build(None)
    preprocessor.packer.padding_side = side
    settings = hub.preprocessed(preprocessor, 9, ends=True)
    tokenizer = tokenizer_of(TextSpec("text", (None,), {}, settings))
    firsts = ["the cat", "", "cat the cat the cat the", "the the the the the the the the"]
    seconds = ["sat", "the cat sat on the cat sat on the", "cat", "cat cat cat cat cat cat cat"]
    packer, split = preprocessor.packer, preprocessor.tokenizer
    texts = np.array([firsts, seconds], object).T
    texts = np.vectorize(str.encode, otypes=[object])(texts)
    for given, parts in ((texts, (firsts, seconds)), (texts[:, 0], (firsts,))):
        ids, segments = map(np.asarray, packer(tuple(split(tf.constant(part)) for part in parts)))
        found = tokenizer.encode(given)
        np.testing.assert_array_equal(found[IDS], ids)
        np.testing.assert_array_equal(found[MASK], ids != packer.pad_value)
        np.testing.assert_array_equal(found[SEGMENTS], segments)


PAIRS = [
    ("The cat", "sat, unheard of."),
    ("", "the cat"),
    ("cat the cat the", "\u0130 stra\u00dfe"),
]


def test_pairs_as_samples_and_at_the_command_line(classifier, tmp_path, capsys):
    path = tmp_path / "m.onnx"
    probe = pg.InputGradient(wrt="token_ids", per_token="dot")
    exported = pg.compile(classifier, [probe], path, samples=PAIRS)
    assert exported.report.passed
    expected = np.asarray(
        classifier(classifier.preprocessor(tuple(map(list, zip(*PAIRS, strict=True))), y=None))
    )
    art = runtime.load(path)
    np.testing.assert_allclose(art.run(PAIRS)["logits"].array, expected, rtol=1e-4, atol=1e-6)
    texts = [part for one, two in PAIRS for part in ("--text", one, "--text-pair", two)]
    assert status_of("run", path, *texts, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(told["predictions"]["logits"], expected, rtol=1e-4, atol=1e-6)
    assert told["tokens"]["token_ids"][1] == ["[CLS]", "[SEP]", "the", "cat", "[SEP]"]
    (tmp_path / "pairs.json").write_text(json.dumps(PAIRS))
    assert pg.verify(path, classifier, samples_of(str(tmp_path / "pairs.json"))).passed
    for wrong, says in (
        (texts[:-2], "there are 2 --text-pair and 3 --text"),
        ([*texts, tmp_path / "pairs.json"], "give either an INPUT or --text"),
    ):
        assert status_of("run", path, *wrong) == 1
        assert says in capsys.readouterr().err


def test_pairs_that_the_runtime_takes_apart_otherwise_are_found(classifier, tmp_path, monkeypatch):
    """Nobody gave pairs: verification makes some up."""
    right = Pieces.pair

    def without_segments(self, first, second):
        ids, segments = right(self, first, second)
        return ids, [0] * len(segments)

    monkeypatch.setattr(Pieces, "pair", without_segments)
    with pytest.raises(VerificationError, match="takes a text apart in another way"):
        pg.compile(classifier, [], tmp_path / "m.onnx")
