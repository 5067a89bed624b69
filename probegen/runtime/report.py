"""One self-contained HTML page about a result: facts, outputs, certificate and pictures.

The page needs nothing from outside and runs no script; a content policy in it says so to the
browser. Whatever comes from the manifest or the caller is escaped.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from probegen.errors import InputError
from probegen.manifest import Manifest
from probegen.runtime import plot
from probegen.runtime.files import write_atomic
from probegen.runtime.inputs import Array, describe
from probegen.runtime.plot.labels import Labels
from probegen.runtime.plot.picture import Picture
from probegen.runtime.result import Record, Result

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = Path(__file__).with_name("report.css")
_CSS_DPI = 96

#: Figures of a certificate and what they are called.
_CERTIFIED = {
    "max_abs": "Max. absolute error",
    "max_rel": "Max. relative error",
    "median_rel": "Median relative error",
    "typical_rel": "Typical relative error",
    "cosine": "Smallest cosine",
}


def write(
    result: Result,
    path: str | os.PathLike[str],
    samples: int,
    title: str | None,
    options: Mapping[str, Any],
) -> Path:
    """Writes the report whole or not at all; returns its path.

    Raises:
        InputError: `samples` is negative, or an option does not fit.
        FileNotFoundError: the folder of `path` does not exist.
    """
    if samples < 0:
        raise InputError(f"samples is {samples}; it must be 0 or more.")
    page = render(result, samples, title, options).encode("utf-8")
    return write_atomic(path, lambda file: file.write(page))


def render(result: Result, samples: int, title: str | None, options: Mapping[str, Any]) -> str:
    """Returns the page as text; see `write`."""
    labels = Labels.of(options)
    plot.check_against(labels, [*result.run.inputs.values(), *(r.array for r in result.values())])
    manifest = result.manifest
    heading = title or manifest.model.get("name") or "Model"
    rows = min(samples, _batch(result))
    body = [
        _header(heading, result),
        _navigation(rows),
        _outputs(result),
        _certificate(manifest.certificate),
        *(_sample(result, i, labels) for i in range(rows)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}</title>\n"
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _batch(result: Result) -> int:
    return max((len(array) for array in result.run.inputs.values()), default=0)


def _header(heading: str, result: Result) -> str:
    manifest = result.manifest
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    facts = [
        ("Artefact", os.path.basename(result.run.source.rstrip("/\\"))),
        ("Model", _joined(manifest.model)),
        ("Made with", _joined(manifest.producer)),
        ("Inputs", "; ".join(f"{s.name}: {s.dtype} {_axes(s)}" for s in manifest.inputs)),
        ("Target", _target(result)),
        ("Gate", "explanations can be switched off in each run" if manifest.gate else ""),
        ("Classes", _classes(manifest)),
        ("Samples", f"{_batch(result)} in this run"),
    ]
    listed = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts if fact
    )
    return (
        f'<header class="card">\n<h1>{escape(heading)}</h1>\n'
        f'<p class="muted">Explanation report, {escape(now)}</p>\n'
        f"<dl>\n{listed}\n</dl>\n</header>"
    )


def _joined(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _axes(spec: Any) -> str:
    return describe(spec.axes, spec.shape)


def _target(result: Result) -> str:
    if result.run.target is None:
        return ""
    shown = ", ".join("argmax" if t < 0 else str(t) for t in result.run.target[:16].tolist())
    return "chosen in this run: " + shown + (", \u2026" if len(result.run.target) > 16 else "")


def _classes(manifest: Manifest) -> str:
    names = manifest.class_names or ()
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more


def _navigation(rows: int) -> str:
    links = "".join(f'<a href="#sample-{i}">sample {i}</a>' for i in range(rows))
    return f"<nav>{links}</nav>" if rows > 1 else ""


def _outputs(result: Result) -> str:
    header = ("Output", "Kind", "Layer or input", "Shape", "Method", "Min", "Mean", "Max")
    rows = []
    for record in result.values():
        place = plot.place(record.spec) if record.kind != "prediction" else ""
        shape = f"{record.dtype} {describe(record.axes, record.shape)}"
        low, mean, high = _statistics(record.array)
        title = plot.KIND_TITLES[record.kind]
        rows.append((record.name, title, place, shape, record.spec.method, low, mean, high))
    return _section("Outputs", _table(header, rows, numbers=3))


def _statistics(array: Array) -> tuple[str, str, str]:
    """Returns smallest, mean and largest of what is finite."""
    values = np.asarray(array, np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return "\u2013", "\u2013", "\u2013"
    return tuple(_number(f(values)) for f in (np.min, np.mean, np.max))  # type: ignore[return-value]


def _certificate(certificate: Mapping[str, Any] | None) -> str:
    """Returns what was measured when the artefact was made."""
    if not certificate:
        return ""
    passed = bool(certificate.get("passed"))
    verdict = '<span class="good">passed</span>' if passed else '<span class="bad">failed</span>'
    facts = escape(f"{certificate.get('samples', '?')} samples")
    against = certificate.get("against")
    compared = f" against {escape(str(against))}" if against else ""
    outputs = certificate.get("outputs") or {}
    measured = {key for found in outputs.values() for key in found}
    columns = [column for column in _CERTIFIED if column in measured]
    rows = [(name, *(_number(found.get(c)) for c in columns)) for name, found in outputs.items()]
    header = ("Output", *(_CERTIFIED[column] for column in columns))
    text = f"<p>Verified on {facts}{compared}: {verdict}.</p>"
    return _section("Parity certificate", text + _table(header, rows, numbers=len(columns)))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float | np.number) else "\u2013"


def _section(heading: str, content: str) -> str:
    return f'<h2>{escape(heading)}</h2>\n<section class="card">\n{content}\n</section>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> str:
    """Returns a table whose last `numbers` columns are aligned as numbers."""
    plain = len(header) - numbers

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = [""] * plain + [' class="number"'] * numbers
        written = (
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{''.join(written)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return (
        f'<div class="wide"><table>\n<thead>{line("th", header)}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _sample(result: Result, sample: int, labels: Labels) -> str:
    shown = list(result.values())[: labels.max_outputs]
    parts = [_record(record, sample, labels) for record in shown]
    left_out = [name for name in result if name not in {r.name for r in shown}]
    if left_out:
        parts.append(f'<p class="muted">Not shown: {escape(", ".join(left_out))}</p>')
    return f'<h2 id="sample-{sample}">Sample {sample}</h2>\n' + "\n".join(parts)


def _record(record: Record, sample: int, labels: Labels) -> str:
    picture = plot.choose(plot.view_of(record, sample, labels))
    content = picture.html or _image(picture)
    notes = "; ".join(part for part in (*picture.notes, record.spec.method) if part)
    caption = f"<figcaption>{escape(notes)}</figcaption>" if notes else ""
    return (
        f'<article class="card">\n<h3>{escape(picture.title)}</h3>\n'
        f'<p class="muted"><code>{escape(record.name)}</code></p>\n'
        f"<figure>{content}{caption}</figure>\n</article>"
    )


def _image(picture: Picture) -> str:
    """Returns the picture inline, without the words that the page writes itself."""
    figure = plot.figure_of(dataclasses.replace(picture, title="", notes=()))
    data = base64.b64encode(plot.png(figure)).decode("ascii")
    width = round(figure.get_figwidth() * _CSS_DPI)
    return f'<img alt="{escape(picture.title)}" width="{width}" src="data:image/png;base64,{data}">'
