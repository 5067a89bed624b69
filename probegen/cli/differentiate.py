"""`probegen differentiate`: the gradient of a model as a graph of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from probegen.cli.options import (
    axes_of,
    with_axes,
    with_imports,
    with_json,
    with_onnx_output,
    with_overwritten_data,
)
from probegen.cli.reading import samples_of, with_verification
from probegen.cli.showing import progress, show_table


@click.command()
@click.argument("model", type=click.Path())
@with_onnx_output
@click.option(
    "--of",
    multiple=True,
    metavar="NAME",
    help="An output; or logits, the scores before a last softmax or sigmoid.  [default: logits]",
)
@click.option(
    "--wrt",
    multiple=True,
    metavar="NAME",
    help="An input, a layer or node; in ONNX models also a tensor or weight by its name.  "
    "[default: all floating inputs]",
)
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX operator set.")
@with_verification
@with_overwritten_data
@with_json
@with_axes
@with_imports
def differentiate(
    model: str, output: str, as_json: bool, modules: tuple[str, ...], **options: Any
) -> None:
    """Write the vector-Jacobian product of MODEL (.onnx, .keras, .h5, .hdf5) as a graph.

    OUT takes the inputs of MODEL and cotangent/NAME for each NAME in --of, and gives the outputs
    of MODEL and gradient/NAME for each NAME in --wrt.
    """
    with progress("reading the model", modules, model):
        from probegen.differentiation import differentiate as differentiate_model

        written = differentiate_model(
            model,
            output,
            list(options["of"]) or "logits",
            list(options["wrt"]) or "input",
            inputs=axes_of(options["axes"], model),
            opset=options["opset"],
            verify=options["verify"],
            samples=samples_of(options["samples"]),
            overwrite=options["overwrite"],
        )
    if as_json:
        plain = dataclasses.asdict(written)
        click.echo(json.dumps({**plain, "path": str(written.path)}))
        return
    rows = [(n, "input", ", ".join(map(str, s)), "") for n, s in written.cotangents.items()]
    rows += [
        (name, "output", ", ".join(map(str, sizes)), written.verified.get(name, ""))
        for name, sizes in written.gradients.items()
    ]
    show_table(str(Path(output)), ("name", "kind", "shape", "by differences"), rows)
