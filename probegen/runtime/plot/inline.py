"""Figures as SVG inside a web page, in the page's own colours.

Ink, muted ink and rules become the page's CSS variables, and the ground is left out, so that a
figure is dark on a light page and light on a dark one. Maps and photographs stay as they are.
"""

from __future__ import annotations

import io
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

from probegen.runtime.plot.style import FAINT, INK, MUTED

_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", FAINT: "var(--rule)"}
#: Pixels of a web page in an inch.
_CSS_DPI = 96


def inline_svg(figure: Figure, title: str, name: str) -> str:
    """Returns a figure as an `<svg>` element without anything from outside.

    Args:
        figure: what to draw.
        title: what it shows, for readers who do not see it.
        name: tells it from the other figures of the page, so that its inner names are its own.
    """
    buffer = io.StringIO()
    # Text stays text: it can be searched and copied, and takes the page's own type.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True)
    drawn = buffer.getvalue()
    body = drawn[drawn.index(">", drawn.index("<svg")) + 1 : drawn.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # numbered anew in every figure, and not used
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    width, height = figure.get_size_inches()
    box = re.search(r'viewBox="([^"]*)"', drawn)
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="{box[1] if box else ""}" '
        f'width="{round(width * _CSS_DPI)}" height="{round(height * _CSS_DPI)}">{body}</svg>'
    )
