"""A self-contained HTML page about texts that were written: pictures, and a row for each token.

The page runs no script and needs nothing from outside; whatever comes from the caller is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from probegen.artefact.manifest import SIGNED
from probegen.runtime.files import write_atomic
from probegen.runtime.inputs import Array
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
    def rows(self) -> Mapping[str, Array]:
        """What attributions give, `[step, token]`."""

    @property
    def attention(self) -> Mapping[str, Array]:
        """Attention weights, `[step, token]`."""

    @property
    def result(self) -> DrawableResult | None:
        """A run."""

    def plot(self, path: None = None, output: str | None = None) -> Figure:
        """Draws an output."""


def write(texts: Sequence[Written], path: str | os.PathLike[str], outputs: Sequence[str]) -> Path:
    """Writes the page whole or not at all; returns its path.

    Args:
        texts: what was written, each at least one token.
        path: where.
        outputs: of which rows are shown.

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
        parts += [_output(text, name, f"{number}-{i}") for i, name in enumerate(outputs)]
    page = whole_page("Written text", _STYLE.read_text(encoding="utf-8"), parts)
    return write_atomic(path, lambda file: file.write(page.encode("utf-8")))


def _whole(text: Written) -> str:
    before = "".join(_span(token, "") for token in text.tokens[: len(text.prompt)])
    new = "".join(f"<strong>{_span(token, '')}</strong>" for token in text.new_tokens)
    return f'<section class="card"><p class="text" dir="auto">{before}{new}</p></section>'


def _output(text: Written, name: str, number: str) -> str:
    """Returns the picture of an output, and each new token with its row in colours."""
    assert text.result is not None
    spec = text.result.manifest.output(name)
    rows = {**text.attention, **text.rows}[name]
    scale = attribution_scale(rows, spec.sign == SIGNED, WARM, clip=False)
    with readers_own():
        figure = inline_svg(text.plot(output=name), f"{spec.title} for each new token", number)
    lines = [
        f'<tr><td>{_span(token, "")}</td><td class="number">{score:.4g}</td>'
        f'<td><p class="text" dir="auto">{_coloured(text, rows[step], step, scale)}</p></td></tr>'
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


def _coloured(text: Written, row: Array, step: int, scale: Scale) -> str:
    known = len(text.prompt) + step
    values = row[:known]
    strengths = scale.strength(values)
    colours = (np.nan_to_num(scale.rgb(values), nan=1.0) * 255).round().astype(int)
    spans = []
    for token, value, colour, strength in zip(
        text.tokens[:known], values, colours, strengths, strict=True
    ):
        if np.isnan(value):
            spans.append(_span(token, "no number"))
            continue
        ink = "#fff" if strength > _DARK else "#1a1f24"
        style = f"background:rgb({','.join(map(str, colour))});color:{ink}"
        spans.append(_span(token, f"{value:+.4g}", style))
    return "".join(spans)


def _span(token: str, title: str, style: str = "") -> str:
    more = (f' title="{escape(title)}"' if title else "") + (f' style="{style}"' if style else "")
    return f"<span{more}>{escape(written(token))}</span>"
