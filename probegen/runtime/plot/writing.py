"""Which way a text runs, and in which order its tokens stand in a line.

By the Unicode bidirectional algorithm (UAX #9), applied to whole tokens: a text runs the way of its
first letter (rules P2 and P3), tokens without letters go with their neighbours (N1, N2), and runs
against the direction of the text are turned (L2). Signs inside of a token are put in order by
matplotlib, or by the browser.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from probegen.runtime.texts.whole_words import SPECIAL

_LEFT, _RIGHT, _NUMBER, _NEUTRAL = "left to right", "right to left", "number", "neutral"
_CLASSES = {"L": _LEFT, "R": _RIGHT, "AL": _RIGHT}


def runs_right_to_left(texts: Iterable[str]) -> bool:
    """Tells whether the first letter of a text is of a script that runs from right to left."""
    ways = (_way(text) for text in texts)
    return next((way for way in ways if way in (_LEFT, _RIGHT)), _LEFT) == _RIGHT


def display_order(tokens: Sequence[str], right_to_left: bool) -> list[int]:
    """Returns which token of a line stands at each place, from the left.

    Args:
        tokens: of one line, in the order of reading.
        right_to_left: whether the whole text runs so.
    """
    levels = _levels([_way(token) for token in tokens], int(right_to_left))
    order = list(range(len(tokens)))
    for level in range(max(levels, default=0), 0, -1):
        start = 0
        while start < len(order):
            end = start
            while end < len(order) and levels[order[end]] >= level:
                end += 1
            order[start:end] = order[start:end][::-1]
            start = max(end, start + 1)
    return order


def _way(text: str) -> str:
    """Returns the way of the first letter of a token, else whether there are digits.

    Special tokens such as `[CLS]` are no part of the text and go with their neighbours.
    """
    if SPECIAL.fullmatch(text):
        return _NEUTRAL
    classes = [unicodedata.bidirectional(sign) for sign in text]
    letters = (_CLASSES[name] for name in classes if name in _CLASSES)
    number = any(name in ("EN", "AN") for name in classes)
    return next(letters, _NUMBER if number else _NEUTRAL)


def _levels(ways: Sequence[str], base: int) -> list[int]:
    """Returns the embedding level of each token of a line in a text of the level `base`."""
    own = _RIGHT if base else _LEFT
    solid = [_as_text(ways, place, own) for place in range(len(ways))]
    levels = []
    for place, given in enumerate(ways):
        way = given
        if given == _NEUTRAL:
            before = next((w for w in solid[:place][::-1] if w != _NEUTRAL), own)
            behind = next((w for w in solid[place + 1 :] if w != _NEUTRAL), own)
            way = before if before == behind else own
        elif given == _NUMBER and solid[place] == _LEFT:
            way = _LEFT
        levels.append({_LEFT: 2 * base, _RIGHT: 1, _NUMBER: 2}[way])
    return levels


def _as_text(ways: Sequence[str], place: int, own: str) -> str:
    """Returns what neighbours take a token for: numbers go with the letters before them (W7)."""
    if ways[place] != _NUMBER:
        return ways[place]
    return next((w for w in ways[:place][::-1] if w in (_LEFT, _RIGHT)), own)
