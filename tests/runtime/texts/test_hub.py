"""KerasHub's tokenizers without TensorFlow: the same ids and texts as KerasHub."""

import io
import itertools

import keras_hub
import numpy as np
import pytest
import sentencepiece
from keras_hub import tokenizers

from probegen.artefact.texts import TextSpec
from probegen.runtime.texts import tokenizer_of
from probegen.sources.keras.texts.hub import tokenizer as settings_of
from tests.causal import byte_pairs
from tests.runtime.texts.support import TEXTS, as_array

FED = [text for text in TEXTS if text]
LENGTH = 60


def ours_of(layer):
    return tokenizer_of(TextSpec("text", (None,), {}, settings_of(layer, "tokenizer")))


def check(layer, texts=FED):
    ours = ours_of(layer)
    expected = np.asarray(layer(texts))
    made = ours.encode(as_array(texts))
    assert made["ids"].dtype == expected.dtype
    np.testing.assert_array_equal(made["ids"], expected)
    return ours, expected


def word_piece_vocabulary():
    """Special tokens, every sign of the texts as a word and inside of words, and some pieces."""
    signs = sorted(set("".join(TEXTS) + "".join(TEXTS).casefold()) - {"\x00"})
    pieces = ["the", "cat", "##t", "str", "##asse", "sent", "##ence", "\u00e9t", "UNK"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *signs]
    return list(dict.fromkeys([*words, *(f"##{s}" for s in signs)]))


@pytest.mark.parametrize(("lowercase", "strip"), itertools.product([False, True], repeat=2))
def test_word_pieces(lowercase, strip):
    layer = tokenizers.WordPieceTokenizer(
        word_piece_vocabulary(),
        sequence_length=LENGTH,
        lowercase=lowercase,
        strip_accents=strip,
        split_on_cjk=strip,
        special_tokens=["[UNK]", "[PAD]", "[CLS]"] if lowercase else None,
        special_tokens_in_strings=lowercase,
    )
    ours, ids = check(layer)
    for row in ids[:4]:
        kept = row[row > 0].tolist()
        assert ours.text(kept) == layer.detokenize(kept)


def test_every_sign_divides_words_as_in_keras_hub():
    layer = tokenizers.WordPieceTokenizer(["[UNK]", "a"], sequence_length=4096)
    for first in range(0x20, 0x30000, 4096):
        points = [p for p in range(first, first + 4096) if not 0xD800 <= p < 0xE000]
        check(layer, ["a".join(map(chr, points))] if points else ["a"])


@pytest.mark.parametrize(
    "options",
    [{}, {"add_prefix_space": True}, {"unsplittable_tokens": ["<|endoftext|>", "<s>"]}],
    ids=str,
)
def test_byte_pairs(options):
    vocabulary, merges = byte_pairs()
    layer = tokenizers.BytePairTokenizer(vocabulary, merges, sequence_length=LENGTH, **options)
    ours, _ = check(layer)
    rows = layer.tokenize(["a cat in the \u00e9t\u00e9"])
    ids = [i for i in np.asarray(rows)[0].tolist() if i]
    assert ours.text(ids) == layer.detokenize(ids)
    assert ours.tokens(ids)[1] == " "  # a byte pair as the text that it is
    assert "cat" in ours.tokens(ids)


def sentence_piece_model():
    model = io.BytesIO()
    lines = iter([t.replace("\x00", " ").replace("\n", " ") for t in FED] * 4)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=330, model_type="unigram",
        pad_id=0, unk_id=1, bos_id=2, eos_id=3, hard_vocab_limit=False,
    )  # fmt: skip
    return model.getvalue()


def test_sentence_pieces():
    layer = tokenizers.SentencePieceTokenizer(sentence_piece_model(), sequence_length=LENGTH)
    ours, _ = check(layer)
    ids = np.asarray(layer(["a plain sentence"]))[0]
    kept = ids[ids > 0].tolist()
    assert ours.text(kept) == layer.detokenize(kept)
    assert ours.tokens(ids)[0].startswith("\u2581")


@pytest.mark.parametrize(
    "options", [{}, {"lowercase": False}, {"normalization_form": "NFKD"}], ids=str
)
@pytest.mark.parametrize("cls", ["ByteTokenizer", "UnicodeCodepointTokenizer"])
def test_bytes_and_code_points(cls, options):
    layer = getattr(keras_hub.tokenizers, cls)(sequence_length=LENGTH, **options)
    check(layer)
    if cls.startswith("Unicode"):
        check(keras_hub.tokenizers.UnicodeCodepointTokenizer(
            sequence_length=LENGTH, vocabulary_size=0x2000, **options))  # fmt: skip
