"""The attention explorer of a report: the right weights, any tokens, a page of bounded size."""

import base64
import json
import shutil
import subprocess

import numpy as np
import pytest

from probegen.runtime import attention_explorer
from probegen.runtime.attention_explorer import MOST_CHARACTERS
from tests.runtime.support import result_of
from tests.runtime.test_report import EVIL, Page

RNG = np.random.default_rng(31)
TIME = ("batch", "time")
HEADS = ("batch", "head", "query", "key")
TOKENS = ["un", "##do", EVIL, "\u05e9\u05dc", "\n"]


def attention(layers=2, heads=3, size=5, axes=HEADS, samples=2):
    shape = {"batch": samples, "head": heads, "query": size, "key": size, "layer": 2, "time": 3}
    ids = np.tile(np.arange(size, dtype=np.int32), (samples, 1))
    outputs = {
        f"attention/{i}": (
            RNG.dirichlet(np.ones(size), [shape[a] for a in axes[:-1]]), "attention", axes,
            {"layer": f"encoder_{i}"},
        )
        for i in range(layers)
    }  # fmt: skip
    return result_of({"ids": (ids, TIME, {"vocabulary": size})}, outputs)


def explored(page):
    """The layers of each explorer, with their weights as arrays."""
    found = []
    for attrs in page.all("article"):
        if "data-attention" in attrs:
            found.append(json.loads(attrs["data-attention"]))
    for layers in found:
        for layer in layers:
            levels = np.frombuffer(base64.b64decode(layer["weights"]), "<u2")
            layer["array"] = layer["low"] + layer["span"] * levels.reshape(layer["shape"]) / 65535
    return found


def test_weights_and_tokens_of_all_layers(tmp_path):
    result = attention()
    tokens = {"tokens": [TOKENS, TOKENS[:4]]}
    page = Page(result.to_html(tmp_path / "r.html", max_outputs=1, **tokens))
    samples = explored(page)
    assert [[layer["name"] for layer in layers] for layers in samples] == [
        ["encoder_0", "encoder_1"]
    ] * 2
    for i, (layers, length) in enumerate(zip(samples, (5, 4), strict=True)):
        for layer, record in zip(layers, result.values(), strict=True):
            expected = record.array[i, :, :length, :length]
            np.testing.assert_allclose(layer["array"], expected, atol=1e-5)
            assert layer["queries"] == layer["keys"] == TOKENS[:length]
    assert EVIL not in page.raw
    assert len(page.scripts) == 1


@pytest.mark.parametrize(
    ("axes", "names", "shape"),
    [
        (("batch", "query", "key"), ["encoder_0"], [1, 5, 5]),
        (("batch", "layer", *HEADS[1:]), ["encoder_0: layer 0", "encoder_0: layer 1"], [3, 5, 5]),
        (("batch", "time", *HEADS[2:]), [f"encoder_0: time {i}" for i in range(3)], [1, 5, 5]),
    ],
)
def test_attention_with_other_axes(tmp_path, axes, names, shape):
    result = attention(1, axes=axes)
    layers = explored(Page(result.to_html(tmp_path / "r.html")))[0]
    assert [layer["name"] for layer in layers] == names
    for i, layer in enumerate(layers):
        assert layer["shape"] == shape
        whole = result["attention/0"].array[0]
        expected = whole[i] if len(names) > 1 else whole
        np.testing.assert_allclose(layer["array"].squeeze(), expected.squeeze(), atol=1e-5)


def test_whole_words_and_signs(tmp_path):
    result = attention(1, 1, 3, samples=1)
    values = np.array([[[[0.5, -0.25, 1.0], [0.0, 0.0, 1.0], [2.0, 1.0, 0.0]]]])
    object.__setattr__(result["attention/0"], "array", values)
    page = Page(result.to_html(tmp_path / "r.html", tokens=["a", "##b", "c"], whole_words=True))
    (layer,) = explored(page)[0]
    np.testing.assert_allclose(layer["array"][0], [[0.125, 1.0], [3.0, 0.0]], atol=1e-4)
    assert layer["keys"] == ["ab", "c"]


def test_what_is_no_number_is_said(tmp_path):
    result = attention(1, samples=1)
    result["attention/0"].array[0, 1, 2:4] = [[np.nan], [np.inf]]
    page = Page(result.to_html(tmp_path / "r.html"))
    (layer,) = explored(page)[0]
    assert not layer["array"][1, 2:4].any()
    assert any("10 weights that are no finite number are shown as 0" in text for text in page.text)
    assert not any("finite" in text for text in Page(attention().to_html(tmp_path / "q.html")).text)


@pytest.mark.parametrize(
    ("layers", "heads", "size", "said"),
    [(3, 4, 400, "the first 136 of up to 400 tokens"), (30, 200, 20, "layers; the first 12 of")],
)
def test_a_page_stays_small(tmp_path, monkeypatch, layers, heads, size, said):
    monkeypatch.setattr(attention_explorer, "MOST_CHARACTERS", 600_000)
    result = attention(layers, heads, size, samples=1)
    page = Page(result.to_html(tmp_path / "r.html", max_outputs=1, max_panels=1))
    weights = [layer["weights"] for layer in explored(page)[0]]
    assert 300_000 < sum(map(len, weights)) < 610_000 < MOST_CHARACTERS
    assert any(said in text for text in page.text), page.text


def test_none_where_there_is_no_attention(tmp_path):
    x = np.ones((2, 3))
    outputs = {
        "it": (x, "saliency", ("batch", "feature"), {"input": "x"}),
        "one": (x, "attention", ("batch", "key"), {"layer": "pool"}),
    }
    result = result_of({"x": (x, ("batch", "feature"), {})}, outputs)
    page = Page(result.to_html(tmp_path / "r.html"))
    assert explored(page) == []
    assert "attention explorer" not in page.raw.lower()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_a_browser_draws_it(tmp_path):
    path = attention().to_html(tmp_path / "r.html", tokens=TOKENS)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, check=False)
    drawn = tmp_path / "drawn.html"
    drawn.write_text(done.stdout)
    page = Page(drawn)
    assert explored(page) == []  # read, and taken out
    assert len([li for li in page.all("li") if li.get("role") == "option"]) == 2 * 2 * 5
    assert len(page.all("canvas")) == 2 * 4  # the mean and three heads
    assert {"\u21b5", EVIL, "mean of 3 heads", "encoder_1"} <= set(page.text)
    assert page.all("line")
