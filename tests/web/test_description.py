"""What pages are refused for, and what they say that they cannot do."""

import dataclasses
from pathlib import Path

import pytest

from probegen.artefact.texts import TextSpec
from probegen.errors import SpecError
from probegen.runtime import load
from probegen.web import description
from tests.serve.linear import linear_artefact


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return Path(linear_artefact(tmp_path_factory.mktemp("told") / "m.onnx"))


def test_folders_and_giants(path, monkeypatch):
    manifest = load(path).manifest
    with pytest.raises(SpecError, match=r"SavedModel.*\.onnx"):
        description.check(path.parent, manifest)
    monkeypatch.setattr(description, "MOST_BYTES", 10)
    with pytest.raises(SpecError, match="probegen quantise"):
        description.check(path, manifest)


def test_element_types_that_javascript_has_not_got(path):
    manifest = load(path).manifest
    for what, changed in (
        ("input 'x'", {"inputs": (dataclasses.replace(manifest.inputs[0], dtype="string"),)}),
        (
            "output 'scores'",
            {"outputs": (dataclasses.replace(manifest.outputs[0], dtype="bfloat16"),)},
        ),
    ):
        with pytest.raises(SpecError, match=f"the {what} is (string|bfloat16)"):
            description.check(path, manifest.replace(**changed))


def test_tokenizers_that_the_page_has_not_got(path):
    def text(kind):
        return TextSpec(kind, (None,), {}, {"kind": kind})

    manifest = load(path).manifest.replace(
        texts=(text("hugging_face"), text("word_piece"), text("sentence_piece"))
    )
    assert description.unread_texts(manifest) == {
        "hugging_face": "hugging_face",
        "sentence_piece": "sentence_piece",
    }


def test_case_is_folded_by_pythons_tables(path):
    manifest = load(path).manifest
    spec = TextSpec("words", (None,), {}, {"kind": "word_piece"})
    told = description.description(
        path, manifest.replace(texts=(spec,)), onnxruntime="1", scale=None
    )
    assert told["casefold"]["\u00df"] == "ss"
    assert told["casefold"]["\u0130"] == "\u0130".casefold()
    assert "a" not in told["casefold"]
    assert description.description(path, manifest, onnxruntime="1", scale=None)["casefold"] == {}
