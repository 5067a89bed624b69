"""One self-contained HTML page about a result: pictures first, then outputs and certificate.

The page needs nothing from outside. Its one script hides what is not chosen and is always the same;
the content policy in the page lets the browser run that script alone. Without it all is shown.
Whatever comes from the manifest or the caller is escaped.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.manifest import (
    CLASS,
    DRAWN_AS_ACTIVATION,
    DRAWN_AS_ATTENTION,
    DRAWN_AS_PREDICTION,
    DRAWN_BESIDE,
    Manifest,
    TargetSpec,
    names_of_scores,
)
from probegen.artefact.rows import without_batch
from probegen.errors import InputError
from probegen.runtime import attention_explorer, plot
from probegen.runtime.files import write_atomic
from probegen.runtime.inputs import Array, describe
from probegen.runtime.one_class import of_steps
from probegen.runtime.plot.labels import Labels
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.verdict import RANKS, of_layer
from probegen.runtime.plot.view import View
from probegen.runtime.run import DrawableResult
from probegen.runtime.web_page import whole_page

_STYLE = Path(__file__).with_name("report.css")
_SCRIPT = Path(__file__).with_name("report.js")

#: Classes of one output, each with a picture of its own.
_MOST_CLASSES = 12
#: What stands where the class that a reader chose has no picture.
_NOT_EXPLAINED = "The chosen class is not among those that are explained here."

#: Figures of a certificate (fields of `probegen.parity.Parity`) and what they are called.
_CERTIFIED = {
    "max_abs": "Max. absolute difference",
    "max_rel": "Max. relative difference",
    "l2_rel": "Relative distance (L2)",
    "limit": "Limit",
    "worst": "Worst sample",
    "worst_limit": "Its limit",
    "cosine": "Smallest cosine",
    "floor": "Rounding floor",
    "non_finite": "Not finite",
    "below_floor": "Samples below the floor",
    "undetermined": "Undetermined samples",
    "beyond": "Samples beyond the limit",
}
#: Names that Keras makes up, and that say nothing to a reader.
_MADE_UP = re.compile(r"(functional|sequential|model)(_\d+)?")


def write(
    result: DrawableResult,
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


def render(
    result: DrawableResult, samples: int, title: str | None, options: Mapping[str, Any]
) -> str:
    """Returns the page as text; see `write`."""
    labels = Labels.of(options)
    plot.check_against(labels, result.run, (r.array for r in result.predictions.values()))
    manifest = result.manifest
    heading = title or _heading(result)
    rows = min(samples, _batch(result))
    shown = [_sample(result, i, labels, rows) for i in range(rows)]
    explored = any(attention_explorer.NAME in sample.outputs for sample in shown)
    more = [(attention_explorer.SCRIPT, attention_explorer.STYLE)] if explored else []
    sources = [(_SCRIPT, _STYLE), *more]
    script = "".join(path.read_text(encoding="utf-8") for path, _ in sources)
    style = "".join(path.read_text(encoding="utf-8") for _, path in sources)
    body = [
        _header(heading, result, labels, rows),
        _chooser(shown),
        _navigation(rows),
        *(sample.html for sample in shown),
        _outputs(result),
        _certificate(manifest.certificate),
        _artefact(result),
    ]
    return whole_page(heading, style, body, script if shown else "")


def _heading(result: DrawableResult) -> str:
    """Returns the model's name, or the file's where Keras made the model's up."""
    name = str(result.manifest.model.get("name") or "")
    if name and not _MADE_UP.fullmatch(name):
        return name
    return Path(_file(result)).stem or name or "Model"


def _file(result: DrawableResult) -> str:
    return os.path.basename(result.run.source.rstrip("/\\"))


def _batch(result: DrawableResult) -> int:
    return result.run.rows


def _samples(batch: int, rows: int) -> str:
    shown = "" if rows == batch else f", {'none' if not rows else f'the first {rows}'} shown"
    return f"{batch} in this run{shown}"


