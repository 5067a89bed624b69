"""`probegen drift`: whether attributions are distributed as they were over a reference."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from probegen.cli.showing import note, show_table, start_for
from probegen.errors import InputError

if TYPE_CHECKING:
    from probegen.runtime.drift import Running
    from probegen.runtime.inputs import Array

#: Units that are shown of each output.
_SHOWN = 10


@click.command()
@click.argument("artefact", type=click.Path())
@click.argument("results", nargs=-1, required=True, type=click.Path())
@click.option("--fail", is_flag=True, help="End with status 1 where something has moved.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every unit.")
def drift(artefact: str, results: tuple[str, ...], fail: bool, as_json: bool) -> None:
    """Compare the attributions in RESULTS with the reference of ARTEFACT.

    ARTEFACT was compiled with --reference, RESULTS are .npz files that `probegen run --npz` wrote,
    or folders that `probegen run --out` wrote (.parquet, .zarr), which are read in parts.
    Of explanations of a class that a request may say (target="input"), samples are left out for
    which it said another than the one that the model chose.

    PSI is the population stability index (0.1 is a moderate, 0.25 a large shift), JS the
    Jensen-Shannon distance. Where nothing has moved, one report in a hundred says that something
    has.
    """
    from probegen import bulk, runtime
    from probegen.runtime.drift import FEWEST, Running, chosen_by_the_model

    start_for(artefact)
    running = Running(runtime.load(artefact).manifest, window=None)
    of_the_request = 0
    for path in results:
        if bulk.holds_records(path):
            records = bulk.Results(path)
            if not records.finished:
                note(f"{path}: the run that wrote it has not finished; what is there is compared.")
            for arrays, target, count in records.arrays(running.outputs):
                chosen = chosen_by_the_model(target, count)
                of_the_request += _left_out(running, arrays, chosen)
                running.observe(arrays, chosen)
            continue
        result = runtime.read_npz(path)
        arrays = {name: record.array for name, record in result.items()}
        chosen = chosen_by_the_model(result.run.target, result.run.rows)
        of_the_request += _left_out(running, arrays, chosen)
        running.observe(arrays, chosen)
    found = running.drift()
    if not found:
        raise InputError(_nothing(running.outputs, of_the_request))
    if of_the_request:
        note(
            f"{of_the_request} samples were explained for a class of the request's and not the one "
            f"that the model chose: they do not count for {', '.join(sorted(running.of_requests))}."
        )
    moved = any(output.moved for output in found)
    if as_json:
        click.echo(json.dumps({"moved": moved, "outputs": [_told(output) for output in found]}))
    else:
        for output in found:
            rows = [
                (unit.name, f"{unit.psi:.3f}", f"{unit.js:.3f}", f"{unit.limit:.3f}")
                for unit in output.moved[:_SHOWN]
            ]
            more = len(output.moved) - len(rows)
            title = f"{output.output}, {output.samples} samples: {len(output.moved)} moved"
            if rows:
                title += f", {more} of them not shown" if more else ""
                show_table(title, ("moved", "PSI", "JS", "limit of PSI"), rows)
            else:
                few = f" (fewer than {FEWEST} samples say nothing)"
                few = few if output.samples < FEWEST else ""
                click.echo(f"{title}, the largest PSI is {output.psi:.3f}{few}")
    if fail and moved:
        raise SystemExit(1)


def _left_out(running: Running, arrays: Mapping[str, Array], chosen: Array) -> int:
    """Returns how many samples do not count, since a request said what is explained of them."""
    return int((~chosen).sum()) if set(arrays) & running.of_requests else 0


def _nothing(wanted: list[str], of_the_request: int) -> str:
    """Returns why nothing could be compared; a monitor must not take that for no drift."""
    if of_the_request:
        return (
            f"nothing can be compared: all {of_the_request} samples were explained for a class of "
            "the request's, and the reference is of the class that the model chose. Run them "
            "without --target."
        )
    return (
        f"the results hold no attribution of the reference ({', '.join(wanted)}): they are of "
        "another artefact, of a run with --no-explain, or of other outputs."
    )


def _told(output: Any) -> dict[str, Any]:
    units = [{**dataclasses.asdict(unit), "moved": unit in output.moved} for unit in output.units]
    about = {"output": output.output, "samples": output.samples, "psi": output.psi, "js": output.js}
    return {**about, "units": units}
