"""What is written by a program into a page that is written by hand."""

from __future__ import annotations

from pathlib import Path


def put_between(page: Path, start: str, end: str, text: str) -> None:
    """Replaces what stands between two lines of a page.

    Raises:
        ValueError: the page has no such lines.
    """
    whole = page.read_text(encoding="utf-8")
    if start not in whole or end not in whole:
        raise ValueError(f"{page} lacks the lines {start} and {end}")
    before, after = whole.partition(start)[0], whole.partition(end)[2]
    page.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")
