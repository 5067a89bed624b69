"""Small torch models, their ONNX files, and inputs. Shapes are neither square nor round."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from peers.case import Array
from probegen import compile as compile_model
from probegen import runtime


def image_model() -> nn.Module:
    """Returns a convolutional classifier of `[batch, 3, 14, 11]` images, 5 classes."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, (3, 2), padding=(1, 0)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 6 * 3, 10),
        nn.ReLU(),
        nn.Linear(10, 5),
    ).eval()


def strided_image_model() -> nn.Module:
    """Returns the same with strides in the place of pooling."""
    torch.manual_seed(6)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 8, (3, 2), stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 5 * 4, 10),
        nn.ReLU(),
        nn.Linear(10, 5),
    ).eval()


def normalised_image_model() -> nn.Module:
    """Returns the same with batch normalisation, whose statistics are those of some training."""
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, (3, 2), padding=(1, 0)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 6 * 3, 5),
    )
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(16, 3, 14, 11) + 0.3)
        for part in model:
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_()
    return model.eval()


def table_model() -> nn.Module:
    """Returns a classifier of `[batch, 6]` rows, 3 classes, that bends smoothly."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Linear(6, 11), nn.Tanh(), nn.Linear(11, 7), nn.ReLU(), nn.Linear(7, 3)
    ).eval()


def images(count: int = 3) -> Array:
    """Returns images with negative values."""
    return np.random.default_rng(7).normal(0.2, 1.0, (count, 3, 14, 11)).astype(np.float32)


def rows(count: int = 4) -> Array:
    """Returns rows of features."""
    return np.random.default_rng(8).normal(0.0, 1.0, (count, 6)).astype(np.float32)


class Artefacts:
    """Compiles probes into the ONNX file of a torch model, and runs them."""

    def __init__(self, module: nn.Module, example: Array) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.source = Path(self._folder.name) / "model.onnx"
        torch.onnx.export(
            module,
            (torch.from_numpy(example),),
            self.source,
            input_names=["x"],
            output_names=["scores"],
            dynamic_shapes=[{0: torch.export.Dim("batch")}],
            verbose=False,
        )

    def compiled(self, probe: Any, **options: Any) -> Path:
        """Returns the path of an artefact with a probe."""
        path = Path(self._folder.name) / "artefact.onnx"
        compile_model(str(self.source), [probe], str(path), overwrite=True, **options)
        return path

    def run(self, probe: Any, x: Array, **feeds: Any) -> Array:
        """Returns the first explanation of an artefact with a probe."""
        artefact = runtime.load(self.compiled(probe))
        found = artefact.run(x, **feeds)
        return np.asarray(found[artefact.manifest.explanations[0].name].array)


def to_torch(array: Array, *, gradient: bool = False) -> torch.Tensor:
    """Returns an array as a tensor."""
    return torch.from_numpy(array).clone().requires_grad_(gradient)
