"""The part of a report in which a reader looks attention up: by layer, head and token.

The weights stand in the page as whole numbers of 16 bits, in an attribute that no browser runs. The
script that draws them is always the same (`attention_explorer.js`). Where it does not run, the
pictures of the same weights are there. How much of a page weights take is bounded.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import DRAWN_AS_ATTENTION, LAYER
from probegen.runtime.axes import HEAD, KEY, QUERY, SEQUENCE
from probegen.runtime.plot.plots.attention_heads import Maps, all_maps
from probegen.runtime.plot.view import View, place
from probegen.text import shortened

Array = npt.NDArray[Any]

STYLE = Path(__file__).with_name("attention_explorer.css")
SCRIPT = Path(__file__).with_name("attention_explorer.js")
#: What the explorer is called among the outputs of a report.
NAME = "attention explorer"

#: Characters that the weights of a whole page may take.
MOST_CHARACTERS = 4_000_000
#: Tokens of a sequence that are listed, and characters of one.
_MOST_TOKENS, _LONGEST_TOKEN = 160, 40
_FEWEST_TOKENS = 12
#: Characters of base64 for a weight.
_A_WEIGHT = 8 / 3
_LEVELS = 65535


def fits(view: View) -> bool:
    """Tells whether a view holds attention of queries to keys."""
    known = {HEAD, QUERY, KEY, LAYER, *SEQUENCE}
    return (
        view.spec.draw == DRAWN_AS_ATTENTION
        and view.axes_are_distinct
        and {QUERY, KEY} <= set(view.axes) <= known
        and bool(view.array.size)
    )


def article(views: Sequence[View], samples: int) -> str:
    """Returns the explorer of one sample, empty where there is no attention.

    Args:
        views: of all records of the sample.
        samples: how many samples share the page.
    """
    entries: list[_Entry] = []
    notes: list[str] = []
    for view in filter(fits, views):
        found, said = all_maps(view)
        title = view.spec.title if view.spec.kind != DRAWN_AS_ATTENTION else ""
        for maps in found:
            parts = (title, place(view.spec), maps.name)
            entries.append(_Entry(": ".join(part for part in parts if part), maps))
        notes += [note for note in said if note not in notes]
    if not entries:
        return ""
    entries, left_out = _bounded(entries, MOST_CHARACTERS / max(1, samples))
    notes += left_out
    wrong = sum(np.count_nonzero(~np.isfinite(entry.maps.weights)) for entry in entries)
    notes += [f"{wrong} weights that are no finite number are shown as 0"] if wrong else []
    data = json.dumps([entry.data() for entry in entries], separators=(",", ":"))
    remarks = f'<p class="muted">{escape("; ".join(notes))}</p>' if notes else ""
    return (
        f'<article class="card explorer" data-output="{NAME}" data-attention="{escape(data)}" '
        "hidden>\n"
        "<h3>Attention explorer</h3>\n"
        '<p class="muted">Queries on the left look at keys on the right. Point at a token, or go '
        "to it with the arrow keys, to see its weights; Enter or a click keeps it, Escape lets it "
        f"go.</p>\n{remarks}\n</article>"
    )


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What can be chosen as a layer.

    Attributes:
        name: what it is called.
        maps: its weights and tokens.
    """

    name: str
    maps: Maps

    def cut(self, most: int) -> _Entry:
        """Returns the entry with the first `most` queries and keys alone."""
        maps = self.maps
        weights = maps.weights[:, :most, :most]
        cut = dataclasses.replace(
            maps, weights=weights, queries=maps.queries[:most], keys=maps.keys[:most]
        )
        return _Entry(self.name, cut)

    def data(self) -> dict[str, Any]:
        """Returns what the script reads."""
        weights = np.nan_to_num(np.asarray(self.maps.weights, np.float64), posinf=0.0, neginf=0.0)
        low, high = min(0.0, float(weights.min())), float(weights.max())
        span = (high - low) or 1.0
        levels = np.round((weights - low) / span * _LEVELS).astype("<u2")
        return {
            "name": self.name,
            "shape": list(weights.shape),
            "low": low,
            "span": span,
            "queries": [shortened(token, _LONGEST_TOKEN) for token in self.maps.queries],
            "keys": [shortened(token, _LONGEST_TOKEN) for token in self.maps.keys],
            "weights": base64.b64encode(levels.tobytes()).decode(),
        }


def _bounded(entries: list[_Entry], most: float) -> tuple[list[_Entry], list[str]]:
    """Returns entries that take at most so many characters, and what was left out.

    First the tokens at the end are left out, then layers.
    """
    notes = []
    heads = [len(entry.maps.weights) for entry in entries]
    size = int(math.sqrt(most / (_A_WEIGHT * sum(heads))))
    if size < _FEWEST_TOKENS:
        cost = np.cumsum(heads) * _A_WEIGHT * _FEWEST_TOKENS**2
        kept = max(1, int(np.count_nonzero(cost <= most)))
        if kept < len(entries):
            notes.append(f"the first {kept} of {len(entries)} layers")
        entries, size = entries[:kept], _FEWEST_TOKENS
    size = min(size, _MOST_TOKENS)
    longest = max(max(entry.maps.weights.shape[1:]) for entry in entries)
    # What is short leaves its room to nothing else: the bound is of the whole.
    if longest > size:
        needed = sum(h * q * k for h, q, k in (entry.maps.weights.shape for entry in entries))
        if longest > _MOST_TOKENS or needed * _A_WEIGHT > most:
            notes.append(f"the first {size} of up to {longest} tokens")
            entries = [entry.cut(size) for entry in entries]
    return entries, notes
