"""`probegen verify`: an artefact against the model it was made from, or against itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from probegen.cli.options import engine_of, with_engine, with_imports, with_json
from probegen.cli.reading import load_arrays
from probegen.cli.showing import progress, show_table, start_for
from probegen.errors import SpecError


@click.command()
@click.argument("artefact", type=click.Path())
@click.option("--against", type=click.Path(), metavar="MODEL", help="Its source.")
@click.option(
    "--samples",
    type=click.Path(exists=True, dir_okay=False),
    help="Inputs (.npy, .npz; of text .txt, one a line).",
)
@with_engine
@click.option(
    "--answers-only",
    is_flag=True,
    help="Without --against: leave the digests out, where another program wrote ARTEFACT anew.",
)
@with_json
@with_imports
def verify(
    artefact: str,
    against: str | None,
    samples: str | None,
    answers_only: bool,
    as_json: bool,
    modules: tuple[str, ...],
    **options: Any,
) -> None:
    """Compare ARTEFACT (ONNX file or SavedModel) with the model it was made from, or with itself.

    Ends with status 1 where an output differs by more than its limit.

    Without --against: compare its contents with the digests that it was written with, which finds
    a bit that flipped in a weight; and ask the requests that it keeps again, whose answers another
    engine, another machine or changed weights would give otherwise.
    """
    if against is None:
        if samples is not None or modules:
            raise SpecError("--samples and --import go with --against MODEL, which is not given.")
        _ask_again(artefact, engine_of(options), answers_only, as_json)
        return
    if answers_only or any(engine_of(options).values()):
        raise SpecError("--engine, --device and --answers-only do not go with --against MODEL.")
    with progress("comparing", modules, against):
        from probegen.parity import REPORT_COLUMNS, measure, require_agreement

        report = measure(artefact, against, load_arrays(samples) if samples else None)
    if as_json:
        click.echo(json.dumps({"artefact": artefact, **report.to_json()}))
    else:
        show_table(report.title(), REPORT_COLUMNS, report.rows())
    require_agreement(report)


def _ask_again(artefact: str, engine: Mapping[str, Any], answers_only: bool, as_json: bool) -> None:
    """Compares an artefact with what it was when it was verified.

    Raises:
        ArtefactError: its contents are others, or it keeps no answers and these alone were asked.
        VerificationError: an answer is another one.
    """
    from probegen.errors import ArtefactError
    from probegen.runtime import verification

    start_for(artefact)
    report = verification.reproduce(artefact, **engine, digests=not answers_only)
    if answers_only and not report.requests:
        raise ArtefactError(f"{artefact} keeps no answers: {report.why}.")
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        if report.digest is not None:
            click.echo(f"{artefact} is as probegen wrote it: SHA-256 {report.digest}")
        if report.requests:
            show_table(report.title(), verification.COLUMNS, report.rows())
        elif report.answered_by:
            click.echo(f"it keeps no answers: {report.why}", err=True)
    verification.require_same(report)
