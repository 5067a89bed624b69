"""Captum, on torch models whose ONNX files are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import captum.attr as ca
import numpy as np
import torch

import probegen as pg
from peers.case import Array, Case
from peers.torch_models import (
    Artefacts,
    image_model,
    images,
    rows,
    strided_image_model,
    table_model,
    to_torch,
)

_CLASS, _STEPS = 2, 16


def cases() -> Iterator[Case]:
    """Yields the comparisons."""
    model, x = image_model(), images()
    made = Artefacts(model, x)

    def ours(probe: Any, **feeds: Any) -> Array:
        return made.run(probe, x, **feeds)

    def theirs(explainer: Any, **arguments: Any) -> Array:
        found = explainer.attribute(to_torch(x, gradient=True), target=_CLASS, **arguments)
        return np.asarray(found.detach())

    baseline = np.random.default_rng(4).normal(size=(3, 14, 11)).astype(np.float32)

    yield Case(
        "InputGradient(target=2)",
        "Saliency(abs=False)",
        lambda: ours(pg.InputGradient(target=_CLASS)),
        lambda: theirs(ca.Saliency(model), abs=False),
    )
    yield Case(
        "Saliency(target=2)",
        "Saliency, largest over the channels",
        lambda: ours(pg.Saliency(target=_CLASS)),
        lambda: theirs(ca.Saliency(model)).max(axis=1),
    )
    yield Case(
        "GradientXInput(target=2)",
        "InputXGradient",
        lambda: ours(pg.GradientXInput(target=_CLASS)),
        lambda: theirs(ca.InputXGradient(model)),
    )
    for rule, name, whole in (
        ("midpoint", "riemann_middle", 1.0),
        ("trapezoid", "riemann_trapezoid", _STEPS / (_STEPS - 1)),
        ("gauss_legendre", "gausslegendre", 1.0),
    ):
        yield Case(
            f"IntegratedGradients(16, baseline=array, rule={rule!r})",
            f"IntegratedGradients(method={name!r}, n_steps=16)",
            lambda rule=rule: ours(
                pg.IntegratedGradients(_STEPS, baseline, rule=rule, target=_CLASS)
            ),
            lambda name=name, whole=whole: (
                whole
                * theirs(
                    ca.IntegratedGradients(model),
                    baselines=to_torch(baseline[None]),
                    n_steps=_STEPS,
                    method=name,
                )
            ),
            note=""
            if whole == 1
            else "Captum's weights of this rule add up to 15/16; compared after division by that.",
        )
    yield Case(
        "GuidedBackprop(target=2)",
        "GuidedBackprop",
        lambda: ours(pg.GuidedBackprop(target=_CLASS)),
        lambda: theirs(ca.GuidedBackprop(model)),
    )
    yield Case(
        "Deconvnet(target=2)",
        "Deconvolution",
        lambda: ours(pg.Deconvnet(target=_CLASS)),
        lambda: theirs(ca.Deconvolution(model)),
    )
    yield Case(
        "GradCAM",
        "LayerGradCam(relu_attributions=True)",
        lambda: (
            ours(pg.GradCAM(layer="type:Conv", target=_CLASS))
            if False
            else ours(pg.GradCAM(target=_CLASS))
        ),
        lambda: theirs(ca.LayerGradCam(model, model[4]), relu_attributions=True)[:, 0],
    )
    yield Case(
        "Occlusion(4, stride=3)",
        "Occlusion(sliding_window_shapes=(3, 4, 4), strides=(3, 3, 3))",
        lambda: ours(pg.Occlusion(4, stride=3, target=_CLASS)),
        lambda: theirs(
            ca.Occlusion(model),
            sliding_window_shapes=(3, 4, 4),
            strides=(3, 3, 3),
            baselines=0.0,
        )[:, 0],
    )
    groups = (np.arange(14)[:, None] // 5 * 3 + np.arange(11)[None] // 4).astype(np.int32)
    yield Case(
        "FeatureAblation(groups=array)",
        "FeatureAblation(feature_mask=...)",
        lambda: ours(pg.FeatureAblation(groups, fill=0.0, target=_CLASS)),
        lambda: theirs(
            ca.FeatureAblation(model), feature_mask=torch.from_numpy(groups)[None, None].long()
        )[:, 0],
    )
    yield from _without_pooling(x, baseline)
    yield from _of_rows()


def _without_pooling(x: Array, baseline: Array) -> Iterator[Case]:
    model = strided_image_model()
    made = Artefacts(model, x)
    background = np.random.default_rng(5).normal(size=(6, 3, 14, 11)).astype(np.float32)

    def theirs(explainer: Any, **arguments: Any) -> Array:
        found = explainer.attribute(to_torch(x, gradient=True), target=_CLASS, **arguments)
        return np.asarray(found.detach())

    note = (
        "Without pooling: behind its rule of max pooling Captum's values miss the score's change."
    )
    yield Case(
        "DeepLIFT(baseline=array)",
        "DeepLift",
        lambda: made.run(pg.DeepLIFT(baseline, target=_CLASS), x),
        lambda: theirs(ca.DeepLift(model), baselines=to_torch(baseline[None])),
        note=note,
    )
    yield Case(
        "DeepSHAP(background=6 rows)",
        "DeepLiftShap",
        lambda: made.run(pg.DeepSHAP(background, target=_CLASS), x),
        lambda: theirs(ca.DeepLiftShap(model), baselines=to_torch(background)),
        note=note,
    )


def _of_rows() -> Iterator[Case]:
    model, x = table_model(), rows()
    made = Artefacts(model, x)
    yield Case(
        "KernelSHAP(background=0.3), exact",
        "ShapleyValues",
        lambda: made.run(pg.KernelSHAP(background=0.3, samples=64, target=_CLASS), x),
        lambda: np.asarray(
            ca.ShapleyValues(model).attribute(
                to_torch(x), baselines=torch.full((1, 6), 0.3), target=_CLASS
            )
        ),
    )
