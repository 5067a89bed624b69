"""`python -m runs_where`: compiles, runs everywhere, prints and writes the table."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from runs_where.cases import write_cases
from runs_where.page import advice_on, page
from runs_where.places import PLACES
from runs_where.running import Outcome, run
from runs_where.subjects import SUBJECTS


@click.command()
@click.argument("names", nargs=-1)
@click.option("--subject", "chosen", multiple=True, type=click.Choice(list(SUBJECTS)))
@click.option("--page", "place_of_page", type=click.Path(), help="Write the table to a file.")
def main(names: tuple[str, ...], chosen: tuple[str, ...], place_of_page: str | None) -> None:
    """Run the artefacts in all places, or in those whose name holds one of NAMES.

    Ends with status 1 where numbers differ in a way that the page has no advice on.
    """
    places = [p for p in PLACES if not names or any(n.lower() in p.name.lower() for n in names)]
    outcomes: dict[tuple[str, str, str], Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        click.echo("compiling", err=True)
        cases = write_cases(Path(folder), chosen or tuple(SUBJECTS))
        for place in places:
            for case in (c for c in cases if c.form in place.forms):
                outcome = run(case, place)
                outcomes[place.name, case.subject, case.form] = outcome
                click.echo(f"{place.name} | {case.subject} | {case.form} | {outcome}", err=True)
    text = page(places, list(dict.fromkeys(c.subject for c in cases)), outcomes)
    click.echo(text)
    if place_of_page:
        Path(place_of_page).write_text(text, encoding="utf-8")
    differing = [o for o in outcomes.values() if o.words and o.distance is not None]
    if any(not advice_on(outcome.words) for outcome in differing):
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main(prog_name="python -m runs_where")
