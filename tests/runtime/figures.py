"""Results to draw, and a look into drawn figures."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.text import Text

from tests.runtime.support import IMAGE, result_of


def drawn(figure):
    """Lays a figure out, where that was not done since it last changed; returns it."""
    if figure.stale:
        figure.draw_without_rendering()
    return figure


def axes_of(figure):
    drawn(figure)
    return figure.findobj(Axes)


def images_of(figure):
    return [np.asarray(i.get_array()) for i in figure.findobj(AxesImage)]


def texts_of(figure):
    drawn(figure)
    return [t.get_text() for t in figure.findobj(Text) if t.get_text() and t.get_visible()]


def says(figure, words):
    """Tells whether a text of a figure holds these words, also over the end of a line."""
    return words in " ".join(" ".join(texts_of(figure)).split())


def titled(figure, name):
    return next(ax for ax in axes_of(figure) if ax.get_title() == name)


def image_result(array, kind="saliency", axes=IMAGE[:3], channels=3, **spec):
    """A classifier of two images `[6, 9, channels]` with the record `it`."""
    x = np.random.default_rng(7).random((2, 6, 9, channels)).astype(np.float32)
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    return result_of(
        {"image": (x, IMAGE, {})},
        {
            "animal": (scores, "prediction", ("batch", "class"), {}),
            "it": (array, kind, axes, {"input": "image", **spec}),
        },
        class_names=("ant", "bee", "cat"),
    )
