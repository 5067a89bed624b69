"""Xplique, on a Keras model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xplique.attributions as xa

import probegen as pg
from peers.case import Array, Case
from peers.keras_models import Artefacts, image_model, images

_CLASS, _CLASSES = 2, 5


def cases() -> Iterator[Case]:
    """Yields the comparisons."""
    model, x = image_model(), images()
    made = Artefacts(model)

    def ours(probe: Any) -> Array:
        return made.run(probe, x)

    def theirs(kind: Any, **arguments: Any) -> Array:
        seeds = np.eye(_CLASSES, dtype=np.float32)[[_CLASS] * len(x)]
        found = kind(model, **arguments).explain(x, seeds)
        return np.asarray(found)

    yield Case(
        "Saliency(target=2)",
        "Saliency(reducer='max')",
        lambda: ours(pg.Saliency(target=_CLASS)),
        lambda: theirs(xa.Saliency, reducer="max")[..., 0],
    )
    yield Case(
        "GradientXInput(target=2)",
        "GradientInput(reducer=None)",
        lambda: ours(pg.GradientXInput(target=_CLASS)),
        lambda: theirs(xa.GradientInput, reducer=None),
    )
    yield Case(
        "IntegratedGradients(16, rule='trapezoid')",
        "IntegratedGradients(steps=16, reducer=None)",
        lambda: ours(pg.IntegratedGradients(16, rule="trapezoid", target=_CLASS)),
        lambda: theirs(xa.IntegratedGradients, steps=16, baseline_value=0.0, reducer=None),
    )
    yield Case(
        "GuidedBackprop(target=2)",
        "GuidedBackprop(reducer=None)",
        lambda: ours(pg.GuidedBackprop(target=_CLASS)),
        lambda: theirs(xa.GuidedBackprop, reducer=None),
    )
    yield Case(
        "Deconvnet(target=2)",
        "DeconvNet(reducer=None)",
        lambda: ours(pg.Deconvnet(target=_CLASS)),
        lambda: theirs(xa.DeconvNet, reducer=None),
    )
    yield Case(
        "Occlusion((2, 11))",
        "Occlusion(patch_size=(2, 11), patch_stride=(2, 11))",
        lambda: ours(pg.Occlusion((2, 11), target=_CLASS)),
        lambda: theirs(xa.Occlusion, patch_size=(2, 11), patch_stride=(2, 11), occlusion_value=0.0)[
            ..., 0
        ],
        note="Xplique adds the windows that cover an element, we take their mean, and it leaves "
        "out windows that reach over the edge: compared with windows that tile the image.",
    )
