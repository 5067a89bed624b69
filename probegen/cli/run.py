"""`probegen run`: an artefact on an input, and what comes out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probegen.cli.bulk import check_no_bulk, run_bulk, with_bulk
from probegen.cli.options import engine_of, with_engine, with_json
from probegen.cli.reading import array_of, forecast_of, labels_of, read_text, rows_of, target_of
from probegen.cli.showing import flag, note, show_table, start_for
from probegen.cli.texts import check_given, named_texts, say_words, with_texts, words_by_output
from probegen.errors import InputError

if TYPE_CHECKING:
    from probegen.artefact.manifest import Manifest
    from probegen.runtime.classes import Choice
    from probegen.runtime.result import Result

#: Rows of a batch whose classes `run` prints.
_MOST_CHOICES = 10


@click.command()
@click.argument("artefact", type=click.Path())
@click.argument("input", type=click.Path(exists=True), required=False)
@with_texts
@click.option(
    "--groups",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="For artefacts with groups='input': an .npy file of whole numbers, the group of each "
    "position, for one sample or for each row of the batch.",
)
@click.option(
    "--region",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="For artefacts with region='input': an .npy file of numbers, what each position of the "
    "output counts, for one sample or for each row of the batch.  [default: ones]",
)
@click.option(
    "--target",
    metavar="T",
    help="Class to explain, where the artefact takes one: an index, a name, argmax, or one of "
    "these for each row, separated by commas.",
)
@click.option("--no-explain", is_flag=True, help="Compute the prediction alone.")
@with_engine
@click.option("--check", is_flag=True, help="Check ARTEFACT's contents by its digests first.")
@click.option("--check-finite", is_flag=True, help="Refuse NaN and infinity in the input.")
@click.option(
    "--scale",
    type=float,
    help="Multiply the values of floating inputs by this: images are read as 0 to 255.",
)
@click.option(
    "--header/--no-header",
    default=None,
    help="Whether the first row of a table holds names.  [default: where no cell is a number]",
)
@click.option(
    "--time-column",
    metavar="NAME|N",
    help="Of a series in a table: the column that says what stands at its steps, by name or number "
    "from 1.  [default: a column of dates such as 2024-01-31, if there is one]",
)
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw all outputs into a PNG.")
@click.option("--html", type=click.Path(dir_okay=False), help="Write a self-contained report.")
@click.option("--npz", type=click.Path(dir_okay=False), help="Write all arrays.")
@click.option(
    "--sample",
    metavar="N,...",
    default="0",
    show_default=True,
    help="The row that --plot draws; several are drawn below each other.",
)
@click.option(
    "--whole-words",
    is_flag=True,
    help="Join pieces of words (##, \u2581, \u0120) into words, in pictures and where they are "
    "printed: signed numbers are summed up.",
)
@click.option("--class-names", metavar="A,B,...|FILE", help="Names of the classes in pictures.")
@click.option("--feature-names", metavar="A,B,...|FILE", help="Names of the features in pictures.")
@click.option(
    "--tokens",
    type=click.Path(exists=True, dir_okay=False),
    help="What stands along a sequence: a text file, a line a row of the batch, tokens separated "
    "by spaces; or JSON: a list, a list of lists, or an object from id to token.",
)
@click.option(
    "--forecast",
    metavar="A,B,...|all",
    help="The features of a series that the prediction goes on with, by name or number from 0: it "
    "is drawn behind their past.",
)
@click.option(
    "--truth",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="What really came (.npy, of the prediction's shape): drawn beside the prediction.",
)
@with_json
@with_bulk
def run(
    artefact: str,
    input: str | None,
    texts: tuple[str, ...],
    pairs: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Run ARTEFACT on INPUT and show what comes out. Needs no TensorFlow for ONNX.

    INPUT is an .npy file with a batch axis, an .npz file with an array for each input, a .csv
    file with a sample a row (for a series: a time step a row), a .txt file with a text a line, an
    image, or a folder of such files, whose rows are joined in the order of their names.

    Cells of a table are divided by tab, ';', ',' or '|', and have decimal points. The values of an
    image go from 0 to 255, or what --scale makes of them; the range is printed.

    With --out it is a bulk run: INPUT may be larger than memory, and each sample gets a record in
    Parquet or Zarr. INPUT may then also be a Parquet file, a folder of Zarr's, a raw memory map
    (.bin, .dat, .mmap, .raw, with --dtype), or a folder with folders in it. The same command goes
    on where a run was stopped, however hard.
    """
    if options["out"] is not None:
        run_bulk(artefact, input, [*texts, *pairs], as_json, options)
        return
    check_no_bulk(options)
    from probegen import runtime
    from probegen.runtime.read import read_input

    check_given(input, texts, pairs)
    start_for(artefact)
    art = runtime.load(artefact, check=options["check"] or None, **engine_of(options))
    read = read_input(
        named_texts(texts, pairs, art) if input is None else Path(input),
        art.manifest,
        scale=options["scale"],
        header=options["header"],
        time_column=options["time_column"],
        say=note,
        spell=flag,
    )
    result = art.run(
        read.feed,
        groups=array_of(options["groups"]),
        region=array_of(options["region"]),
        target=target_of(options["target"]),
        explain=not options["no_explain"],
        check_finite=options["check_finite"],
        time=read.time,
    )
    labels = labels_of(options)
    if read.feature_names is not None:
        labels.setdefault("feature_names", read.feature_names)
    labels["whole_words"] = options["whole_words"]
    labels |= {"forecast": forecast_of(options["forecast"]), "truth": array_of(options["truth"])}
    if options["tokens"]:
        labels["tokens"] = _tokens(options["tokens"])
    _check_class_names(labels.get("class_names"), art.manifest)
    files = _write_all(result, options, labels)
    if as_json:
        _show_json(result, files, labels)
    else:
        _show(f"{artefact} on {input or 'text'}", result, files, labels)


