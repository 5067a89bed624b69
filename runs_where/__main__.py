"""`python -m runs_where`: compiles, runs everywhere, prints and writes the table."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from runs_where.case import Case, keep, kept
from runs_where.page import advice_on, page
from runs_where.places import PLACES, Place
from runs_where.running import Outcome, run


@click.command()
@click.argument("names", nargs=-1)
@click.option("--subject", "chosen", multiple=True, help="One of the artefacts, by name.")
@click.option("--keep", "kept_at", type=click.Path(path_type=Path), help="Only write the cases.")
@click.option(
    "--cases",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Run the cases that --keep wrote, on a machine that needs no Keras.",
)
@click.option("--page", "place_of_page", type=click.Path(), help="Write the table to a file.")
def main(
    names: tuple[str, ...],
    chosen: tuple[str, ...],
    kept_at: Path | None,
    folder: Path | None,
    place_of_page: str | None,
) -> None:
    """Run the artefacts in all places, or in those whose name holds one of NAMES.

    Places that need a machine of another kind run where their name is asked for: write the cases
    here with --keep FOLDER, carry the folder and this checkout there, and run --cases FOLDER cuda.

    Ends with status 1 where numbers differ in a way that the page has no advice on.
    """
    places = [place for place in PLACES if asked_for(place, names)]
    check_programs(places)
    outcomes: dict[tuple[str, str, str], Outcome] = {}
    with _cases(folder, chosen) as cases:
        if kept_at is not None:
            keep(cases, kept_at)
            return
        for place in places:
            for case in (c for c in cases if c.form in place.forms):
                outcome = run(case, place)
                outcomes[place.name, case.subject, case.form] = outcome
                click.echo(f"{place.name} | {case.subject} | {case.form} | {outcome}", err=True)
    command = " ".join(["python -m runs_where", *names]) if names else "make runs-where"
    text = page(places, list(dict.fromkeys(c.subject for c in cases)), outcomes, command)
    click.echo(text)
    if place_of_page:
        Path(place_of_page).write_text(text, encoding="utf-8")
    by_name = {place.name: place for place in places}
    for (name, _, _), outcome in outcomes.items():
        differs = outcome.distance is not None and not outcome.equal
        if differs and not advice_on(by_name[name], outcome):
            raise click.exceptions.Exit(1)


def asked_for(place: Place, names: Sequence[str]) -> bool:
    """Tells whether a place runs, given the names of the command line."""
    if not names:
        return not place.elsewhere
    return any(name.lower() in place.name.lower() for name in names)


def check_programs(places: Sequence[Place]) -> None:
    """Refuses places that lack a program, which the table would call a refusal of theirs.

    Raises:
        click.ClickException: one is not installed.
    """
    for place in places:
        for program in place.programs:
            if shutil.which(program) is None:
                raise click.ClickException(
                    f"{place.name!r} needs {program}, which is not there. Install it (Debian: "
                    "nodejs, npm, chromium), say where Chromium is by CHROMIUM=PATH, or name the "
                    "places to run."
                )


@contextmanager
def _cases(folder: Path | None, chosen: Sequence[str]) -> Iterator[list[Case]]:
    """Gives the cases of a folder, or compiles them."""
    if folder is not None:
        yield [case for case in kept(folder.resolve()) if not chosen or case.subject in chosen]
        return
    from runs_where.cases import write_cases
    from runs_where.subjects import SUBJECTS

    for name in chosen:
        if name not in SUBJECTS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(SUBJECTS)}.")
    with tempfile.TemporaryDirectory() as made:
        click.echo("compiling", err=True)
        yield write_cases(Path(made), chosen or tuple(SUBJECTS))


if __name__ == "__main__":
    main(prog_name="python -m runs_where")
