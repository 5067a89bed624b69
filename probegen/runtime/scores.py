"""The score that an attribution explains, one number a sample, read from predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from probegen.artefact.manifest import DRAWN_AS_ACTIVATION, Manifest, OutputSpec, TargetSpec
from probegen.artefact.rows import BATCH, CHANNELS, rows_first
from probegen.artefact.seeds import seed
from probegen.errors import InputError
from probegen.runtime.inputs import Array

ARGMAX, INDEX, INPUT, CONTRAST = "argmax", "index", "input", "contrast"


@dataclasses.dataclass(frozen=True)
class Score:
    """Which entries of a prediction are summed up to the score of each sample.

    Attributes:
        output: name of the prediction.
        axes: its axes.
        chosen: 1 where an entry counts, -1 where it is taken away, 0 elsewhere, `[batch, ...]`;
            where a region weighs positions, times its weights.
    """

    output: str
    axes: tuple[str, ...]
    chosen: Array

    def of(self, predictions: Mapping[str, Any]) -> Array:
        """Returns the score of each sample, float64 `[batch]`.

        Args:
            predictions: of the same samples, perhaps changed, in the same order: arrays or records
                by output name.
        """
        values = rows_first(np.asarray(predictions[self.output], np.float64), self.axes)
        # An entry that does not count may be infinite.
        counted = np.where(self.chosen != 0, values * self.chosen, 0.0)
        return np.asarray(counted.reshape(len(counted), -1).sum(1))

    def classes(self) -> Array | None:
        """Returns the one class of each sample, None where a score is of several entries."""
        flat = self.chosen.reshape(len(self.chosen), -1)
        one = self.chosen.ndim == 2 and (np.abs(flat).sum(1) == 1).all()
        return flat.argmax(1) if one else None


def score_of(
    spec: OutputSpec,
    manifest: Manifest,
    predictions: Mapping[str, Any],
    request: Array | None = None,
    region: Array | None = None,
) -> Score:
    """Returns what an output explains, with the classes that these predictions decide for.

    The classes stay those whatever happens to the inputs afterwards.

    Args:
        spec: an attribution.
        manifest: of the artefact.
        predictions: of the samples as they are, by output name.
        request: the classes that were asked for, int `[batch]`, -1 meaning a row's own argmax.
        region: what each position counts, `[batch, ...positions]`, where the target takes a region.

    Raises:
        InputError: the score is not among the predictions.
    """
    target = spec.target
    known = [p.name for p in manifest.predictions]
    if target is not None and target.layer is not None:
        return _of_layer(spec, target, manifest, predictions, region)
    if target is None:
        raise InputError(f"the output {spec.name!r} explains no score: it has no target.")
    if target.mode not in (ARGMAX, INDEX, INPUT, CONTRAST) or target.output not in known:
        raise InputError(
            f"the output {spec.name!r} explains {_said(target)}, which is no entry of the "
            f"artefact's predictions ({', '.join(map(repr, known))}), so that it cannot be "
            "followed. Compile it with a class index, 'argmax' or 'input' for a target."
        )
    described = manifest.output(target.output)
    return _chosen(described, predictions, target, request, region)


def _chosen(
    described: OutputSpec,
    outputs: Mapping[str, Any],
    target: TargetSpec,
    request: Array | None,
    region: Array | None,
) -> Score:
    """Returns the score that is entries of one output."""
    axes = described.axes
    values = rows_first(np.asarray(outputs[described.name], np.float64), axes)
    named = (BATCH, *(name for name in axes if name != BATCH))
    at = next((i for i, name in enumerate(named) if name in CHANNELS), None)
    weights = region if target.region else None
    if weights is not None and at is not None:
        weights = np.expand_dims(weights, at)
    if target.mode == INDEX or at is None:
        return Score(described.name, axes, seed(values, target, request, weights))
    # The class is picked along the last axis.
    turned = None if weights is None else np.moveaxis(weights, at, -1)
    chosen = seed(np.moveaxis(values, at, -1), target, request, turned)
    return Score(described.name, axes, np.moveaxis(chosen, -1, at))


def _of_layer(
    spec: OutputSpec,
    target: TargetSpec,
    manifest: Manifest,
    outputs: Mapping[str, Any],
    region: Array | None,
) -> Score:
    """Returns the score that is entries of a layer's output, where that is given out whole."""
    for output in manifest.outputs:
        own = (output.layer, output.call) == (target.layer, target.call)
        whole = not output.detail.get("reduce") and not output.detail.get("channels")
        given = own and whole and output.draw == DRAWN_AS_ACTIVATION and output.name in outputs
        if given and target.mode == INDEX:
            return _chosen(output, outputs, target, None, region)
    raise InputError(
        f"the output {spec.name!r} explains entries of the layer {target.layer!r}, which no "
        "prediction tells, so that the score cannot be followed. Take an output that explains a "
        "prediction."
    )


def _said(target: TargetSpec) -> str:
    if target.mode == "callable":
        return target.name or "a function of the outputs"
    return f"a target of the mode {target.mode!r}"
