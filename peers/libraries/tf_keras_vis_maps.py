"""tf-keras-vis, on a Keras model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.utils.scores import CategoricalScore

import probegen as pg
from peers.case import Array, Case
from peers.keras_models import LAST, Artefacts, image_model, images

_CLASS = 2


def cases() -> Iterator[Case]:
    """Yields the comparisons."""
    model, x = image_model(), images()
    made = Artefacts(model)
    scores = CategoricalScore([_CLASS] * len(x))

    def theirs(kind: Any) -> Array:
        found = kind(model)(
            scores, x, penultimate_layer=LAST, expand_cam=False, normalize_cam=False
        )
        return np.asarray(found)

    yield Case(
        "Saliency(target=2)",
        "Saliency(normalize_map=False)",
        lambda: made.run(pg.Saliency(target=_CLASS), x),
        lambda: np.asarray(Saliency(model)(scores, x, normalize_map=False)),
    )
    for name, kind in (("GradCAM", Gradcam),):
        yield Case(
            f"{name}({LAST!r}, target=2)",
            f"{kind.__name__}(expand_cam=False)",
            lambda name=name: made.run(getattr(pg, name)(LAST, target=_CLASS), x),
            lambda kind=kind: theirs(kind),
        )
