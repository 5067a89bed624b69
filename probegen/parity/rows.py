"""A reference whose arrays have their samples along the first axis, whatever the model's have.

Everything in `parity` goes sample by sample. Inputs stay as the model takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import COMPLETENESS
from probegen.artefact.rows import as_described, batch_axis, count_rows, rows_first
from probegen.errors import VerificationError
from probegen.parity.completeness import size_name
from probegen.plan.axes import Axes
from probegen.plan.plan import GradientGroup, TensorRef
from probegen.sources.base import MovedScores, Noise, Reference, WrappedReference

Array = npt.NDArray[Any]
#: Inputs and what tensors are moved by -> scores, and the tensors.
_Moves = Callable[
    [Mapping[str, Array], Mapping[TensorRef, Array]], tuple[list[Array], dict[TensorRef, Array]]
]


class RowsReference(WrappedReference):
    """Wraps a reference; see `sources.base.Reference`."""

    def __init__(self, inner: Reference) -> None:
        super().__init__(inner)
        outputs = inner.plan.manifest.outputs
        self._axes = {o.name: o.axes for o in outputs}
        self._axes |= {size_name(o.name): o.axes for o in outputs if o.kind == COMPLETENESS}

    def rows(self, feed: Mapping[str, Array]) -> int:
        """Returns the number of samples in inputs."""
        return count_rows(feed, self.plan.manifest.inputs)

    def arranged(self, values: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """Returns outputs with their samples first.

        Raises:
            VerificationError: one has another number of samples than the inputs.
        """
        strange: dict[str, str] = {}
        for name, value in values.items():
            axes = self._axes[name]
            at = batch_axis(axes) if len(axes) == value.ndim else None
            if at is not None and value.shape[at] != rows:
                strange[name] = f"{value.shape[at]} entries along its axis {at}"
        if strange:
            raise VerificationError(self._no_rows(strange, rows))
        return {name: rows_first(v, self._axes[name], rows) for name, v in values.items()}

    def _no_rows(self, strange: Mapping[str, str], rows: int) -> str:
        """Returns what is said of outputs of which an axis is taken for the samples and is not.

        Args:
            strange: name of an output -> what it has along that axis.
            rows: how many samples there are.
        """
        first = next(iter(strange))
        layers = {o.name: o.layer for o in self.plan.manifest.outputs if o.layer is not None}
        asked = sorted({layers[name] for name in strange if name in layers})
        said = (
            f"output {first!r} has {strange[first]}, which is taken for the batch, for {rows} "
            "samples. "
        )
        if asked:
            return said + (
                "What the layer works on joins samples with windows, frames or the like, or has "
                f"no samples. Leave such layers out: lambda point: point.path not in {asked}."
            )
        return said + (
            f"Say what its axes are (inputs={{{first!r}: ...}} for an ONNX model), or export the "
            "model so that its outputs keep the batch."
        )

    def predictions(self, feed: Mapping[str, Array], times: int = 1) -> list[dict[str, Array]]:
        """Returns what the untouched model predicts."""
        rows = self.rows(feed)
        return [self.arranged(a, rows) for a in self._inner.predictions(feed, times)]

    def explanations(
        self, feed: Mapping[str, Array], target: Array | None, noise: Noise | None = None
    ) -> dict[str, Array]:
        """Returns all outputs of the plan."""
        return self.arranged(self._inner.explanations(feed, target, noise), self.rows(feed))

    def without_rounding(self, feed: Mapping[str, Array], target: Array | None) -> dict[str, Array]:
        """Returns outputs without their rounding."""
        return self.arranged(self._inner.without_rounding(feed, target), self.rows(feed))

    def with_coarse_sigmoids(
        self, feed: Mapping[str, Array], target: Array | None
    ) -> dict[str, Array]:
        """Returns outputs with sigmoids that are exact to a rounding of 1."""
        return self.arranged(self._inner.with_coarse_sigmoids(feed, target), self.rows(feed))

    def predictions_with(
        self, feed: Mapping[str, Array], weights: Mapping[str, Array]
    ) -> dict[str, Array] | None:
        """Returns what the model predicts with attention weights in the place of its own."""
        own = {name: as_described(w, self._axes[name]) for name, w in weights.items()}
        found = self._inner.predictions_with(feed, own)
        return None if found is None else self.arranged(found, self.rows(feed))

    def moved_scores(self) -> MovedScores | None:
        """Returns what a third witness moves tensors in."""
        moved = self._inner.moved_scores()
        axes = {r: a for g in self.plan.groups for o in g.outputs for r, a in o.moves}
        axes |= {o.ref: o.axes for g in self.plan.groups for o in g.outputs}
        return None if moved is None else RowsMovedScores(moved, axes)


class RowsMovedScores:
    """Wraps moved scores: tensors, and what is added to them, have their samples first."""

    def __init__(self, inner: MovedScores, axes: Mapping[TensorRef, Axes]) -> None:
        self._inner, self._axes = inner, axes

    def at(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns the scores of each group, and the tensors before they are moved."""
        return self._turned(self._inner.at, feed, shifts)

    def holding_masks(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns as `at` the scores where masks stay those of the unmoved tensors."""
        return self._turned(self._inner.holding_masks, feed, shifts)

    def _turned(
        self, at: _Moves, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        turned = {
            ref: shift if np.ndim(shift) == 0 else as_described(shift, self._axes[ref])
            for ref, shift in shifts.items()
        }
        scores, tensors = at(feed, turned)
        return scores, {ref: rows_first(t, self._axes[ref]) for ref, t in tensors.items()}

    def is_held_back(self, group: GradientGroup, ref: TensorRef) -> bool:
        """Tells whether the model stops some gradients on the way from a tensor to the score."""
        return self._inner.is_held_back(group, ref)
