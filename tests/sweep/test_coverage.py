"""The coverage table: every row is in it, under its verdict."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from sweep.__main__ import read, report
from sweep.anew import put_anew
from sweep.coverage import END, START, coverage, write_coverage
from sweep.onnx_models import table as onnx_table
from sweep.outcome import AGREES, INEXPRESSIBLE, NOT_APPLICABLE, REFUSED, Outcome

FOUND = {
    "layers": [
        Outcome("Conv2D: same", AGREES, parity=2e-7),
        Outcome("Conv2D: stride 2", AGREES, parity=3e-6),
        Outcome("MelSpectrogram", REFUSED, "a | b " + 200 * "x"),
        Outcome("AvgPool1D", NOT_APPLICABLE, "another name of AveragePooling1D"),
        Outcome("MaxPool1D", NOT_APPLICABLE, "another name of MaxPooling1D"),
        Outcome("activations.relu", AGREES, parity=1e-8),
        Outcome("ops.qr", INEXPRESSIBLE, "Qr"),
        Outcome("float16: cnn", AGREES, parity=1e-3),
    ],
    "applications": [Outcome("ResNet50", AGREES, parity=1e-6)],
}


def test_rows_are_counted_by_kind() -> None:
    lines = coverage(FOUND).splitlines()
    assert "| `keras.layers` | 3 | 2 | 2e-06 (3e-06) | 1 | 2 |" in lines
    assert "| `keras.activations` | 1 | 1 | 1e-08 (1e-08) | 0 | 0 |" in lines
    assert "| `keras.ops` | 1 | 0 | 0e+00 (0e+00) | 1 | 0 |" in lines
    assert "| dtype policies | 1 | 1 | 1e-03 (1e-03) | 0 | 0 |" in lines
    assert "| `keras.applications` | 1 | 1 | 1e-06 (1e-06) | 0 | 0 |" in lines


def test_every_row_is_named() -> None:
    text = coverage(FOUND)
    assert "Conv2D (2)" in text
    assert "| ops.qr | cannot be expressed | Qr |" in text
    assert "- another name of a layer above: AvgPool1D, MaxPool1D" in text
    assert "a \\| b" in text
    for rows in FOUND.values():
        assert all(r.name.partition(":")[0] in text for r in rows)


def test_it_stands_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "COVERAGE.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_coverage(page, FOUND)
    text = page.read_text()
    assert text.startswith(f"before\n{START}\nMade by `make sweep` on 2")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    page.write_text("nothing")
    with pytest.raises(ValueError, match="lacks the lines"):
        write_coverage(page, FOUND)


def test_the_page_of_this_project_has_a_place_for_each_table() -> None:
    root = Path(__file__).parent.parent.parent
    page = (root / "docs" / "COVERAGE.md").read_text(encoding="utf-8")
    marks = [START, END, onnx_table.START, onnx_table.END]
    marks += ["<!-- onnx operators: start -->", "<!-- onnx operators: end -->"]
    assert all(page.count(mark) == 1 for mark in marks)
    assert sorted(marks, key=page.index) == marks
    writers = (root / "Makefile").read_text().split("--coverage ")[1:]
    assert {w.split()[0] for w in writers} == {"docs/COVERAGE.md"}
    assert len(writers) >= 2


def test_rows_come_back_from_a_file(tmp_path: Path) -> None:
    report(FOUND, tmp_path / "rows.json", None)
    assert read(tmp_path / "rows.json") == FOUND


def test_rows_are_put_anew_into_a_page(tmp_path: Path) -> None:
    """As if all had been swept again, but for the median."""
    page, whole = tmp_path / "COVERAGE.md", tmp_path / "whole.md"
    for path in (page, whole):
        path.write_text(f"before\n{START}\n{END}\nafter\n")
    write_coverage(page, FOUND)
    new = {
        "layers": [
            Outcome("MelSpectrogram", AGREES, parity=5e-6),
            Outcome("Conv2D: same", AGREES, parity=2e-7),
            Outcome("Conv2D: stride 2", REFUSED, "too wide"),
        ]
    }
    put_anew(page, new)
    now = {row.name: row for row in new["layers"]}
    rows = [now.get(row.name, row) for row in FOUND["layers"]]
    write_coverage(whole, {**FOUND, "layers": rows})
    told, expected = (path.read_text().split("\n") for path in (page, whole))
    today = datetime.date.today().isoformat()
    said = f"Swept anew on {today}: MelSpectrogram, Conv2D."
    assert said in told
    told = [line for line in told if line and line != said]
    expected = [line.replace("3e-06 (5e-06)", "2e-06 (5e-06)") for line in expected if line]
    assert sorted(told) == sorted(expected)
    put_anew(page, {"layers": [Outcome("MelSpectrogram", REFUSED, "again")]})
    text = page.read_text()
    assert f"Swept anew on {today}: Conv2D, MelSpectrogram." in text
    assert "| MelSpectrogram | refused | again |" in text
    with pytest.raises(ValueError, match="AvgPool1D is not applicable"):
        put_anew(page, {"layers": [FOUND["layers"][3]]})
    assert page.read_text() == text
