"""pytorch-grad-cam, on a torch model whose ONNX file is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_grad_cam as cams
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import probegen as pg
from peers.case import Array, Case
from peers.torch_models import Artefacts, image_model, images, to_torch

_CLASS = 2


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
            found = cam.get_cam_image(data, layer, targets, values, slopes, False)
        return np.maximum(np.asarray(found), 0)

    for name, kind, note in (
        ("GradCAM", "GradCAM", ""),
        ("GradCAMPlusPlus", "GradCAMPlusPlus", ""),
        ("HiResCAM", "HiResCAM", ""),
        ("LayerCAM", "LayerCAM", ""),
        ("XGradCAM", "XGradCAM", ""),
        ("EigenCAM", "EigenCAM", ""),
    ):
        yield Case(
            f"{name}(target=2)",
            kind,
            lambda name=name: made.run(getattr(pg, name)(target=_CLASS), x),
            lambda kind=kind: theirs(kind),
            note=note,
        )
