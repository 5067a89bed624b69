"""Texts at the command line."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    x = keras.Input((1,), dtype="string", name="text")
    ids = layers.TextVectorization(vocabulary=["the", "cat", "mat"], output_sequence_length=5)(x)
    y = layers.GlobalAveragePooling1D()(layers.Embedding(5, 3)(ids))
    model = keras.Model(x, layers.Dense(2, activation="softmax", name="y")(y))
    model.save(folder / "m.keras")
    np.save(folder / "x.npy", np.zeros((1, 3), np.float32))
    inputs = keras.Input((3,))
    pg.compile(keras.Model(inputs, layers.Dense(2)(inputs)), [], folder / "n.onnx", verify=False)
    return folder


def test_compile_run_and_verify(probegen_cli, text_model):
    source, path = text_model / "m.keras", text_model / "m.onnx"
    lines = text_model / "lines.txt"
    lines.write_bytes(b"The cat.\r\n\nmat \x0b cat\n")
    status, _, err = probegen_cli(
        "compile", source, "-o", path, "--integrated-gradients", "--samples", lines
    )
    assert status == 0, err
    status, out, _ = probegen_cli("verify", path, "--against", source, "--samples", lines)
    assert status == 0
    assert "on 3 samples" in out
    status, out, _ = probegen_cli("run", path, "--text", "The CAT!", "--text", "a\u00a0mat")
    assert status == 0
    said = [line for line in out.splitlines() if line.startswith("integrated_gradients/text, row")]
    assert [line.split()[3::2] for line in said] == [["cat"], []] or "the" in said[0]
    assert said[1].split()[3] == "[UNK]"
    status, out, _ = probegen_cli("run", path, lines, "--json")
    assert status == 0
    assert json.loads(out)["tokens"]["text"] == [["the", "cat"], [], ["mat", "cat"]]
    words = json.loads(out)["words"]["integrated_gradients/text"]
    assert [[word for word, _ in row] for row in words] == [["the", "cat"], [], ["mat", "cat"]]
    picture = text_model / "two.png"
    status, out, err = probegen_cli(
        "run", path, lines, "--whole-words", "--sample", "2,0", "--plot", picture, "--json"
    )
    assert status == 0, err
    assert json.loads(out)["words"]["integrated_gradients/text"] == words
    assert picture.stat().st_size > 1000
    status, _, err = probegen_cli("run", path, lines, "--plot", picture, "--sample", "0;2")
    assert (status, "rows of the batch such as 0 or 0,2" in err) == (1, True)


def test_what_is_refused(probegen_cli, text_model):
    lines = text_model / "two.txt"
    lines.write_text("one\ntwo\n")
    for arguments, says in (
        (("run", text_model / "n.onnx", "--text", "the cat"), "takes numbers and no text"),
        (("run", text_model / "n.onnx", lines), "is text, and the artefact takes numbers"),
        (("run", text_model / "n.onnx"), "give either an INPUT or --text"),
        (("run", text_model / "n.onnx", lines, "--text", "a"), "give either an INPUT or --text"),
    ):
        status, out, err = probegen_cli(*arguments)
        assert (status, out) == (1, "")
        assert says in err
