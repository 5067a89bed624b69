"""`probegen quantise`: an artefact with smaller weights, verified against the one before."""

from __future__ import annotations

import json

import click

from probegen.cli.options import with_json, with_onnx_output, with_overwritten_data
from probegen.cli.reading import samples_of
from probegen.cli.showing import progress, show_table


@click.command()
@click.argument("artefact", type=click.Path())
@with_onnx_output
@click.option(
    "--to",
    metavar="float16|int8|int8-static",
    default="float16",
    show_default=True,
    help="float16: stored so, computed in float32. int8: products of the prediction, activations "
    "by the range of each run. int8-static: activations by the ranges in --samples.",
)
@click.option(
    "--samples",
    type=click.Path(exists=True, dir_okay=False),
    help="Inputs to verify on and to take ranges from (.npy, .npz; of text .txt, one a line).",
)
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    help="The most that an explanation may be off in the median sample, |a - b| / |b|; a "
    "prediction a fifth of it.  [default: 0.05 for float16, 0.5 for int8]",
)
@click.option(
    "--worst",
    type=click.FloatRange(min=0, min_open=True),
    help="The most that an explanation may be off in any sample whose class stayed; a prediction a "
    "fifth of it.  [default: 0.5 for float16, 1 for int8: as far as zeros would be]",
)
@with_overwritten_data
@with_json
def quantise(
    artefact: str,
    output: str,
    to: str,
    samples: str | None,
    limit: float | None,
    worst: float | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write ARTEFACT (an ONNX file that probegen wrote) with smaller weights.

    OUT is compared with ARTEFACT, and its certificate tells how far it is off.
    """
    with progress(f"quantising to {to}", (), artefact):
        from probegen.parity import REPORT_COLUMNS
        from probegen.quantisation import quantise as quantise_artefact

        made = quantise_artefact(
            artefact,
            output,
            to,
            samples=samples_of(samples),
            limit=limit,
            worst=worst,
            overwrite=overwrite,
        )
    small, large = made.bytes
    if as_json:
        sizes = {"path": str(made.path), "bytes": small, "bytes_before": large}
        click.echo(json.dumps({**sizes, "verification": made.report.to_json()}))
        return
    show_table(f"against {made.report.against}", REPORT_COLUMNS, made.report.rows())
    click.echo(f"{made.path}  {small / 1e6:.2f} MB, before {large / 1e6:.2f} MB")
