"""Zennit, on a torch model whose ONNX file is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from zennit import composites, rules
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm

import probegen as pg
from peers.case import Array, Case
from peers.torch_models import Artefacts, image_model, images, normalised_image_model, to_torch

_CLASS, _CLASSES = 2, 5
_LOW, _HIGH = -3.0, 4.0
#: Batch normalisation goes into the convolution before it.
_CANONIZERS = [SequentialMergeBatchNorm()]
_LAYERS = (torch.nn.Conv2d, torch.nn.Linear)
#: What zennit's composites do with the rest.
_OTHERS = [(torch.nn.ReLU, rules.Pass()), (torch.nn.AvgPool2d, rules.Norm())]


def cases() -> Iterator[Case]:
    """Yields the comparisons."""
    x = np.clip(images(), _LOW + 0.1, _HIGH - 0.1)
    for what, model in (("", image_model()), (", batch norm", normalised_image_model())):
        made = Artefacts(model, x)

        def theirs(composite: Any, model: Any = model) -> Array:
            data = to_torch(x, gradient=True)
            seeds = torch.eye(_CLASSES)[[_CLASS] * len(x)]
            with Gradient(model=model, composite=composite) as attributor:
                scores, _ = attributor(data, seeds)
                score = scores[:, _CLASS].detach()
                _, found = attributor(data, seeds * score[:, None])
            return np.asarray(found.detach())

        def ours(probe: Any, made: Artefacts = made) -> Array:
            return made.run(probe, x)

        for text, probe, rule in (
            (
                "rule='epsilon', epsilon=1e-3",
                {"rule": "epsilon", "epsilon": 1e-3},
                rules.Epsilon(1e-3),
            ),
            ("rule='zplus'", {"rule": "zplus"}, rules.ZPlus()),
            ("rule='gamma'", {"rule": "gamma"}, rules.Gamma(0.25)),
            ("rule='alpha_beta'", {"rule": "alpha_beta"}, rules.AlphaBeta(2, 1)),
            ("rule='wsquare'", {"rule": "wsquare"}, rules.WSquare()),
            ("rule='flat'", {"rule": "flat"}, rules.Flat()),
        ):
            yield Case(
                f"LRP({text}){what}",
                f"{type(rule).__name__} on every layer",
                lambda probe=probe: ours(pg.LRP(**probe, target=_CLASS)),
                lambda rule=rule: theirs(
                    composites.LayerMapComposite([(_LAYERS, rule), *_OTHERS], _CANONIZERS)
                ),
                limit=5e-3 if what and "epsilon" in text else 1e-4,
                note="Sums near 0 divide: the rounding of merged weights shows." if what else "",
            )
        for name, composite in (
            ("epsilon_plus", composites.EpsilonPlus(canonizers=_CANONIZERS)),
            ("epsilon_plus_flat", composites.EpsilonPlusFlat(canonizers=_CANONIZERS)),
            ("epsilon_alpha2_beta1", composites.EpsilonAlpha2Beta1(canonizers=_CANONIZERS)),
            (
                "epsilon_alpha2_beta1_flat",
                composites.EpsilonAlpha2Beta1Flat(canonizers=_CANONIZERS),
            ),
            (
                "epsilon_gamma_box",
                composites.EpsilonGammaBox(low=_LOW, high=_HIGH, canonizers=_CANONIZERS),
            ),
        ):
            more = {"low": _LOW, "high": _HIGH} if name.endswith("box") else {}
            yield Case(
                f"LRP(composite={name!r}){what}",
                type(composite).__name__,
                lambda name=name, more=more: ours(pg.LRP(composite=name, **more, target=_CLASS)),
                lambda composite=composite: theirs(composite),
            )
