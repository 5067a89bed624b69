"""The picture of a text that was written: for each new token, what each token before it gave."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from probegen.artefact.manifest import SIGNED, OutputSpec
from probegen.runtime.plot import mosaic
from probegen.runtime.plot.mosaic import Ticks, Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import WARM, attribution_scale
from probegen.runtime.texts.base import written
from probegen.text import shortened

Array = npt.NDArray[Any]

_LONGEST_TOKEN = 14
#: Tokens across, and new tokens down, that a picture has room for: the last are drawn.
_MOST = 64


def picture(
    spec: OutputSpec, rows: Array, before: Sequence[str], new: Sequence[str], words: bool
) -> Picture:
    """Plans rows of new tokens (down) over the tokens before them, or their words (across).

    Args:
        spec: the attribution.
        rows: `[step, token]`, NaN from the new token on.
        before: how each token (or word) before the last reads, those of the prompt first.
        new: how each new token reads.
        words: whether words stand across.
    """
    shown, new = rows[-_MOST:], new[-_MOST:]
    notes: tuple[str, ...] = ()
    if len(rows) > len(shown):
        notes = (f"showing the last {len(shown)} of {len(rows)} new tokens",)
    if shown.shape[1] > _MOST:
        left_out = shown.shape[1] - _MOST
        shown, before = shown[:, left_out:], before[left_out:]
        notes = (*notes, f"the first {left_out} of {len(before) + left_out} columns are left out")
    tile = Tile(shown)
    down, across = ([_short(token) for token in row] for row in (new, before))
    ticks = Ticks(down, across, "new token", f"{'word' if words else 'token'} before")
    layout = mosaic.lay_out([tile], ticks, widest=5.2)
    scale = attribution_scale(shown, spec.sign == SIGNED, WARM, clip=False)
    title = spec.title[:1].lower() + spec.title[1:] if spec.title[1:].islower() else spec.title
    draw = functools.partial(
        mosaic.draw, tiles=[tile], layout=layout, scale=scale, label=title, ticks=ticks
    )
    return Picture(f"{spec.title}, for each new token", *layout.body, draw, notes)


def _short(token: str) -> str:
    return shortened(written(token), _LONGEST_TOKEN)
