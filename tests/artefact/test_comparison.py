"""Figures by output: a mapping that prints as a table."""

import dataclasses

import pytest

from probegen.artefact.comparison import Comparison


@dataclasses.dataclass(frozen=True)
class Off:
    by: float

    @property
    def passed(self):
        return self.by < 1


@dataclasses.dataclass(frozen=True)
class Offs(Comparison[Off]):
    columns = ("output", "off by")

    outputs: dict[str, Off]

    def title(self):
        return "a.onnx against b.onnx"

    def row(self, name, figures):
        return (name, f"{figures.by:.1f}")


def test_figures_are_a_mapping_and_a_table():
    found = Offs({"scores": Off(0.5), "saliency/x": Off(2.0)})
    assert (list(found), len(found), found["scores"]) == (["scores", "saliency/x"], 2, Off(0.5))
    assert not found.passed
    assert Offs({"scores": Off(0.5)}).passed
    lines = str(found).splitlines()
    assert lines[0] == "a.onnx against b.onnx"
    assert [line.split() for line in lines[1:]] == [
        ["output", "off", "by"],
        ["-" * 10, "-" * 6],
        ["scores", "0.5"],
        ["saliency/x", "2.0"],
    ]
    with pytest.raises(KeyError):
        found["other"]
