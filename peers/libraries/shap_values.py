"""SHAP, on torch models whose ONNX files are compiled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shap
import torch

import probegen as pg
from peers.case import Array, Case
from peers.torch_models import Artefacts, image_model, images, rows, table_model, to_torch

_CLASS = 2


def cases() -> Iterator[Case]:
    """Yields the comparisons."""
    model, x = table_model(), rows()
    made = Artefacts(model, x)
    background = np.random.default_rng(11).normal(size=(5, 6)).astype(np.float32)

    def scores(data: Array) -> Array:
        with torch.no_grad():
            return np.asarray(model(to_torch(data.astype(np.float32))))[:, _CLASS]

    yield Case(
        "KernelSHAP(background=5 rows), exact",
        "KernelExplainer(nsamples=1000), exact",
        lambda: made.run(pg.KernelSHAP(background=background, samples=64, target=_CLASS), x),
        lambda: np.asarray(
            shap.KernelExplainer(scores, background).shap_values(x, nsamples=1000, silent=True)
        ),
    )
    yield Case(
        "KernelSHAP(background=5 rows), exact",
        "ExactExplainer",
        lambda: made.run(pg.KernelSHAP(background=background, samples=64, target=_CLASS), x),
        lambda: np.asarray(
            shap.explainers.Exact(scores, shap.maskers.Independent(background))(x).values
        ),
    )
    yield Case(
        "DeepSHAP(background=5 rows)",
        "DeepExplainer",
        lambda: made.run(pg.DeepSHAP(background, target=_CLASS), x),
        lambda: _deep(model, background, x),
    )
    model_of_images, pictures = image_model(), images()
    made_of_images = Artefacts(model_of_images, pictures)
    others = np.random.default_rng(5).normal(size=(4, 3, 14, 11)).astype(np.float32)
    yield Case(
        "DeepSHAP(background=4 images)",
        "DeepExplainer",
        lambda: made_of_images.run(pg.DeepSHAP(others, target=_CLASS), pictures),
        lambda: _deep(model_of_images, others, pictures),
    )
    yield Case(
        "ExpectedGradients(background=4 images, 4000 samples)",
        "GradientExplainer(nsamples=4000)",
        lambda: made_of_images.run(
            pg.ExpectedGradients(others, samples=4000, target=_CLASS), pictures
        ),
        lambda: np.asarray(
            shap.GradientExplainer(model_of_images, to_torch(others)).shap_values(
                to_torch(pictures), nsamples=4000, rseed=1
            )
        )[..., _CLASS],
        limit=0.1,
        note="Both draw at random: what is left is noise.",
    )


def _deep(model: torch.nn.Module, background: Array, x: Array) -> Array:
    explainer = shap.DeepExplainer(model, to_torch(background))
    found = np.asarray(explainer.shap_values(to_torch(x), check_additivity=True))
    return found[..., _CLASS]
