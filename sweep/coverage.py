"""The coverage of Keras in docs/COVERAGE.md: what works, what does not and why."""

from __future__ import annotations

import datetime
import importlib.metadata
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sweep.markdown import put_between
from sweep.outcome import AGREES, NOT_APPLICABLE, Outcome

START, END = "<!-- coverage: start -->", "<!-- coverage: end -->"
_PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime")
_SUITES = {"applications": "`keras.applications`", "hub": "KerasHub backbones, small"}
_SUITES["tensorflow"] = "TensorFlow operations, forward alone"
_MOST = 150


def write_coverage(path: Path, found: Mapping[str, Sequence[Outcome]]) -> None:
    """Puts the coverage between the two markers of a Markdown file.

    Raises:
        ValueError: the file has no such markers.
    """
    put_between(path, START, END, coverage(found))


def coverage(found: Mapping[str, Sequence[Outcome]]) -> str:
    """Returns the coverage as Markdown: a table of counts, and each name under its verdict."""
    kinds: dict[str, list[Outcome]] = defaultdict(list)
    for suite, rows in found.items():
        for row in rows:
            kinds[kind_of(suite, row.name)].append(row)
    versions = ", ".join(f"{p} {version}" for p in _PACKAGES if (version := _version(p)))
    parts = [
        f"Made by `make sweep` on {datetime.date.today().isoformat()} with {versions}.",
        "\n".join(_counts(kinds)),
        _folded("what does not agree, and why", "\n".join(_exceptions(kinds))),
        *(_names(kind, rows) for kind, rows in kinds.items()),
        _set_aside(kinds),
    ]
    return "\n\n".join(parts)


def kind_of(suite: str, name: str) -> str:
    """Returns what the rows of a suite are counted as."""
    if suite in _SUITES:
        return _SUITES[suite]
    for prefix in ("activations.", "ops."):
        if name.startswith(prefix):
            return f"`keras.{prefix[:-1]}`"
    policy = name.partition(":")[0]
    return "dtype policies" if "float" in policy else "`keras.layers`"


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _counts(kinds: Mapping[str, Sequence[Outcome]]) -> Iterable[str]:
    yield "| | models | agree | gradient max rel, median (worst) | do not | not applicable |"
    yield "|---|---:|---:|---:|---:|---:|"
    for kind, rows in kinds.items():
        tried = [r for r in rows if r.verdict != NOT_APPLICABLE]
        agree = [r for r in tried if r.verdict == AGREES]
        parity = [r.parity for r in agree if r.parity is not None] or [0.0]
        figures = f"{statistics.median(parity):.0e} ({max(parity):.0e})"
        others, aside = len(tried) - len(agree), len(rows) - len(tried)
        yield f"| {kind} | {len(tried)} | {len(agree)} | {figures} | {others} | {aside} |"


def _exceptions(kinds: Mapping[str, Sequence[Outcome]]) -> Iterable[str]:
    yield "| model | verdict | why |"
    yield "|---|---|---|"
    for kind, rows in kinds.items():
        for row in rows:
            if row.verdict not in (AGREES, NOT_APPLICABLE):
                yield exception(kind, row)


def exception(kind: str, row: Outcome) -> str:
    """Returns the line of a row that does not agree."""
    name = row.name if kind != "dtype policies" else f"policy {row.name}"
    return f"| {name} | {row.verdict} | {_short(row.reason)} |"


def _short(reason: str) -> str:
    cut = reason if len(reason) <= _MOST else reason[: _MOST - 1].rstrip() + "…"
    return cut.replace("|", "\\|")


def _names(kind: str, rows: Sequence[Outcome]) -> str:
    """Returns what agrees by name, with the number of models where there are several."""
    models: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.verdict == AGREES:
            models[listed_name(kind, row.name)] += 1
    listed = ", ".join(name + (f" ({n})" if n > 1 else "") for name, n in models.items())
    return _folded(f"{kind}: what agrees", listed)


def listed_name(kind: str, name: str) -> str:
    """Returns the name under which the models of a layer or operation are listed together."""
    return name if kind == "dtype policies" else name.partition(":")[0]


def _set_aside(kinds: Mapping[str, Sequence[Outcome]]) -> str:
    reasons: dict[str, list[str]] = defaultdict(list)
    for rows in kinds.values():
        for row in rows:
            if row.verdict == NOT_APPLICABLE:
                same = "another name of" in row.reason
                reasons["another name of a layer above" if same else row.reason].append(row.name)
    lines = [f"- {reason}: {', '.join(names)}" for reason, names in sorted(reasons.items())]
    return _folded("what no gradient is asked of, and why", "\n".join(lines))


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
