"""`tokenizer="tokenizer.json"`: models of ids take text."""

import json

import keras
import numpy as np
import pytest
import tokenizers
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from probegen.runtime.texts.attaching import attached
from tests.runtime.texts.support import TEXTS

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "sat", "\u4f60"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def model_of(length=None, rows=9, names=("input_ids", "attention_mask", "token_type_ids")):
    inputs = [keras.Input((length,), dtype="int32", name=n) for n in names]
    ids, mask, kinds = inputs
    y = layers.Embedding(rows, 4, name="words")(ids) + layers.Embedding(2, 4)(kinds)
    weights = keras.ops.cast(mask, "float32")[..., None]
    y = keras.ops.sum(y * weights, 1) / keras.ops.sum(weights, 1)
    return keras.Model(inputs, layers.Dense(2, name="y")(y))


@pytest.mark.parametrize("length", [None, 6])
def test_texts_as_the_library_takes_them_apart(file, length, tmp_path):
    model = model_of(length)
    probe = pg.Saliency(target=1, wrt="input_ids")
    pg.compile(model, [probe], tmp_path / "m.onnx", tokenizer=file)
    art = runtime.load(tmp_path / "m.onnx")
    result = art.run(TEXTS)
    library = tokenizers.Tokenizer.from_file(str(file))
    library.enable_padding(length=length)
    if length:
        library.enable_truncation(length)
    found = library.encode_batch(TEXTS)
    fed = [np.array([getattr(e, what) for e in found]) for what in
           ("ids", "attention_mask", "type_ids")]  # fmt: skip
    np.testing.assert_array_equal(result.run.inputs["input_ids"], fed[0])
    np.testing.assert_array_equal(result.run.inputs["attention_mask"], fed[1])
    expected = np.asarray(model([keras.ops.convert_to_tensor(f) for f in fed]))
    np.testing.assert_allclose(result["y"].array, expected, rtol=1e-5, atol=1e-6)
    assert art.run("The cats").tokens["input_ids"] == [["[CLS]", "the", "cat", "##s", "[SEP]"]]


def manifest_of(model):
    return pg.instrument(model, []).manifest


def test_which_input_takes_what(file):
    told = {"file": file, "ids": "a", "mask": "b", "segments": "c"}
    manifest = manifest_of(model_of(names=("a", "b", "c")))
    (text,) = attached(told, manifest).texts
    assert text.makes == {"ids": "a", "mask": "b", "segments": "c"}
    with pytest.raises(InputError, match=r"takes 'a', 'b', 'c'.*cannot be told.*tokenizer=\{"):
        attached(file, manifest)
    with pytest.raises(InputError, match=r"there is no input 'x'"):
        attached({**told, "mask": "x"}, manifest)
    with pytest.raises(InputError, match=r"has the key 'idds'. Did you mean 'ids'"):
        attached({"file": file, "idds": "a"}, manifest)


def test_what_is_no_tokenizer(file, tmp_path):
    manifest = manifest_of(model_of())
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "y.json").write_text(json.dumps({"model": {"type": "None"}}))
    for given, message in (
        (tmp_path / "none.json", "cannot be read"),
        (tmp_path / "x.json", "has no 'model'"),
        (tmp_path / "y.json", "no tokenizer of Hugging Face's"),
        (3, "takes the path of a tokenizer.json"),
    ):
        with pytest.raises(Exception, match=message):
            attached(given, manifest)
    with pytest.raises(
        InputError, match="has 9 tokens, and the input 'input_ids' takes ids up to 4"
    ):
        attached(file, manifest_of(model_of(rows=5)))


def test_without_the_library(file, tmp_path, monkeypatch):
    pg.compile(model_of(), [], tmp_path / "m.onnx", tokenizer=file, verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'probegen\[text\]'; or pass ids"):
        art.run("the cat")
    ones = np.ones((1, 3), np.int32)
    ids = {"input_ids": ones, "attention_mask": ones, "token_type_ids": 0 * ones}
    assert art.run(ids)["y"].shape == (1, 2)


PAIRS = [("the cat", "sat"), ("cats cats the sat", "the"), ("", "the cat sat the cat")]


@pytest.mark.parametrize("length", [None, 8])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pairs_and_padding_as_the_library_has_them(file, side, length, tmp_path):
    """`[CLS] a [SEP] b [SEP]` with segments, padded where the file says."""
    library = tokenizers.Tokenizer.from_file(str(file))
    library.enable_padding(direction=side, pad_id=0, pad_token="[PAD]", length=length)
    library.save(str(tmp_path / "tokenizer.json"))
    model = model_of(length)
    probe = pg.InputGradient(target=1, wrt="input_ids", per_token="dot")
    place = tmp_path / "m.onnx"
    pg.compile(model, [probe], place, tokenizer=tmp_path / "tokenizer.json", verify=False)
    art = runtime.load(place)
    if length:
        library.enable_truncation(length)
    for texts in (PAIRS, ["the cat", "cats sat the"]):
        found = library.encode_batch(texts)
        fed = [np.array([getattr(e, what) for e in found]) for what in
               ("ids", "attention_mask", "type_ids")]  # fmt: skip
        result = art.run(texts)
        for name, right in zip(result.run.inputs, fed, strict=True):
            np.testing.assert_array_equal(result.run.inputs[name], right, err_msg=name)
        expected = np.asarray(model([keras.ops.convert_to_tensor(f) for f in fed]))
        np.testing.assert_allclose(result["y"].array, expected, rtol=1e-5, atol=1e-6)
        words = result["input_gradient/input_ids"].words(0)
        tokens = [t for t, there in zip(found[0].tokens, fed[1][0], strict=True) if there]
        assert [w for w, _ in words] == tokens
        row = result["input_gradient/input_ids"].array[0][fed[1][0] > 0]
        np.testing.assert_allclose([v for _, v in words], row, rtol=1e-6)
    with pytest.raises(InputError, match="or with a pair of strings"):
        art.run([("a", "b", "c")])
