"""`probegen serve-config`: what other servers need to serve an artefact."""

from __future__ import annotations

import json
from typing import Any

import click

from probegen.cli.options import with_json, with_max_batch, with_model_name, with_overwritten_folder
from probegen.cli.reading import sizes_of
from probegen.cli.showing import start_for

_SERVERS = ("triton", "kserve", "docker", "tensorflow-serving")


@click.command("serve-config")
@click.argument("server", type=click.Choice(_SERVERS))
@click.argument("artefact", type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    metavar="FOLDER",
    help="Where it goes; files of ARTEFACT are linked or copied into it.",
)
@with_model_name
@with_max_batch
@click.option(
    "--image",
    default="probegen-serve:latest",
    show_default=True,
    help="Name of the container's image.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Where the container listens.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="AXIS=N",
    help="Size of an open axis in warm-up requests.",
)
@with_overwritten_folder
@with_json
def serve_config(server: str, artefact: str, output: str, as_json: bool, **options: Any) -> None:
    """Write what SERVER needs to serve ARTEFACT into a folder.

    \b
    triton              a model repository, with config.pbtxt; two models for --gate split
    kserve              an InferenceService in YAML, which runs the image of docker
    docker              a Dockerfile that runs `probegen serve`, and what it copies
    tensorflow-serving  versions of a SavedModel, warm-up requests, models.config
    """
    from probegen.serve.config import Options, write

    start_for(artefact)
    chosen = Options(
        options["name"],
        options["max_batch"],
        options["image"],
        options["port"],
        sizes_of(options["sizes"]) or {},
    )
    written = write(server, artefact, output, chosen, overwrite=options["overwrite"])
    if as_json:
        click.echo(json.dumps({"server": server, "written": [str(path) for path in written]}))
        return
    for path in written:
        click.echo(f"wrote {path}")
