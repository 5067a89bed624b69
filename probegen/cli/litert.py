"""`probegen litert`: a signature of a SavedModel artefact as a file for LiteRT."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from probegen.cli.options import with_json
from probegen.cli.reading import samples_of, sizes_of
from probegen.cli.showing import show_table, start_for


@click.command()
@click.argument("artefact", type=click.Path())
@click.option(
    "-o", "--output", required=True, type=click.Path(), metavar="OUT", help="NAME.tflite."
)
@click.option("--signature", default="explain", show_default=True, help="Or serving_default.")
@click.option(
    "--samples", type=click.Path(exists=True, dir_okay=False), help="Inputs to compare on (.npy)."
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="AXIS=N",
    help="A size for an open axis, such as time=20, which OUT takes alone; for recurrent layers.",
)
@with_json
def litert(
    artefact: str,
    output: str,
    signature: str,
    samples: str | None,
    sizes: Sequence[str],
    as_json: bool,
) -> None:
    """Convert ARTEFACT (a SavedModel that probegen wrote) to a file that LiteRT runs.

    OUT is compared with ARTEFACT, has built-in operators alone, and keeps the names.
    """
    start_for(artefact)
    from probegen.litert import to_litert

    off = to_litert(artefact, output, signature, samples=samples_of(samples), sizes=sizes_of(sizes))
    if as_json:
        click.echo(json.dumps({"path": output, "distances": off}))
        return
    rows = [(name, f"{distance:.1e}") for name, distance in off.items()]
    show_table(f"{output} against {artefact}", ("output", "worst |a - b| / |b|"), rows)
