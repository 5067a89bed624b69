"""What commands do with texts: `--text`, and the words that come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from probegen.errors import InputError, SpecError

#: Rows of a batch whose words are printed, and the most words of one.
_MOST_ROWS, _MOST_WORDS = 10, 60

Words = list[list[tuple[str, float]]]


def with_texts(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options `--text` and `--text-pair`."""
    command = click.option(
        "--text-pair",
        "pairs",
        multiple=True,
        metavar="TEXT",
        help="The second text of a pair (a question and its text), where the model takes pairs: "
        "one for each --text, in their order.",
    )(command)
    return click.option(
        "--text",
        "texts",
        multiple=True,
        metavar="TEXT",
        help="A text in the place of INPUT; several are several samples. Where the model takes "
        "texts of several names: NAME=TEXT.",
    )(command)


def check_given(given: str | None, texts: Sequence[str], pairs: Sequence[str]) -> None:
    """Raises a SpecError unless either a file or texts were given, and no or as many pairs."""
    if (given is None) == (not texts):
        raise SpecError(
            "give either an INPUT or --text, for instance probegen run m.onnx --text 'a sentence'."
        )
    if pairs and len(pairs) != len(texts):
        raise SpecError(
            f"there are {len(pairs)} --text-pair and {len(texts)} --text; give one for each, for "
            "instance --text 'a question' --text-pair 'its text'."
        )


def named_texts(texts: Sequence[str], pairs: Sequence[str], art: Any) -> Any:
    """Returns what `--text` gives, by name where the artefact takes texts of several names.

    Args:
        texts: the texts.
        pairs: the second text of each, or none.
        art: the artefact.

    Raises:
        InputError: a name is missing or unknown, or the artefact takes no pairs.
    """
    from probegen.runtime.texts import takes_pairs

    names = art.texts.names
    if pairs and not any(map(takes_pairs, art.texts.tokenizers)):
        raise InputError(
            "--text-pair: the artefact takes single texts, no pairs; give --text alone."
        )
    if len(names) < 2:
        return list(zip(texts, pairs, strict=True)) if pairs else list(texts)
    if pairs:
        raise InputError(
            f"--text-pair: the artefact takes texts of several names ({', '.join(names)}); pairs "
            "of these go through art.run in Python."
        )
    found: dict[str, list[str]] = {name: [] for name in names}
    for given in texts:
        name, divider, text = given.partition("=")
        if not divider or name not in found:
            raise InputError(
                f"--text {given!r}: the artefact takes several texts, so say which one it is: "
                + " or ".join(f"--text '{n}=...'" for n in names)
            )
        found[name].append(text)
    return found


def _words(record: Any, whole: bool) -> Words | None:
    """Returns the tokens of each row with what a record gives them; None for other records."""
    if record.spec.input not in record.run.tokens or not record.spec.is_attribution:
        return None
    try:
        return [record.words(row, whole) for row in range(record.run.rows)]
    except InputError:  # of several classes at once, say
        return None


def words_by_output(result: Any, whole: bool) -> dict[str, Words]:
    """Returns the tokens of each row (or its `whole` words) with what each attribution gives."""
    found = {record.name: _words(record, whole) for record in result.explanations.values()}
    return {name: words for name, words in found.items() if words is not None}


def say_words(result: Any, whole: bool) -> None:
    """Prints the tokens of the first rows (or `whole` words) with what attributions give them."""
    for name, rows in words_by_output(result, whole).items():
        for row, words in enumerate(rows[:_MOST_ROWS]):
            click.echo(f"{name}, row {row}: {said_words(words)}")


def said_words(words: Sequence[tuple[str, float]]) -> str:
    """Returns tokens with what they are given, on one line."""
    from probegen.runtime.texts.base import written

    shown = "  ".join(f"{written(t)} {value:+.3g}" for t, value in words[:_MOST_WORDS])
    return shown + (f"  … {len(words) - _MOST_WORDS} more" if len(words) > _MOST_WORDS else "")
