"""Signs that the usual font lacks: another font that has them, or how they are spelt out.

matplotlib brings DejaVu Sans, which has Latin, Greek, Cyrillic, Arabic, Hebrew and many symbols.
For what it lacks the fonts of this machine are looked through, once for each sign. A sign that none
of them has would become an empty box; it is written as its name or its number in Unicode instead:
`\u27e8grinning cat\u27e9`, `\u27e865E5 672C\u27e9`. In a web page the reader's own fonts are used.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence

import matplotlib
from matplotlib import font_manager, ft2font
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
#: Families that cover much, looked through first.
_LIKELY = (
    "noto sans cjk", "noto sans sc", "noto sans jp", "noto sans kr", "source han sans",
    "wenquanyi", "microsoft yahei", "pingfang", "hiragino", "yu gothic", "malgun gothic",
    "arial unicode", "noto sans", "noto emoji", "segoe ui symbol", "symbola", "apple symbols",
)  # fmt: skip
#: Parts of names of fonts that draw boxes, or colours that matplotlib does not draw.
_UNFIT = ("last resort", "color", "colour", "lastresort")
#: The longest name of a sign that is written out.
_LONGEST_NAME = 24
#: Whether this matplotlib puts letters in order and joins them (from 3.11 on, by libraqm).
_SHAPES = hasattr(ft2font, "__libraqm_version__")
#: Inches of text are measured at this size in points.
_MEASURED = 100.0

_readers_own: contextvars.ContextVar[bool] = contextvars.ContextVar("readers_own", default=False)
_lock = threading.Lock()


@contextlib.contextmanager
def readers_own() -> Iterator[None]:
    """Leaves all signs as they are, and says nothing of fonts: a browser will have them."""
    token = _readers_own.set(True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            yield
    finally:
        _readers_own.reset(token)


def legible(text: str) -> str:
    """Returns text with the signs that no font of this machine has spelt out."""
    if text.isascii():
        return text
    found: list[str] = []
    numbers: list[str] = []
    for sign in text:
        if family_of(sign) is not None:
            found += [*_numbered(numbers), sign]
            numbers.clear()
            continue
        name = unicodedata.name(sign, "").lower()
        if unicodedata.category(sign) == "So" and 0 < len(name) <= _LONGEST_NAME:
            found += [*_numbered(numbers), f"\u27e8{name}\u27e9"]
            numbers.clear()
        else:
            numbers.append(f"{ord(sign):04X}")
    return "".join([*found, *_numbered(numbers)])


def _numbered(numbers: Sequence[str]) -> list[str]:
    return [f"\u27e8{' '.join(numbers)}\u27e9"] if numbers else []


def spelt_out(texts: Iterable[str]) -> tuple[str, ...]:
    """Says how many different signs of some texts are spelt out; nothing where none is."""
    count = sum(family_of(sign) is None for sign in set("".join(texts)))
    if not count:
        return ()
    signs = "1 sign has" if count == 1 else f"{count} signs have"
    return (f"{signs} no font on this machine: written by name or Unicode number",)


def family_of(sign: str) -> str | None:
    """Returns the family of a font that has a sign, `SANS` where that has it; None if none has.

    Where the fonts are the reader's own, none is looked for.
    """
    if sign.isascii() or not sign.isprintable() or _readers_own.get():
        return SANS
    return _family_of(sign)


@functools.lru_cache(maxsize=65536)
def _family_of(sign: str) -> str | None:
    with _lock:
        for path in (font_manager.findfont(SANS), *_paths()):
            font = _opened(path)
            if font is not None and font.get_char_index(ord(sign)):
                return _named(path)
    return None


@functools.cache
def _paths() -> tuple[str, ...]:
    """Returns the files of all fonts of this machine, the likeliest first."""
    known = {entry.fname: entry.name for entry in fontManager.ttflist if not _index(entry)}
    names = {path: known.get(path, path) for path in [*known, *font_manager.findSystemFonts()]}
    fit = [path for path, name in names.items() if not any(u in name.lower() for u in _UNFIT)]

    def rank(path: str) -> int:
        name = names[path].lower()
        return next((i for i, likely in enumerate(_LIKELY) if likely in name), len(_LIKELY))

    return tuple(sorted(fit, key=rank))


def _index(entry: object) -> int:
    """Returns which font of a collection an entry is; older matplotlib knows the first alone."""
    return int(getattr(entry, "index", 0))


@functools.cache
def _opened(path: str) -> FT2Font | None:
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError, ValueError):
        return None
    return font if font.scalable else None


def _named(path: str) -> str:
    """Returns the family of a font file, which matplotlib then knows."""
    for _ in range(2):
        for entry in fontManager.ttflist:
            if entry.fname == path:
                return str(entry.name)
        fontManager.addfont(path)
    raise LookupError(path)


def families(text: str, first: str = SANS) -> list[str]:
    """Returns the families that a text needs, in the order in which they are asked for a sign."""
    needed = [] if text.isascii() else [family_of(sign) for sign in text]
    return list(dict.fromkeys([first, SANS, *(family for family in needed if family)]))


def width(text: str, points: float, family: str) -> float:
    """Returns the width of a line of text in inches.

    Args:
        text: the line, of signs that there are fonts for.
        points: the size of its type.
        family: of the font that is asked first.
    """
    font = FontProperties(family=families(text, family), size=_MEASURED)
    across, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(across) / _MEASURED * points / 72


def fit(figure: Figure | SubFigure) -> None:
    """Gives all text of a figure the fonts that it needs."""
    texts = [t for t in figure.findobj(Text) if isinstance(t, Text) and not t.get_text().isascii()]
    if _readers_own.get() or not texts:
        return
    written = "".join(t.get_text() for t in texts)
    if not _SHAPES and any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in written):
        warnings.warn(
            f"matplotlib {matplotlib.__version__} draws letters of scripts from right to left in "
            "the wrong order and unjoined; 3.11 and later do it right, as does result.to_html().",
            stacklevel=2,
        )
    needed = families(written)
    if len(needed) == 1:
        return
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *needed])
    for ax in figure.findobj(Axes):
        if isinstance(ax, Axes):
            ax.tick_params(labelfontfamily=needed)
