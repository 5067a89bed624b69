"""Pieces of words joined into words, by marks and by what an artefact's tokenizer knows."""

import itertools

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from probegen.artefact.manifest import Padding
from probegen.artefact.texts import TextSpec, pack
from probegen.runtime import texts
from probegen.runtime.result import Result
from probegen.runtime.run import Run
from probegen.runtime.texts import tokenizer_of
from probegen.runtime.texts.attaching import attached
from probegen.runtime.texts.vectorization import Vectorization
from probegen.runtime.texts.whole_words import guessed, join, without
from tests.runtime.support import result_of

TIME = ("batch", "time")


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ("[CLS] un ##break ##able ## glass [SEP]", "[CLS] unbreakable ## glass [SEP]"),
        ("<s> \u2581The \u2581un break able \u2581film </s>", "<s> The unbreakable film </s>"),
        ("The \u0120un break able \u0120film <|end|> x", "The unbreakable film <|end|> x"),
        ("The</w> un break able</w> film</w>", "The unbreakable film"),
        ("The un@@ break@@ able film", "The unbreakable film"),
        ("\u5f71\u7247 # good", "\u5f71\u7247 # good"),
    ],
)  # fmt: skip
def test_marks_tell(tokens, words):
    found = guessed(tokens.split(" "))
    assert [word.text for word in found] == words.split(" ")
    places = list(itertools.chain(*(word.places for word in found)))
    assert places == list(range(len(tokens.split(" "))))


def test_spaces_tell_and_nothing_is_lost():
    assert [w.text for w in guessed(["Hel", "lo", " wor", "ld", " ", "!"])] == [
        "Hello",
        "world",
        " !"[1:],
    ]
    assert guessed([]) == []
    assert guessed(["a", " "])[1].text == " "


def test_numbers_of_pieces():
    values = np.array([[1.0, -2.0, 4.0], [0.5, 0.5, 3.0]])
    words = guessed(["a", "##b", "c"])
    np.testing.assert_allclose(join(values, words, "sum", 1), [[-1, 4], [1, 3]])
    np.testing.assert_allclose(join(values, words, "mean", 1), [[-0.5, 4], [0.5, 3]])
    np.testing.assert_allclose(join(values, words, "largest", 1), [[1, 4], [0.5, 3]])
    np.testing.assert_allclose(
        join(values, words, "Euclidean norm", 1), [[5**0.5, 4], [0.5**0.5, 3]]
    )
    assert [w.places for w in without(words, [1, 2])] == [(0,)]


def word_piece():
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##break", "##able", "glass", "##es"]
    made = tokenizers.Tokenizer(
        models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    return made


def byte_pairs():
    """Bytes alone, so that each sign beyond ASCII is torn into pieces that are no text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def lower_blocks():
    pieces = [
        ("<unk>", -9.0),
        ("\u2581", -4.0),
        ("\u2581un", -1.0),
        ("break", -1.0),
        ("glass", -2.0),
    ]
    made = tokenizers.Tokenizer(models.Unigram(pieces, 0, False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


def of_text(made, text, folder, kind="dot", values=None, padding=None):
    """A record of an attribution of a text, by a tokenizer in its file."""
    made.save(str(folder / "tokenizer.json"))
    ids = np.array([made.encode(text).ids], np.int32)
    array = np.arange(1.0, ids.shape[1] + 1)[np.newaxis] if values is None else values
    spec = {"input": "ids", "sign": "signed", "draw": "map"}
    bare = result_of({"ids": (ids, TIME, {"padding": padding})}, {"it": (array, kind, TIME, spec)})
    manifest = attached(folder / "tokenizer.json", bare.manifest)
    return Result(Run(manifest, {"ids": ids}, None, "m.onnx"), {"it": array})["it"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (word_piece, "unbreakable glasses glass un"),
        (byte_pairs, "Stra\u00dfe \u65e5\u672c und \u05e9\u05dc\u05d5\u05dd"),
        (lower_blocks, "unbreak glass unglass"),
    ],
)
def test_words_are_those_that_the_library_says(make, text, tmp_path):
    made = make()
    record = of_text(made, text, tmp_path)
    # An independent witness: which word of the text each token is of, as the library keeps it.
    expected = {}
    for place, word in enumerate(made.encode(text).word_ids):
        expected.setdefault(("special", place) if word is None else word, []).append(place + 1.0)
    found = record.words(whole_words=True)
    assert [value for _, value in found] == [sum(places) for places in expected.values()]
    assert [w for w, _ in found if not w.startswith("[")] == text.split()
    assert len(record.words()) == sum(map(len, expected.values()))
    shown = {
        t.get_text() for t in record.plot(whole_words=True).findobj() if hasattr(t, "get_text")
    }
    assert any(word in shown for word in text.split() if word.isascii())


def test_padding_before_a_text_is_no_word(tmp_path):
    made = word_piece()
    made.enable_padding(direction="left", pad_id=0, pad_token="[PAD]", length=7)
    record = of_text(made, "unbreak glass", tmp_path, padding=Padding("ids", (0.0,)))
    expected = [("[CLS]", 3.0), ("unbreak", 9.0), ("glass", 6.0), ("[SEP]", 7.0)]
    assert record.words(whole_words=True) == expected
    assert [word for word, _ in record.words()] == ["[CLS]", "un", "##break", "glass", "[SEP]"]


def test_a_tokenizer_is_opened_once(tmp_path, monkeypatch):
    record = of_text(word_piece(), "unbreak glass", tmp_path)
    opened = []
    monkeypatch.setattr(texts, "tokenizer_of", lambda s: opened.append(s) or tokenizer_of(s))
    assert record.words()
    assert record.words(whole_words=True)
    record.plot(whole_words=True)
    assert len(opened) == 1


def test_characters_make_up_words():
    settings = {
        "unit": "code point", "lowercase": False, "form": None, "most": None, "length": None,
        "ignorable": pack([]), "start": [], "end": [], "padding": 0, "hidden": [], "dtype": "int32",
    }  # fmt: skip
    tokenizer = tokenizer_of(TextSpec("t", (None,), {}, {"kind": "code_points", **settings}))
    ids = [ord(c) for c in "ab  c\n\u05d0"]
    assert tokenizer.starts([*ids, 0, 0]) == [True, False, True, False, False, True, False]
    letters = Vectorization(
        {
            "standardize": None, "split": "character", "ngrams": None, "length": None,
            "vocabulary": pack(["a", " "]), "mask_token": "", "oov_token": "[UNK]", "oov": 1,
            "mode": "int", "dtype": "int32",
        }
    )  # fmt: skip
    assert letters.starts([2, 2, 3, 2, 0]) == [True, False, True, False]
