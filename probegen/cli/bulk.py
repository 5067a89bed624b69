"""The options of `probegen run` for bulk runs, and what they do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from probegen.cli.options import engine_of
from probegen.cli.reading import array_of, target_of
from probegen.cli.showing import counting, flag, note, start_for
from probegen.errors import InputError

#: Options that a bulk run alone takes, and what they are when they are not given.
_OWN: Mapping[str, Any] = {
    "outputs": (),
    "batch_size": None,
    "rows_a_part": None,
    "on_error": None,
    "dtype": None,
    "overwrite": False,
    "ray": None,
    "ray_threads": 1,
}
#: Options that a bulk run does not take.
_OTHERS = (
    "plot",
    "html",
    "npz",
    "sample",
    "whole_words",
    "class_names",
    "feature_names",
    "tokens",
    "forecast",
    "truth",
)


def with_bulk(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options of bulk runs."""
    for option in reversed(
        (
            click.option(
                "-o",
                "--out",
                metavar="FOLDER",
                type=click.Path(),
                help="Bulk: write a record a sample into FOLDER, whose name ends in .parquet or "
                ".zarr.",
            ),
            click.option(
                "--output",
                "outputs",
                multiple=True,
                metavar="NAME",
                help="Bulk: write this output; may be repeated.  [default: all]",
            ),
            click.option(
                "--batch-size", type=int, metavar="N", help="Bulk: run N at a time.  [default: 32]"
            ),
            click.option(
                "--part-rows",
                "rows_a_part",
                type=int,
                metavar="N",
                help="Bulk: write N records whole or not at all.  [default: 128 MB of outputs]",
            ),
            click.option(
                "--on-error",
                type=click.Choice(["record", "stop"]),
                help="Bulk: what to do with a sample that cannot be read: write why into its "
                "record, or stop.  [default: record]",
            ),
            click.option(
                "--dtype", metavar="TYPE", help="Bulk: type of the values of a raw memory map."
            ),
            click.option(
                "--overwrite", is_flag=True, help="Bulk: begin anew where FOLDER holds records."
            ),
            click.option(
                "--ray",
                metavar="ADDRESS",
                help="Bulk: run on the Ray cluster at host:6379, on that of this machine (auto), "
                "or on workers of this machine alone (local). Its machines share ARTEFACT, INPUT "
                "and FOLDER.",
            ),
            click.option(
                "--ray-threads",
                type=int,
                default=1,
                show_default=True,
                metavar="N",
                help="Bulk: threads of each worker on Ray.",
            ),
        )
    ):
        command = option(command)
    return command


def check_no_bulk(options: Mapping[str, Any]) -> None:
    """Refuses options of bulk runs where there is no `--out`.

    Raises:
        InputError: one was given.
    """
    given = [name for name, default in _OWN.items() if options[name] != default]
    if given:
        raise InputError(f"{_spelled(given[0])} is for bulk runs: give --out as well.")


def run_bulk(
    artefact: str,
    source: str | None,
    texts: Sequence[str],
    as_json: bool,
    options: Mapping[str, Any],
) -> None:
    """Runs an artefact on all samples of an input and writes their records.

    Raises:
        InputError: an option does not go with `--out`; else as `probegen.bulk.run`.
    """
    from probegen import bulk, runtime

    if source is None or texts:
        raise InputError(
            "--out takes the path of an INPUT, which may be a file with a text a line."
        )
    context = click.get_current_context()
    for name in _OTHERS:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise InputError(f"{_spelled(name)} does not go with --out.")
    start_for(artefact)
    art = runtime.load(artefact, check=options["check"] or None, **engine_of(options))
    asked = bulk.Asked(
        target=target_of(options["target"]),
        explain=not options["no_explain"],
        check_finite=options["check_finite"],
        scale=options["scale"],
        groups=array_of(options["groups"]),
        region=array_of(options["region"]),
        outputs=options["outputs"] or None,
    )
    with counting("samples") as count:
        done = bulk.run(
            art,
            Path(source),
            options["out"],
            asked=asked,
            batch_size=options["batch_size"],
            rows_a_part=options["rows_a_part"],
            on_error=options["on_error"] or bulk.RECORD,
            dtype=options["dtype"],
            header=options["header"],
            time_column=options["time_column"],
            overwrite=options["overwrite"],
            progress=count,
            say=note,
            spell=flag,
            ray=options["ray"],
            ray_threads=options["ray_threads"],
        )
    if as_json:
        told = {"samples": done.samples, "before": done.before, "failed": done.failed}
        click.echo(json.dumps({**told, "written": [options["out"]]}))
    else:
        before = f", {done.before} of them before" if done.before else ""
        click.echo(f"wrote {options['out']}: {done.samples} records{before}")
    if done.first_error is not None:
        name, why = done.first_error
        note(
            f"probegen: warning: {done.failed} of {done.samples} samples have no outputs, and the "
            f"reason in their record; the first is {name}: {why}"
        )
    if done.failed == done.samples:
        raise SystemExit(1)


def _spelled(name: str) -> str:
    names = {"outputs": "output", "rows_a_part": "part-rows"}
    return "--" + names.get(name, name).replace("_", "-")
