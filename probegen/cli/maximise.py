"""`probegen maximise`: an input that makes a score of an artefact large."""

from __future__ import annotations

import json
from typing import Any

import click

from probegen.cli.options import engine_of, with_engine, with_json
from probegen.cli.reading import labels_of, sizes_of, target_of


@click.command()
@click.argument("artefact", type=click.Path())
@click.option("--target", metavar="T", help="Class whose score is meant: an index or a name.")
@click.option("--output", metavar="NAME", help="Gradient to follow, where there are several.")
@click.option("--steps", type=int, default=128, show_default=True, help="Steps of the ascent.")
@click.option("--rate", type=float, default=0.05, show_default=True, help="Length of a step.")
@click.option(
    "--bounds", nargs=2, type=float, metavar="LOW HIGH", help="Smallest and largest value, as 0 1."
)
@click.option(
    "--basis",
    type=click.Choice(["frequency", "element"]),
    help="What the input is written in.  [default: frequency, where it has positions]",
)
@click.option("--jitter", type=int, help="Positions to shift by before each step.")
@click.option("--total-variation", type=float, default=0.0, help="Cost of changes of neighbours.")
@click.option("--l2", type=float, default=0.0, help="Cost of squares.")
@click.option("--size", "sizes", multiple=True, metavar="AXIS=N", help="Size of an open axis.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the start and shifts.")
@with_engine
@click.option("--class-names", metavar="A,B,...|FILE", help="Names of the classes in the picture.")
@click.option("--feature-names", metavar="A,B,...|FILE", help="Names of features in the picture.")
@click.option("--npy", type=click.Path(dir_okay=False), help="Write the input found.")
@click.option("-o", "--plot", type=click.Path(dir_okay=False), help="Draw it (.png, .pdf, .svg).")
@with_json
def maximise(artefact: str, as_json: bool, **options: Any) -> None:
    """Look for an input that makes a score of ARTEFACT large, along its own gradient.

    ARTEFACT is compiled with --input-gradient --target input, or with a fixed class. Needs no
    TensorFlow for ONNX.
    """
    import numpy as np

    from probegen import runtime
    from probegen.runtime.files import write_atomic

    art = runtime.load(artefact, **engine_of(options))
    found = runtime.maximise(
        art,
        options["output"],
        target=target_of(options["target"]),
        sizes=sizes_of(options["sizes"]),
        **{
            name: options[name]
            for name in (
                "steps", "rate", "bounds", "basis", "jitter", "total_variation", "l2", "seed"
            )
        },
    )  # fmt: skip
    written = []
    if options["npy"]:
        write_atomic(options["npy"], lambda file: np.save(file, found.input))
        written.append(options["npy"])
    if options["plot"]:
        found.plot(options["plot"], **labels_of(options))
        written.append(options["plot"])
    history = None if found.history is None else found.history[:, 0].tolist()
    low, high = float(found.input.min()), float(found.input.max())
    if as_json:
        told = {"gradient": found.output, "shape": list(found.input.shape), "min": low, "max": high}
        click.echo(json.dumps({**told, "history": history, "written": written}))
        return
    shape = "x".join(map(str, found.input.shape))
    click.echo(f"followed {found.output}: {shape}, {low:.4g} to {high:.4g}")
    if history is not None:
        click.echo(f"score {history[0]:.4g} at first, {history[-1]:.4g} at last")
    for path in written:
        click.echo(f"wrote {path}")