def _header(heading: str, result: DrawableResult, labels: Labels, rows: int) -> str:
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    certificate = result.manifest.certificate
    facts = [
        ("Explained", _targets(result, labels)),
        ("Samples", _samples(_batch(result), rows)),
        ("Certificate", _verdict(certificate) if certificate else "none that holds for this file"),
    ]
    return (
        f'<header class="card">\n<h1>{escape(heading)}</h1>\n'
        f'<p class="muted">Explanation report, {escape(now)}</p>\n{_facts(facts)}\n</header>'
    )


def _artefact(result: DrawableResult) -> str:
    """Returns what the artefact is and what it takes."""
    manifest = result.manifest
    facts = [
        ("Artefact", _file(result)),
        ("Model", _joined(manifest.model)),
        ("Made with", _joined(manifest.producer)),
        ("Inputs", "; ".join(f"{s.name}: {s.dtype} {_axes(s)}" for s in manifest.inputs)),
        ("Gate", "explanations can be switched off in each run" if manifest.gate else ""),
        ("Classes", _classes(manifest)),
    ]
    return _section("Artefact", _facts(facts))


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    listed = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts if fact
    )
    return f"<dl>\n{listed}\n</dl>"


def _joined(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _axes(spec: Any) -> str:
    return describe(spec.axes, spec.shape)


def _targets(result: DrawableResult, labels: Labels) -> str:
    """Says what the attributions are gradients of: each target of the artefact once."""
    names = labels.class_names or result.manifest.class_names
    shown: list[str] = []
    for record in result.explanations.values():
        target = record.spec.target
        if target is not None:
            said = _target(target, result, names_of_scores(names, target.classes))
            if target.logits:
                said += " (the logit, before softmax or sigmoid)"
            shown.append(said)
    return "; ".join(dict.fromkeys(shown))


def _target(target: TargetSpec, result: DrawableResult, names: Sequence[str] | None) -> str:
    of = f" of {target.output}" if len(result.predictions) > 1 and target.output else ""
    if target.mode == "callable":
        return f"{target.name or 'a function of the outputs'}"
    if target.mode == "input" and result.run.target is not None and target.step is None:
        asked = result.run.target.tolist()
        listed = ", ".join(_class(i, names) for i in asked[:16])
        return f"chosen in this run{of}: {listed}" + (", \u2026" if len(asked) > 16 else "")
    if target.layer is not None or target.several or target.mode == "contrast":
        return _classes_of(target, names) + of
    if target.mode == "index":
        index = target.index or ()
        if len(index) == 1 and index[0] is not None:
            return _class(index[0], names) + of
        at = ", ".join("sum" if i is None else str(i) for i in index)
        return (f"entry [{at}]" if index else "the output") + of
    explained = result.predictions.get(target.output or next(iter(result.predictions)))
    one = explained is not None and without_batch(explained.shape, explained.axes) == (1,)
    only = f"the score of {names[0]}" if names else "the output"
    return (only if one else "the highest class of each sample") + of


def _classes_of(target: TargetSpec, names: Sequence[str] | None) -> str:
    """Says what a target of a layer, of several classes, or a contrast explains."""
    if target.step is not None:
        where = f" of {target.layer_call}" if target.layer is not None else ""
        return f"{of_steps(target)} at each step{where}"
    if target.layer is not None:
        return of_layer(target)
    if target.mode == "top":
        return f"the {target.count} best classes of each sample"
    if target.mode == "all":
        return "each class"
    sides = [_class(i, names) if isinstance(i, int) else RANKS[i] for i in target.chosen or ()]
    return ("; " if target.mode == "list" else " rather than ").join(sides)


def _class(index: int, names: Sequence[str] | None) -> str:
    if index < 0:
        return "argmax"
    return f"{names[index]} ({index})" if names and index < len(names) else f"class {index}"


def _classes(manifest: Manifest) -> str:
    names = manifest.class_names or ()
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more


def _navigation(rows: int) -> str:
    links = "".join(f'<a href="#sample-{i}">sample {i}</a>' for i in range(rows))
    return f"<nav>{links}</nav>" if rows > 1 else ""


def _outputs(result: DrawableResult) -> str:
    header = ("Output", "Kind", "Layer or input", "Shape", "Method", "Min", "Mean", "Max")
    rows = []
    for record in result.values():
        place = plot.place(record.spec) if record.spec.draw != DRAWN_AS_PREDICTION else ""
        shape = f"{record.dtype} {describe(record.axes, record.shape)}"
        low, mean, high = _statistics(record.array)
        title = record.spec.title
        rows.append((record.name, title, place, shape, record.spec.method, low, mean, high))
    return _section("Outputs", _table(header, rows, numbers=3))


def _statistics(array: Array) -> tuple[str, str, str]:
    """Returns smallest, mean and largest of what is finite."""
    if array.dtype.kind not in "biuf":
        return "\u2013", "\u2013", "\u2013"
    values = np.asarray(array, np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return "\u2013", "\u2013", "\u2013"
    return tuple(_number(f(values)) for f in (np.min, np.mean, np.max))  # type: ignore[return-value]


def _verdict(certificate: Mapping[str, Any]) -> str:
    against = certificate.get("against")
    compared = f" against {against}" if against else ""
    said = "passed" if certificate.get("passed") else "failed"
    return f"{said} on {certificate.get('samples', '?')} samples{compared}"


def _certificate(certificate: Mapping[str, Any] | None) -> str:
    """Returns what was measured when the artefact was made, and the limits it was held to."""
    if not certificate:
        return ""
    kind = "good" if certificate.get("passed") else "bad"
    outputs = certificate.get("outputs") or {}
    measured = {key for found in outputs.values() for key in found}
    columns = [column for column in _CERTIFIED if column in measured]
    rows = [
        (
            name,
            *(_number(found.get(c)) for c in columns),
            "agrees" if found.get("passed") else "differs",
            str(found.get("witness") or ""),
        )
        for name, found in outputs.items()
    ]
    header = ("Output", *(_CERTIFIED[column] for column in columns), "Verdict", "Compared with")
    text = (
        f'<p>Verified: <span class="{kind}">{escape(_verdict(certificate))}</span>. The limit is '
        "for the relative distance of gradients, and for the largest relative difference of "
        f"everything else.{_runs(certificate.get('runs'))}</p>"
    )
    return _section("Parity certificate", text + _table(header, rows, numbers=len(columns) + 2))


def _runs(runs: Any) -> str:
    """Says at which batch sizes and open sizes an artefact was compared."""
    said = []
    for run in runs if isinstance(runs, list) else ():
        sizes = run.get("sizes") if isinstance(run, dict) else None
        if isinstance(sizes, dict):
            at = "".join(f", {name} {size}" for name, size in sizes.items())
            said.append(f"batch {run.get('batch')}{at}")
    return f" Compared at {escape('; '.join(said))}." if said else ""


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float | np.number) else "\u2013"


def _section(heading: str, content: str) -> str:
    return f'<h2>{escape(heading)}</h2>\n<section class="card">\n{content}\n</section>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> str:
    """Returns a table whose last `numbers` columns are aligned as numbers.

    On narrow screens a row becomes a list, so each cell knows the name of its column.
    """
    plain = len(header) - numbers
    kinds = [""] * plain + [' class="number"'] * numbers
    head = "".join(
        f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, header, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td{kind} data-label="{escape(name)}">{escape(cell)}</td>'
            for kind, name, cell in zip(kinds, header, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


@dataclasses.dataclass(frozen=True)
class _Sample:
    """The pictures of one sample.

    Attributes:
        number: the row of the batch.
        html: its part of the page.
        outputs: what is shown, by output name.
        classes: names of the classes that outputs of several explain.
    """

    number: int
    html: str
    outputs: dict[str, str]
    classes: list[str]


def _sample(result: DrawableResult, sample: int, labels: Labels, rows: int) -> _Sample:
    # What a reader came for first: outputs of layers can fill many screens.
    drawn = [r for r in result.values() if r.spec.draw != DRAWN_BESIDE and not r.spec.is_state]
    ordered = sorted(drawn, key=lambda record: record.spec.draw == DRAWN_AS_ACTIVATION)
    shown = ordered[: labels.max_outputs]
    # All layers can be looked up in the explorer, also those that are not drawn.
    weights = [r for r in drawn if r.spec.draw == DRAWN_AS_ATTENTION]
    wanted = {record.name: record for record in (*shown, *weights)}
    view_of = {name: plot.view_of(record, sample, labels, rows) for name, record in wanted.items()}
    views = [view_of[record.name] for record in shown]
    parts = [_record(view) for view in views]
    explorer = attention_explorer.article([view_of[record.name] for record in weights], rows)
    parts += [explorer] if explorer else []
    left_out = [r.name for r in drawn if r.name not in {s.name for s in shown}]
    if left_out:
        parts.append(f'<p class="muted">Not shown: {escape(", ".join(left_out))}</p>')
    outputs = {view.spec.name: f"{view.spec.title}: {plot.place(view.spec)}" for view in views}
    if explorer:
        outputs[attention_explorer.NAME] = attention_explorer.NAME.capitalize()
    classes = [name for view in views for name, _ in plot.class_views(view)]
    html = (
        f'<section data-sample="{sample}">\n<h2 id="sample-{sample}">Sample {sample}</h2>\n'
        + "\n".join(parts)
        + "\n</section>"
    )
    return _Sample(sample, html, outputs, classes)


def _record(view: View) -> str:
    """Returns one output of a sample: a picture, or one for each class that it explains."""
    of_classes = plot.class_views(view)
    if of_classes:
        chosen = of_classes[: min(_MOST_CLASSES, view.labels.max_panels)]
        figures = "\n".join(_figure(one, name) for name, one in chosen)
        figures += f'<p class="muted" data-none hidden>{_NOT_EXPLAINED}</p>'
        several = "classes" if view.axes[0] == CLASS else "steps"
        if len(chosen) < len(of_classes):
            figures += f'<p class="muted">showing {len(chosen)} of {len(of_classes)} {several}</p>'
    else:
        figures = _figure(view)
    name = escape(view.spec.name)
    return (
        f'<article class="card" data-output="{name}">\n<h3 dir="auto">{escape(view.title)}</h3>\n'
        f'<p class="muted"><code>{name}</code></p>\n{figures}\n</article>'
    )


def _figure(view: View, class_name: str | None = None) -> str:
    """Returns a picture with what is said of it, under the name of its class if it has one."""
    with plot.readers_own():
        picture = plot.picture_of(view)
        of = f"{view.spec.name}/{view.sample}/{class_name or ''}"
        content = picture.html or _drawn(picture, of)
    notes = "; ".join(part for part in (*picture.notes, view.spec.method) if part)
    caption = f"<figcaption>{escape(notes)}</figcaption>" if notes else ""
    if class_name is None:
        return f"<figure>{content}{caption}</figure>"
    name = escape(class_name)
    return f'<figure data-class="{name}"><h4 dir="auto">{name}</h4>{content}{caption}</figure>'


def _chooser(shown: Sequence[_Sample]) -> str:
    """Returns what a reader chooses sample, output and class with; hidden without the script."""
    if not shown:
        return ""
    outputs = {name: title for sample in shown for name, title in sample.outputs.items()}
    titles = list(outputs.values())
    named = {
        name: title if titles.count(title) == 1 else f"{title} ({name})"
        for name, title in outputs.items()
    }
    classes = {name: name for sample in shown for name in sample.classes}
    choices = [
        _choice("sample", "Sample", {str(s.number): str(s.number) for s in shown}, first=True),
        _choice("output", "Method", named),
        _choice("class", "Class", classes),
    ]
    return f'<form id="choose" class="card" hidden>{"".join(choices)}</form>'


def _choice(name: str, title: str, options: Mapping[str, str], first: bool = False) -> str:
    """Returns one choice, all being the first option; nothing where there is nothing to choose."""
    if len(options) < 2:
        return ""
    listed = '<option value="">all</option>' + "".join(
        f'<option value="{escape(value)}"{" selected" if first and not i else ""}>'
        f"{escape(text)}</option>"
        for i, (value, text) in enumerate(options.items())
    )
    # Firefox would keep a choice over a reload, where others do not.
    return f'<label>{title} <select name="{name}" autocomplete="off">{listed}</select></label>'


def _drawn(picture: Picture, name: str) -> str:
    """Returns the picture inline, without the words that the page writes itself."""
    figure = plot.figure_of(dataclasses.replace(picture, title="", notes=()))
    return plot.inline_svg(figure, picture.title, name)
