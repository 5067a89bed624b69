"""A plain text table for `print`."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns the rows under a ruled header, columns padded to their widest cell."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    ruled = [header, ["-" * width for width in widths], *rows]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in ruled)
    return "\n".join("  " + line.rstrip() for line in lines)
