"""Colours, type and the helpers of layout that all pictures share.

Maps are safe for colour-blind readers: blue against red through white for signed values, always
symmetric around zero; perceptually even ones for magnitudes. Nothing here touches pyplot or
matplotlib's global settings, and what would be taken from them is set explicitly.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from probegen.runtime.plot import fonts
from probegen.text import shortened

Array = npt.NDArray[Any]
AnyFigure = Figure | SubFigure
Orientation = Literal["vertical", "horizontal"]

INK = "#1b1f24"
MUTED = "#5b6470"
FAINT = "#d5dae0"
#: Text on a coloured ground, which stays as it is where a page changes its ink.
ON_LIGHT, ON_DARK = "#1a1f24", "white"
MISSING = "#c9c4b8"
LINE = "#0072b2"
POSITIVE = "#b2182b"
NEGATIVE = "#2166ac"
UNSIGNED = "#c8641b"

DIVERGING = "RdBu_r"
MAGNITUDE = "viridis"
HEAT = "inferno"
LIGHT = "Blues"
WARM = "YlOrBr"

#: Okabe and Ito's eight colours, told apart with any colour vision.
CATEGORIES = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000",
)  # fmt: skip

TITLE_SIZE = 10.0
LABEL_SIZE = 8.0
SMALL_SIZE = 7.0

#: What joins letters and parts them, without a shape of its own.
_JOINERS = "\u200c\u200d"

#: Steps of a line that have a dot each.
_FEW_STEPS = 40

#: Widest picture, in inches, as wide as the text of a two-column page.
WIDTH = 7.5
DPI = 150


class FreeFigure(Figure):
    """A figure outside pyplot that notebooks still show."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty white figure of the given size in inches, not known to pyplot."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.04)
    return FreeFigure(figsize=(width, height), layout=layout, facecolor="white", dpi=DPI)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How values become colours, and whether the ends hold values beyond them."""

    colours: str
    low: float
    high: float
    extend: str = "neither"

    @property
    def signed(self) -> bool:
        """True for a scale that is symmetric around zero."""
        return self.colours == DIVERGING

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments of `imshow` that say the same."""
        return {"cmap": colour_map(self.colours), "vmin": self.low, "vmax": self.high}

    def strength(self, values: Array) -> Array:
        """Returns each value's magnitude on the scale, from 0 to 1; not finite is 0."""
        start = 0.0 if self.signed else self.low
        share = np.nan_to_num(np.abs(values - start) / (self.high - start), nan=0.0, posinf=1.0)
        return np.asarray(np.clip(share, 0.0, 1.0))

    def rgb(self, values: Array) -> Array:
        """Returns the colours, shape of `values` + `[3]`, from 0 to 1."""
        share = Normalize(self.low, self.high)(np.ma.masked_invalid(values))
        return np.asarray(colour_map(self.colours)(share))[..., :3]


def colour_map(name: str) -> Any:
    """Returns a colour map by name in which missing values are grey."""
    return matplotlib.colormaps[name].with_extremes(bad=MISSING)


