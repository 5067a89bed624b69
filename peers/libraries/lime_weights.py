"""LIME's own library, on a torch model whose ONNX file is compiled.

The library draws its points from another generator, so it is given ours; distances, kernel, ridge
regression and intercept are its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import sklearn.metrics
import torch
from lime.lime_base import LimeBase
from lime.lime_image import LimeImageExplainer

import probegen as pg
from peers.case import Array, Case
from peers.torch_models import Artefacts, rows, table_model, to_torch

_CLASS, _FEATURES, _SAMPLES = 2, 6, 200


def cases() -> Iterator[Case]:
    """Yields the comparisons."""
    model, x = table_model(), rows()
    made = Artefacts(model, x)
    probe = pg.LIME(samples=_SAMPLES, target=_CLASS)

    def theirs() -> Array:
        kernel = LimeImageExplainer(kernel_width=probe.kernel_width).base.kernel_fn
        base = LimeBase(kernel, random_state=0)
        kept = np.concatenate([np.ones((1, _FEATURES)), probe.coalitions(_FEATURES).kept])
        distances = sklearn.metrics.pairwise_distances(kept, kept[:1], metric="cosine").ravel()
        found = np.zeros((len(x), _FEATURES))
        for i, row in enumerate(x):
            with torch.no_grad():
                scores = np.asarray(model(to_torch((kept * row).astype(np.float32))))
            told = base.explain_instance_with_data(
                kept, scores, distances, _CLASS, _FEATURES, feature_selection="none"
            )[1]
            for feature, weight in told:
                found[i, feature] = weight
        return found

    yield Case(
        f"LIME(samples={_SAMPLES})",
        "LimeBase.explain_instance_with_data",
        lambda: made.run(probe, x),
        theirs,
        note="Given our points.",
    )
