"""Words and tables: how sizes and rows are written for people."""

from __future__ import annotations

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table: the columns' names, a rule, the rows."""
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    ruled = [columns, ["-" * w for w in widths], *rows]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in ruled]


def indented_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table as text, indented below a title."""
    return "\n".join(f"  {line}" for line in table(columns, rows))


def shortened(text: str, most: int) -> str:
    """Returns text of at most `most` characters: where it is longer, its end is an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def plural(noun: str) -> str:
    """Returns the plural of a noun: entries, axes, classes, samples."""
    if noun.endswith("xis"):
        return f"{noun[:-2]}es"
    if noun.endswith("ry"):
        return f"{noun[:-1]}ies"
    return noun + ("es" if noun.endswith("s") else "s")


def amount(count: int, noun: str) -> str:
    """Returns how many there are: `1 entry`, `3 entries`."""
    return f"{count} {noun if count == 1 else plural(noun)}"


def format_shape(shape: Sequence[int | str | None]) -> str:
    """Returns a shape as text, `?` standing for an open size."""
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def extra_for(module: str) -> str:
    """Returns what to install where a module that the compiler needs is missing."""
    both = "'probegen[compiler]'"
    of_onnx = module.partition(".")[0] in ("onnx", "onnx_ir")
    return f"'probegen[onnx]' (for Keras models {both})" if of_onnx else both
