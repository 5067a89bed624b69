"""`probegen web`: a static page that runs an artefact in the browser."""

from __future__ import annotations

import json
from typing import Any

import click

from probegen.cli.options import with_json, with_overwritten_folder
from probegen.cli.showing import start_for


@click.command()
@click.argument("artefact", type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    metavar="FOLDER",
    help="Where the page goes; with --single-file the name of the file.",
)
@click.option(
    "--onnxruntime-web",
    type=click.Path(),
    metavar="DIR",
    help="Folder of the npm package onnxruntime-web.  [default: npm fetches it]",
)
@click.option("--single-file", is_flag=True, help="Write one HTML file that holds all.")
@click.option("--title", help="Heading of the page.  [default: the model's name]")
@click.option(
    "--scale",
    type=float,
    help="What pixels of 0 to 255 are multiplied by, as of `probegen run`: 0.00392 for 0 to 1.",
)
@with_overwritten_folder
@with_json
def web(artefact: str, output: str, as_json: bool, overwrite: bool, **options: Any) -> None:
    """Write a page that runs ARTEFACT in the browser, and explains what it predicts.

    \b
    It takes pictures, drawings, texts, rows of tables and series, as ARTEFACT says.
    Nothing is fetched from elsewhere and nothing is sent anywhere. It runs behind any
    web server, and opened from the disk.
    """
    from probegen.web import Options, write

    start_for(artefact)
    written = write(artefact, output, Options(**options), overwrite=overwrite)
    if as_json:
        names = [str(path) for path in written.files]
        click.echo(json.dumps({"written": names, "notes": list(written.notes)}))
        return
    for note in written.notes:
        click.echo(note, err=True)
    click.echo(f"wrote {written.files[0]}")
