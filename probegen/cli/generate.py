"""`probegen generate`: an artefact continues texts, each new token with its attribution row."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from probegen.cli.options import engine_of, with_engine, with_json
from probegen.cli.showing import start_for
from probegen.cli.texts import said_words
from probegen.errors import SpecError


@click.command()
@click.argument("artefact", type=click.Path())
@click.option(
    "--text", "texts", multiple=True, metavar="TEXT", help="A prompt; several are several."
)
@click.option(
    "--ids", multiple=True, metavar="N,N,...", help="A prompt as ids, in the place of --text."
)
@click.option("--steps", type=int, default=20, show_default=True, help="New tokens of each prompt.")
@click.option(
    "--temperature", type=float, default=0.0, show_default=True,
    help="What scores are divided by before a token is drawn; 0 takes the likeliest.",
)  # fmt: skip
@click.option("--top-k", type=int, help="Draw among the K likeliest tokens alone.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@click.option("--stop", multiple=True, type=int, metavar="ID", help="Stop before this id.")
@click.option("--prediction", metavar="NAME", help="The prediction, where there are several.")
@click.option(
    "--output", metavar="NAME", help="Attribution or attention weights to show; all if left out."
)
@click.option(
    "--padding", type=click.Choice(["left", "right"]),
    help="Where models of a fixed length were padded in training.",
)  # fmt: skip
@with_engine
@click.option("--html", type=click.Path(dir_okay=False), help="Write a page with all rows.")
@click.option(
    "-o", "--plot", type=click.Path(dir_okay=False),
    help="Draw the rows of the first prompt (.png, .pdf, .svg).",
)  # fmt: skip
@click.option(
    "--whole-words", is_flag=True,
    help="Join pieces of words into words, in pictures and where they are printed: signed numbers "
    "and attention are summed up.",
)  # fmt: skip
@with_json
def generate(
    artefact: str, texts: tuple[str, ...], ids: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Continue prompts with ARTEFACT, and show what each new token was made of.

    ARTEFACT predicts the next token, and is compiled with a target that is the token which is
    chosen, such as --gradient-x-input --per-token dot --target input --region. Needs no TensorFlow
    for ONNX.
    """
    from probegen import runtime
    from probegen.runtime import generated_report

    if bool(texts) == bool(ids):
        raise SpecError(
            "give either --text or --ids, for instance probegen generate m.onnx --text 'a cat'."
        )
    start_for(artefact)
    art = runtime.load(artefact, **engine_of(options))
    made = runtime.generate(
        art,
        list(texts) if texts else [_numbers(row) for row in ids],
        options["steps"],
        output=options["prediction"],
        stop=options["stop"],
        temperature=options["temperature"],
        top_k=options["top_k"],
        seed=options["seed"],
        padding=options["padding"],
    )
    shown = [options["output"]] if options["output"] else _names(made[0])
    for name in shown:
        made[0].rows_of(name)  # says so where there is none
    whole, files = options["whole_words"], []
    if options["plot"]:
        made[0].plot(options["plot"], options["output"], whole)
        files.append(options["plot"])
    if options["html"]:
        generated_report.write(made, options["html"], shown, whole)
        files.append(options["html"])
    if as_json:
        told = [_described(text, shown, whole) for text in made]
        click.echo(json.dumps({"texts": told, "written": files}))
        return
    for number, text in enumerate(made):
        click.echo(f"prompt {number}: {text.text or ' '.join(text.new_tokens)}")
        for step, (token, score) in enumerate(zip(text.new_tokens, text.scores, strict=True)):
            click.echo(f"{step:4d}  {token!r}  {score:.4g}")
            for name in shown:
                click.echo(f"      {name}: {said_words(text.words(step, name, whole))}")
    for path in files:
        click.echo(f"wrote {path}")


def _names(text: Any) -> list[str]:
    return [*(text.rows or text.attention)]


def _numbers(given: str) -> list[int]:
    """Returns ids that are written with commas.

    Raises:
        SpecError: they are none.
    """
    try:
        return [int(entry) for entry in given.split(",")]
    except ValueError as error:
        raise SpecError(f"--ids takes whole numbers such as 5,3,8, got {given!r}.") from error


def _described(text: Any, shown: list[str], whole: bool) -> dict[str, Any]:
    told = {
        "prompt": text.prompt,
        "ids": text.ids,
        "tokens": text.tokens,
        "text": text.text,
        "scores": text.scores,
        "rows": {
            name: [[_number(v) for _, v in text.words(step, name)] for step in range(len(text.ids))]
            for name in shown
        },
    }
    if whole:
        told["words"] = {
            name: [
                [[word, _number(value)] for word, value in text.words(step, name, True)]
                for step in range(len(text.ids))
            ]
            for name in shown
        }
    return told


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
