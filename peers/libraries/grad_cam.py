"""pytorch-grad-cam, on a torch model whose ONNX file is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytorch_grad_cam as cams
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import probegen as pg
from peers.case import Array, Case
from peers.torch_models import Artefacts, image_model, images, to_torch

_CLASS, _CLOSE = 2, 1e-4


def cases() -> Iterator[Case]:
    """Yields the comparisons."""
    model, x = image_model(), images()
    made = Artefacts(model, x)
    layer = model[4]

    def theirs(kind: Any) -> Array:
        """Returns the map at the layer itself, before it is scaled to the image."""
        with cams.__dict__[kind](model=model, target_layers=[layer]) as cam:
            targets = [ClassifierOutputTarget(_CLASS)] * len(x)
            data = to_torch(x, gradient=True)
            cam.forward(data, targets)
            values = cam.activations_and_grads.activations[-1].detach().numpy()
            slopes = None
            if cam.uses_gradients:
                slopes = cam.activations_and_grads.gradients[-1].detach().numpy()
            found = np.asarray(cam.get_cam_image(data, layer, targets, values, slopes, False))
        if kind == "EigenCAM":  # the mean activation lies on the positive side
            means = values - values.mean(axis=(2, 3), keepdims=True)
            direction = np.einsum("bchw,bhw->bc", means, found)
            side = np.sign((direction * values.mean(axis=(2, 3))).sum(axis=1))
            found = found * side[:, None, None]
        return np.maximum(found, 0)

    def scored() -> Array:
        with cams.ScoreCAM(model=model, target_layers=[layer]) as cam:
            targets = [ClassifierOutputTarget(_CLASS)] * len(x)
            cam.activations_and_grads(to_torch(x))
            values = cam.activations_and_grads.activations[-1].detach().numpy()
            half_pixels = partial(nn.Upsample, mode="bilinear", align_corners=False)
            with mock.patch.object(nn, "UpsamplingBilinear2d", half_pixels):
                found = cam.get_cam_image(to_torch(x), layer, targets, values, None, False)
        return np.maximum(np.asarray(found), 0)

    yield Case(
        "ScoreCAM()",
        "ScoreCAM",
        lambda: made.run(pg.ScoreCAM(target=_CLASS), x),
        scored,
        note="It aligns corners where it enlarges a channel; given half pixels, as ours.",
    )
    for name, arguments, limit, note in (
        ("GradCAM", {}, _CLOSE, ""),
        (
            "GradCAMPlusPlus",
            {},
            2e-2,
            "It adds 1e-6 to denominators that are of the size of squared gradients.",
        ),
        ("HiResCAM", {}, _CLOSE, ""),
        ("LayerCAM", {}, _CLOSE, ""),
        ("XGradCAM", {}, _CLOSE, ""),
        (
            "EigenCAM",
            {"centre": True},
            _CLOSE,
            "It centres, as centre=True does; the sign of its direction is that of its SVD, and is "
            "turned to ours.",
        ),
    ):
        probe = getattr(pg, name)(target=_CLASS, **arguments)
        yield Case(
            f"{name}({', '.join(f'{k}={v}' for k, v in arguments.items())})",
            name,
            lambda probe=probe: made.run(probe, x),
            lambda name=name: theirs(name),
            limit,
            note,
        )