def scale_of(
    values: Array, *, signed: bool | None = None, colours: str = MAGNITUDE, clip: bool = True
) -> Scale:
    """Chooses the scale for `values`; never fails, whatever they are.

    Args:
        values: any shape; what is not finite is left out of account.
        signed: True for a diverging scale; None lets the values decide, where small negative
            tails (as GELU has) do not count.
        colours: the colour map of magnitudes.
        clip: let a few outliers go beyond the ends, so that they do not darken all the rest.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if finite.size == 0:
        return Scale(colours, 0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if signed is None:
        signed = low < -0.1 * max(high, 0.0) and low < 0
    if signed:
        limit, extend = _limit(np.abs(finite), clip)
        return Scale(DIVERGING, -limit, limit, "both" if extend else "neither")
    low = 0.0 if 0 <= low < 0.5 * high else low
    if low < 0 or high <= 0:
        return Scale(colours, low, high if high > low else low + 1.0)
    high, extend = _limit(finite, clip)
    return Scale(
        colours,
        low,
        max(high, low + 1e-12 * abs(low)) if high > low else low + 1.0,
        "max" if extend else "neither",
    )


def attribution_scale(
    values: Array, signed: bool, colours: str = MAGNITUDE, clip: bool = True, has_zero: bool = True
) -> Scale:
    """Chooses the scale for attributions, which starts at zero: half as long is half as much.

    Numbers that are all on one side of a zero that says nothing go from the lowest to the highest.

    Args:
        values: any shape; what is not finite is left out of account.
        signed: True for a diverging scale.
        colours: the colour map of magnitudes.
        clip: let a few outliers go beyond the ends, so that they do not darken all the rest.
        has_zero: True where zero means that something does not matter.
    """
    finite = values[np.isfinite(values)]
    if not has_zero and finite.size and (finite.min() >= 0 or finite.max() <= 0):
        return scale_of(values, signed=False, colours=colours, clip=clip)
    scale = scale_of(values, signed=signed, colours=colours, clip=clip)
    return scale if scale.low <= 0 else dataclasses.replace(scale, low=0.0)


def _limit(magnitudes: Array, clip: bool) -> tuple[float, bool]:
    """Returns the upper end for magnitudes, and whether some lie beyond it."""
    top = float(magnitudes.max())
    if top <= 0:
        return 1.0, False
    if clip and magnitudes.size >= 256:
        usual = float(np.quantile(magnitudes, 0.995))
        if 0 < usual < 0.67 * top:
            return usual, True
    return top, False


def plain(text: object, limit: int | None = None) -> str:
    """Returns text that matplotlib draws as it stands.

    There are no formulas and no line breaks in it, and no signs without a font; it is cut.
    """
    line = "".join(_visible(sign) for sign in str(text))
    if limit is not None:
        line = shortened(line, limit)
    return fonts.legible(line).replace("$", r"\$")


def _visible(sign: str) -> str:
    return (
        sign if sign.isprintable() or sign in _JOINERS else "\u240a" if sign == "\n" else "\u00b7"
    )


def number(value: float) -> str:
    """Returns a number in three digits, with a true minus sign."""
    return f"{value:.3g}".replace("-", "\u2212")


def signed(value: float) -> str:
    """Returns a number as `number` does, with a plus where it is above zero."""
    return f"+{number(value)}" if value > 0 else number(value)


def style_axes(ax: Axes, *, frame: bool = True) -> None:
    """Gives axes the common look: thin frame, small quiet ticks."""
    ax.set_facecolor("none")
    ax.tick_params(labelsize=SMALL_SIZE, colors=MUTED, length=2.5, width=0.6, pad=2)
    for side, spine in ax.spines.items():
        spine.set_color(FAINT)
        spine.set_linewidth(0.8)
        spine.set_visible(frame or side in ("left", "bottom"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(LABEL_SIZE)
        axis.label.set_color(MUTED)
        axis.get_offset_text().set_fontsize(SMALL_SIZE)
        axis.get_offset_text().set_color(MUTED)


def size_of(figure: AnyFigure) -> tuple[float, float]:
    """Returns width and height in inches."""
    root = figure.get_figure(root=True)
    dpi = root.dpi if root is not None else DPI
    return float(figure.bbox.width) / dpi, float(figure.bbox.height) / dpi


def inch_axes(figure: AnyFigure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds bare axes in an exact place, counted in inches from the figure's top left.

    Their data are inches too, from their own top left, so that what is drawn in them keeps its
    size beside type. Automatic layout leaves them alone.
    """
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))

    def locate(_ax: Any, _renderer: Any) -> Bbox:
        across, down = size_of(figure)
        return Bbox.from_bounds(
            left / across, 1 - (top + height) / down, width / across, height / down
        )

    ax.set_axes_locator(locate)
    ax.axis("off")
    ax.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return ax


def no_ticks(ax: Axes) -> None:
    """Takes the ticks away but leaves the frame."""
    style_axes(ax)
    ax.set_xticks([])
    ax.set_yticks([])


def caption(ax: Axes, text: str, limit: int | None = None) -> None:
    """Sets the heading of one panel, cut off after so many characters."""
    ax.set_title(plain(text, limit), fontsize=LABEL_SIZE, color=INK, pad=4)


def colour_bar(ax: Axes, scale: Scale, label: str = "", *, span: float) -> Colorbar:
    """Adds a colour bar on the right of the axes, exactly as tall as they are.

    Args:
        ax: the axes whose colours it explains.
        scale: what the colours mean.
        label: what is measured.
        span: width of the axes in inches, from which the bar takes its own.
    """
    cax = ax.inset_axes((1.0 + 0.08 / span, 0.0, 0.1 / span, 1.0))
    return fill_bar(cax, scale, label)


def fill_bar(
    cax: Axes, scale: Scale, label: str = "", orientation: Orientation = "vertical"
) -> Colorbar:
    """Makes a colour bar of the axes `cax`."""
    mapper = ScalarMappable(Normalize(scale.low, scale.high), colour_map(scale.colours))
    bar = cax.figure.colorbar(
        mapper, cax=cax, orientation=orientation, extend=scale.extend, extendfrac=0.04
    )
    bar.locator = MaxNLocator(5 if orientation == "vertical" else 4)
    bar.update_ticks()
    bar.ax.tick_params(labelsize=SMALL_SIZE, colors=MUTED, length=2, width=0.6, pad=2)
    bar.outline.set(linewidth=0.6, edgecolor=FAINT)
    bar.set_label(plain(label), size=LABEL_SIZE, color=MUTED)
    long_axis = bar.ax.yaxis if orientation == "vertical" else bar.ax.xaxis
    long_axis.get_offset_text().set(fontsize=SMALL_SIZE, color=MUTED)
    return bar


def marker_of(steps: int) -> str | None:
    """Returns what marks each step of a line: few of them have a dot each."""
    return "o" if steps <= _FEW_STEPS else None


def thin(count: int, room: int) -> range:
    """Returns evenly spaced indices into `count` of which at most `room` fit; 0 comes first."""
    step = max(1, math.ceil(count / max(1, room)))
    return range(0, count, step)


def ink_on(rgb: Sequence[float]) -> str:
    """Returns the text colour, dark or white, that reads best on a background.

    By relative luminance as WCAG 2.1 defines it (section 1.4.3), colours from 0 to 1.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return ON_LIGHT if luminance > 0.3 else ON_DARK
