"""`probegen verify`: an artefact against the model it was made from, or against itself."""

from __future__ import annotations

import json
from pathlib import Path

import click

from probegen.cli.reading import load_arrays
from probegen.cli.showing import progress, show_table, start_for, with_imports
from probegen.errors import SpecError


@click.command()
@click.argument("artefact", type=click.Path())
@click.option("--against", type=click.Path(), metavar="MODEL", help="Its source.")
@click.option(
    "--samples",
    type=click.Path(exists=True, dir_okay=False),
    help="Inputs (.npy, .npz; of text .txt, one a line).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_imports
def verify(
    artefact: str,
    against: str | None,
    samples: str | None,
    as_json: bool,
    modules: tuple[str, ...],
) -> None:
    """Compare ARTEFACT (ONNX file or SavedModel) with the model it was made from.

    Ends with status 1 where an output differs by more than its limit.

    Without --against: compare its contents with the digests that it was written with, which finds
    a bit that flipped in a weight; and open it, which checks its manifest and graph.
    """
    if against is None:
        if samples is not None or modules:
            raise SpecError("--samples and --import go with --against MODEL, which is not given.")
        _check_contents(artefact, as_json)
        return
    with progress("comparing", modules, against):
        from probegen.parity import REPORT_COLUMNS, measure, require_agreement

        report = measure(artefact, against, load_arrays(samples) if samples else None)
    if as_json:
        click.echo(json.dumps({"artefact": artefact, **report.to_json()}))
    else:
        made = "generated " if report.generated else ""
        title = f"{artefact} against {report.against} on {report.samples} {made}samples"
        show_table(title, REPORT_COLUMNS, report.rows())
    require_agreement(report)


def _check_contents(artefact: str, as_json: bool) -> None:
    from probegen import runtime
    from probegen.artefact import integrity

    start_for(artefact)
    runtime.load(artefact, check=True)
    digest = integrity.sealed(Path(artefact))
    if as_json:
        click.echo(json.dumps({"artefact": artefact, "sha256": digest, "passed": True}))
    else:
        click.echo(f"{artefact} is as probegen wrote it: SHA-256 {digest}")