def _show_json(result: Result, files: list[str], labels: Mapping[str, Any]) -> None:
    """Prints all that came out as JSON."""
    classes = _chosen(result, labels)
    told = {
        "tokens": result.tokens,
        "words": words_by_output(result, labels["whole_words"]),
        "inputs": _of_inputs(result),
        "outputs": [_described(record) for record in result.values()],
        "predictions": {p.name: p.array.tolist() for p in result.predictions.values()},
        "classes": {
            name: [dataclasses.asdict(choice) for choice in chosen]
            for name, chosen in classes.items()
            if chosen
        },
        "written": files,
    }
    click.echo(json.dumps(told))


def _show(title: str, result: Result, files: list[str], labels: Mapping[str, Any]) -> None:
    """Prints a table of all that came out, what was predicted, and what was written."""
    rows = _rows([*_of_inputs(result), *(_described(record) for record in result.values())])
    show_table(title, ("name", "kind", "shape", "min", "max"), rows)
    classes = _chosen(result, labels)
    for name, chosen in classes.items():
        for row, choice in enumerate(chosen[:_MOST_CHOICES]):
            click.echo(f"{name}, row {row}: {choice}")
        if len(chosen) > _MOST_CHOICES:
            click.echo(f"{name}: {len(chosen) - _MOST_CHOICES} more rows; --json has them all")
    for record in result.predictions.values():
        if not classes[record.name]:
            _say_values(record)
    _say_completeness(result)
    say_words(result, labels["whole_words"])
    for path in files:
        click.echo(f"wrote {path}")


def _chosen(result: Result, labels: Mapping[str, Any]) -> dict[str, list[Choice]]:
    """Returns the classes that each prediction chose, a row each; none where it has no classes."""
    from probegen.runtime.classes import chosen_classes

    names = labels.get("class_names")
    return {r.name: chosen_classes(r, names) for r in result.predictions.values()}


def _of_inputs(result: Result) -> list[dict[str, Any]]:
    """Returns what is told of each input."""
    return [
        {"name": name, "kind": "input", **_figures(array)}
        for name, array in result.run.inputs.items()
    ]


def _say_values(record: Any) -> None:
    """Prints a prediction of one number a row, which has no class."""
    array = record.array
    if (
        array.ndim not in (1, 2)
        or array.shape[1:] not in ((), (1,))
        or array.dtype.kind not in "fiu"
    ):
        return
    probable = record.spec.detail.get("activation")
    for row, value in enumerate(array.reshape(-1)[:_MOST_CHOICES].tolist()):
        click.echo(f"{record.name}, row {row}: {'probability ' if probable else ''}{value:.4g}")
    if len(array) > _MOST_CHOICES:
        click.echo(f"{record.name}: {len(array) - _MOST_CHOICES} more rows; --json has them all")


def _say_completeness(result: Any) -> None:
    """Prints what is missing to completeness, where the artefact says it."""
    for record in result.values():
        if record.completeness is not None:
            for row in range(min(len(record.completeness.missing), _MOST_CHOICES)):
                click.echo(f"{record.name}, row {row}: {record.completeness.said(row)}")


def _tokens(path: str) -> Any:
    text = read_text(path)
    if Path(path).suffix.lower() != ".json":
        return [line.split() for line in text.splitlines() if line.strip()]
    try:
        tokens = json.loads(text)
        return {int(k): str(v) for k, v in tokens.items()} if isinstance(tokens, dict) else tokens
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds no tokens: {error}") from error


def _write_all(result: Any, options: dict[str, Any], labels: dict[str, Any]) -> list[str]:
    """Writes the files that were asked for; returns their paths."""
    written = []
    if options["plot"]:
        result.plot(options["plot"], sample=rows_of(options["sample"]), **labels)
        written.append(options["plot"])
    if options["html"]:
        result.to_html(options["html"], **labels)
        written.append(options["html"])
    if options["npz"]:
        result.to_npz(options["npz"])
        written.append(options["npz"])
    return written


def _check_class_names(names: Sequence[str] | None, manifest: Manifest) -> None:
    """Raises an InputError for class names that fit no prediction."""
    from probegen.artefact.manifest import class_axis, wrong_class_names

    sizes = [p.shape[class_axis(p.axes)] for p in manifest.predictions if len(p.shape) > 1]
    wrong = None if names is None else wrong_class_names(names, sizes)
    if wrong is not None:
        raise InputError(wrong)


def _described(record: Any) -> dict[str, Any]:
    """Returns what JSON says of a record."""
    return {
        "name": record.name,
        "kind": record.kind,
        "layer": record.layer,
        "axes": list(record.axes),
        **_figures(record.array),
    }


def _figures(array: Any) -> dict[str, Any]:
    numeric = bool(array.size) and array.dtype.kind in "biuf"
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "min": float(array.min()) if numeric else None,
        "max": float(array.max()) if numeric else None,
    }


def _rows(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            r["name"],
            r["kind"],
            "x".join(map(str, r["shape"])),
            *("" if r[key] is None else f"{r[key]:.4g}" for key in ("min", "max")),
        )
        for r in records
    ]
