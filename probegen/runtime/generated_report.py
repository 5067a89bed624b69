"""A self-contained HTML page about generated texts: pictures, and a row for each token.

The page runs no script and needs nothing from outside; whatever comes from the caller is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from probegen.artefact.manifest import SIGNED
from probegen.runtime.files import write_atomic
from probegen.runtime.plot.fonts import readers_own
from probegen.runtime.plot.inline import inline_svg
from probegen.runtime.plot.style import WARM, Scale, attribution_scale
from probegen.runtime.run import DrawableResult
from probegen.runtime.texts.base import written
from probegen.runtime.web_page import whole_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = Path(__file__).with_name("report.css")
#: Beyond this share of a scale a token is written in white.
_DARK = 0.55


class Written(Protocol):
    """What the page shows of a text; see `writing_on.generated.Generated`."""

    @property
    def prompt(self) -> Sequence[int]:
        """The ids of the prompt."""

    @property
    def tokens(self) -> Sequence[str]:
        """How each id reads."""

    @property
    def new_tokens(self) -> Sequence[str]:
        """How each new id reads."""

    @property
    def scores(self) -> Sequence[float]:
        """The prediction for each new token."""

    @property
    def result(self) -> DrawableResult | None:
        """A run."""

    def words(
        self, step: int, output: str | None = None, whole_words: bool = False
    ) -> list[tuple[str, float]]:
        """What stands before a new token, with what an output gives it."""

    def plot(
        self, path: None = None, output: str | None = None, whole_words: bool = False
    ) -> Figure:
        """Draws an output."""


def write(
    texts: Sequence[Written],
    path: str | os.PathLike[str],
    outputs: Sequence[str],
    whole_words: bool = False,
) -> Path:
    """Writes the page whole or not at all; returns its path.

    Args:
        texts: what was written; where that is no token the page says so.
        path: where.
        outputs: of which rows are shown.
        whole_words: join the pieces of words into words.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    parts = [
        f'<header class="card"><h1>Written text</h1><p class="muted">{len(texts)} '
        f"{'text' if len(texts) == 1 else 'texts'}; each new token with what the tokens before it "
        "gave</p></header>"
    ]
    for number, text in enumerate(texts):
        parts += [f"<h2>Text {number + 1}</h2>" if len(texts) > 1 else "", _whole(text)]
        if text.new_tokens:
            parts += [
                _output(text, name, f"{number}-{i}", whole_words) for i, name in enumerate(outputs)
            ]
    page = whole_page("Written text", _STYLE.read_text(encoding="utf-8"), parts)
    return write_atomic(path, lambda file: file.write(page.encode("utf-8")))


def _whole(text: Written) -> str:
    before = "".join(_span(token, "") for token in text.tokens[: len(text.prompt)])
    new = "".join(f"<strong>{_span(token, '')}</strong>" for token in text.new_tokens)
    nothing = "" if new else '<p class="muted">No token was written.</p>'
    return f'<section class="card"><p class="text" dir="auto">{before}{new}</p>{nothing}</section>'


def _output(text: Written, name: str, number: str, whole_words: bool) -> str:
    """Returns the picture of an output, and each new token with its row in colours."""
    assert text.result is not None
    spec = text.result.manifest.output(name)
    steps = [text.words(step, name, whole_words) for step in range(len(text.new_tokens))]
    every = np.array([value for words in steps for _, value in words])
    scale = attribution_scale(every, spec.sign == SIGNED, WARM, clip=False)
    with readers_own():
        figure = inline_svg(
            text.plot(output=name, whole_words=whole_words),
            f"{spec.title} for each new token",
            number,
        )
    between = " " if whole_words else ""
    lines = [
        f'<tr><td>{_span(token, "")}</td><td class="number">{score:.4g}</td>'
        f'<td><p class="text" dir="auto">{_coloured(steps[step], scale, between)}</p></td></tr>'
        for step, (token, score) in enumerate(zip(text.new_tokens, text.scores, strict=True))
    ]
    return (
        f'<section class="card"><h3>{escape(name)}</h3><p class="muted">{escape(spec.title)}, '
        f"{escape(spec.unit)}: {scale.low:.3g} to {scale.high:.3g}</p>"
        f'<figure class="wide">{figure}</figure>'
        '<div class="wide"><table><thead><tr><th>New token</th><th class="number">Prediction</th>'
        f"<th>Tokens before</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        "</section>"
    )


def _coloured(words: Sequence[tuple[str, float]], scale: Scale, between: str) -> str:
    values = np.array([value for _, value in words])
    strengths = scale.strength(values)
    colours = (np.nan_to_num(scale.rgb(values), nan=1.0) * 255).round().astype(int)
    spans = []
    for (token, value), colour, strength in zip(words, colours, strengths, strict=True):
        if np.isnan(value):
            spans.append(_span(token, "no number"))
            continue
        ink = "#fff" if strength > _DARK else "#1a1f24"
        style = f"background:rgb({','.join(map(str, colour))});color:{ink}"
        spans.append(_span(token, f"{value:+.4g}", style))
    return between.join(spans)


def _span(token: str, title: str, style: str = "") -> str:
    more = (f' title="{escape(title)}"' if title else "") + (f' style="{style}"' if style else "")
    return f"<span{more}>{escape(written(token))}</span>"
