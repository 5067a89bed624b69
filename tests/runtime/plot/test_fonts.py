"""Signs without a font: looked for on the machine, else spelt out; never a box."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.patches import FancyBboxPatch

from probegen.runtime.plot import fonts
from tests.runtime.figures import says, texts_of
from tests.runtime.support import result_of

TIME = ("batch", "time")
HANGUL, KANJI = "\ud55c", "\u65e5"


def _forget():
    for cached in (fonts._family_of, fonts._paths):
        cached.cache_clear()


@pytest.fixture
def one_font(tmp_path, monkeypatch):
    """A machine with one more font, which has one sign."""
    pen = TTGlyphPen(None)
    for step, point in enumerate([(50, 0), (450, 0), (450, 700), (50, 700)]):
        (pen.lineTo if step else pen.moveTo)(point)
    pen.closePath()
    box = pen.glyph()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "sign"])
    made.setupCharacterMap({ord(HANGUL): "sign"})
    made.setupGlyf({".notdef": box, "sign": box})
    made.setupHorizontalMetrics({".notdef": (500, 50), "sign": (500, 50)})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "One Sign", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    path = str(tmp_path / "one.ttf")
    made.save(path)
    ours = font_manager.findfont(fonts.SANS)
    known = [e for e in font_manager.fontManager.ttflist if e.fname == ours]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(known))
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [path])
    _forget()
    yield "One Sign"
    _forget()


def result_with(tokens):
    """A result with an attribution of so many tokens."""
    ids = np.arange(1, len(tokens) + 1, dtype=np.int32)[np.newaxis]
    array = np.linspace(-1, 1, len(tokens))[np.newaxis]
    spec = {"input": "ids", "sign": "signed", "draw": "map"}
    inputs = {"ids": (ids, TIME, {"vocabulary": 99})}
    return result_of(inputs, {"it": (array, "dot", TIME, spec)})


def plotted(tokens):
    return result_with(tokens)["it"].plot(tokens=tokens)


def test_another_font_of_the_machine(one_font):
    assert fonts.family_of("\u05d0") == fonts.SANS
    assert fonts.family_of(HANGUL) == one_font
    assert fonts.families(f"a{HANGUL}") == [fonts.SANS, one_font]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plotted(["a", HANGUL])
        figure.draw_without_rendering()
    (drawn,) = [t for t in figure.findobj() if getattr(t, "get_text", str)() == HANGUL]
    assert one_font in drawn.get_fontfamily()


@pytest.mark.usefixtures("one_font")
def test_what_no_font_has_is_spelt_out():
    assert fonts.legible(f"a{KANJI}\u672cb") == "a\u27e865E5 672C\u27e9b"
    assert fonts.legible("\U0001fae0!") == "\u27e8melting face\u27e9!"
    with fonts.readers_own():
        assert fonts.legible(KANJI) == KANJI
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plotted(["good", KANJI, "\U0001fae0"])
        texts = texts_of(figure)
    assert {"\u27e865E5\u27e9", "\u27e8melting face\u27e9"} <= set(texts)
    assert says(figure, "2 signs have no font on this machine")


def test_a_page_looks_through_no_fonts(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "_family_of", lambda sign: pytest.fail(f"looked for {sign}"))
    tokens = ["good", KANJI, HANGUL]
    page = result_with(tokens).to_html(tmp_path / "r.html", tokens=tokens).read_text("utf-8")
    assert page.count(KANJI) == page.count(HANGUL) > 0


def test_text_from_right_to_left():
    figure = plotted(["\u05e1\u05e8\u05d8", "12", "\u05d8\u05d5\u05d1", "keras"])
    edges = [box.get_x() for box in figure.findobj(FancyBboxPatch)]
    assert edges == sorted(edges, reverse=True)
    assert edges[0] > 5  # at the right edge
    assert plotted(["a", "b"]).findobj(FancyBboxPatch)[0].get_x() == 0


def test_a_matplotlib_that_does_not_shape_is_named(monkeypatch):
    monkeypatch.setattr(fonts, "_SHAPES", False)
    with pytest.warns(UserWarning, match="wrong order and unjoined; 3.11 and later do it right"):
        plotted(["\u05e1\u05e8\u05d8", "a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plotted(["a", "\u00e9"])
