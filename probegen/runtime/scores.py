"""The score that an attribution explains, one number a sample, read from predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from probegen.artefact.manifest import DRAWN_AS_ACTIVATION, Manifest, OutputSpec, TargetSpec
from probegen.artefact.rows import rows_first
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
        chosen: 1 where an entry counts, -1 where it is taken away, 0 elsewhere, `[batch, ...]`.
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
) -> Score:
    """Returns what an output explains, with the classes that these predictions decide for.

    The classes stay those whatever happens to the inputs afterwards.

    Args:
        spec: an attribution.
        manifest: of the artefact.
        predictions: of the samples as they are, by output name.
        request: the classes that were asked for, int `[batch]`, -1 meaning a row's own argmax.

    Raises:
        InputError: the score is not among the predictions.
    """
    target = spec.target
    known = [p.name for p in manifest.predictions]
    if target is not None and target.region:
        raise InputError(
            f"the output {spec.name!r} explains a score that a region of the request weighs, which "
            "cannot be followed. Compile the probe without region= as well, and take its output."
        )
    if target is not None and target.layer is not None:
        return _of_layer(spec, target, manifest, predictions)
    if target is None:
        raise InputError(f"the output {spec.name!r} explains no score: it has no target.")
    if target.mode not in (ARGMAX, INDEX, INPUT, CONTRAST) or target.output not in known:
        raise InputError(
            f"the output {spec.name!r} explains {_said(target)}, which is no entry of the "
            f"artefact's predictions ({', '.join(map(repr, known))}), so that it cannot be "
            "followed. Compile it with a class index, 'argmax' or 'input' for a target."
        )
    described = manifest.output(target.output)
    values = rows_first(np.asarray(predictions[target.output], np.float64), described.axes)
    return Score(target.output, described.axes, seed(values, target, request))


def _of_layer(
    spec: OutputSpec, target: TargetSpec, manifest: Manifest, outputs: Mapping[str, Any]
) -> Score:
    """Returns the score that is entries of a layer's output, where that is given out whole."""
    for output in manifest.outputs:
        own = (output.layer, output.call) == (target.layer, target.call)
        whole = not output.detail.get("reduce") and not output.detail.get("channels")
        given = own and whole and output.draw == DRAWN_AS_ACTIVATION and output.name in outputs
        if given and target.mode == INDEX:
            values = rows_first(np.asarray(outputs[output.name]), output.axes)
            return Score(output.name, output.axes, seed(values, target))
    raise InputError(
        f"the output {spec.name!r} explains entries of the layer {target.layer!r}, which no "
        "prediction tells, so that the score cannot be followed. Take an output that explains a "
        "prediction."
    )


def _said(target: TargetSpec) -> str:
    if target.mode == "callable":
        return target.name or "a function of the outputs"
    return f"a target of the mode {target.mode!r}"
