"""`probegen generate`: each new token with its row."""

import json

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from tests.causal import gpt2

ROW = "gradient_x_input/token_ids"


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "gpt2.onnx"
    probe = pg.GradientXInput(target="input", region="input", per_token="dot", wrt="token_ids")
    pg.compile(gpt2(), [probe], path, verify=False)
    return path


def test_texts(probegen_cli, writer, tmp_path):
    picture, page = tmp_path / "g.png", tmp_path / "g.html"
    status, said, _ = probegen_cli(
        "generate", writer, "--text", "a cat in", "--text", "the", "--steps", "3", "-o", picture,
        "--html", page,
    )  # fmt: skip
    assert status == 0
    right = runtime.generate(runtime.load(writer), ["a cat in", "the"], 3)
    lines = said.splitlines()
    assert lines[0] == f"prompt 0: {right[0].text}"
    assert lines[1].endswith(f"{right[0].new_tokens[0]!r}  {right[0].scores[0]:.4g}")
    assert lines[2].strip().startswith(f"{ROW}: <|endoftext|> {right[0].rows[ROW][0, 0]:+.3g}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert page.read_text().count("<svg") == 2


def test_json_and_drawing(probegen_cli, writer):
    status, said, _ = probegen_cli(
        "generate", writer, "--ids", "5,3", "--steps", "2", "--temperature", "2", "--top-k", "5",
        "--seed", "4", "--json",
    )  # fmt: skip
    right = runtime.generate(runtime.load(writer), [5, 3], 2, temperature=2, top_k=5, seed=4)
    told = json.loads(said)["texts"][0]
    assert (status, told["prompt"], told["ids"]) == (0, [5, 3], right.ids)
    np.testing.assert_allclose(told["rows"][ROW][1], right.rows[ROW][1, :3], rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give either --text or --ids"),
        (["--ids", "5,a"], "--ids takes whole numbers"),
        (["--text", "a", "--output", "saliency/x"], "there is no row of 'saliency/x'"),
        (["--text", "a", "--top-k", "3"], "with temperature=0"),
    ],
)
def test_what_is_refused(probegen_cli, writer, given, message):
    status, _, err = probegen_cli("generate", writer, *given, "--steps", "1")
    assert status == 1
    assert message in err


def test_a_page_of_texts_of_which_none_was_written_on(probegen_cli, writer, tmp_path):
    """Each prompt stands there with the word that nothing was written, and no picture."""
    right = runtime.generate(runtime.load(writer), ["a cat in", "the"], 1)
    stop = [part for one in right for part in ("--stop", one.ids[0])]
    page = tmp_path / "g.html"
    given = ["generate", writer, "--text", "a cat in", "--text", "the", "--steps", "4", *stop]
    status, said, _ = probegen_cli(*given, "--html", page)
    assert (status, said.splitlines()[:2]) == (0, ["prompt 0: ", "prompt 1: "])
    text = page.read_text()
    assert text.count("No token was written.") == 2
    assert text.count("<h2>Text") == 2
    assert "<svg" not in text
    status, _, err = probegen_cli(*given, "--plot", tmp_path / "g.png")
    assert status == 1
    assert "no token was written" in err


def test_whole_words(probegen_cli, writer):
    status, said, _ = probegen_cli(
        "generate", writer, "--text", "a cat in", "--steps", "2", "--whole-words", "--json"
    )
    told = json.loads(said)["texts"][0]
    right = runtime.generate(runtime.load(writer), "a cat in", 2)
    assert status == 0
    for step, words in enumerate(told["words"][ROW]):
        expected = right.words(step, whole_words=True)
        assert [word for word, _ in words] == [word for word, _ in expected]
        np.testing.assert_allclose([v for _, v in words], [v for _, v in expected], rtol=1e-5)
    assert len(told["rows"][ROW][0]) == len(right.prompt)
