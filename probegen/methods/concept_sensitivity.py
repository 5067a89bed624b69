"""Sensitivity of a score to concepts (Kim et al. 2018, TCAV)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from probegen.errors import InstrumentError, SpecError
from probegen.methods.arrays import StoredArray, stored_array
from probegen.methods.axes import (
    BATCH,
    Axes,
    Sizes,
    batch_first,
    channel_axis,
    position_axes,
    sample_axes,
    without,
)
from probegen.methods.base import OfLayerOutput, Selector
from probegen.methods.fields import option
from probegen.methods.operations import Operations, T
from probegen.methods.samples import Place
from probegen.methods.targets import Target

CONCEPT = "concept"
#: Axes of one vector over channels.
_OVER_CHANNELS = 2


@dataclasses.dataclass(frozen=True)
class ConceptSensitivity(OfLayerOutput):
    """The slope of the target along stored concept vectors (Kim et al. 2018, eq. 1).

    `[batch, concept]`, signed: how much the score rises a unit of length along each vector in the
    layer's output. Vectors are taken as they are; give them the length 1 to compare them, as
    `runtime.concept_vector` does. `runtime.tcav` makes scores of the numbers. A layer that is
    called several times gives one output a call, `concept_sensitivity/<path>#<call>`.

    Attributes:
        layer: a selector of layers, of any output that a gradient reaches.
        vectors: one a concept, `[concept, ...]` with the layer's axes but the batch behind, as
            `runtime.concept_vector` returns them from `pg.Activations(layer)`; or `[concept,
            channel]` for a layer with positions: such a vector stands at every position, and the
            slopes are summed over them. A numpy array, nested lists or the path of an `.npy` file.
            The artefact holds them once.
        names: what the concepts are called, one a vector; pictures and `runtime.tcav` show them.
        target, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "concept_sensitivity"
    title: ClassVar[str] = "Concept sensitivity"
    help: ClassVar[str] = "Slopes of the score along the concept vectors of --vectors at LAYER."
    unit: ClassVar[str] = "score per unit of the layer's output"
    equation: ClassVar[str] = "sum of (d target / d output of the layer) * vector"
    paper: ClassVar[str] = "Kim et al. 2018, eq. 1"

    layer: Selector
    vectors: StoredArray = option(dataclasses.MISSING, "Concept vectors (.npy)")
    target: Target = "argmax"
    name: str | None = None
    names: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        vectors = stored_array(self.vectors, "vectors")
        if len(vectors.shape) < _OVER_CHANNELS:
            raise SpecError(
                f"vectors= has the shape {vectors.shape}; it takes [concept, ...], a row for each "
                "concept. One vector v is given as v[None]."
            )
        object.__setattr__(self, "vectors", vectors)
        if self.names is not None:
            object.__setattr__(self, "names", self._checked_names(self.names))

    def _checked_names(self, names: Any) -> tuple[str, ...]:
        words = (names,) if isinstance(names, str) else names
        count = self.vectors.shape[0]
        if not isinstance(words, Sequence) or not all(isinstance(n, str) and n for n in words):
            raise SpecError(f"names= takes a word for each concept, got {names!r}.")
        if len(words) != count or len(set(words)) < count:
            raise SpecError(
                f"names={list(words)!r}: there are {count} vectors, each of which needs a name of "
                "its own."
            )
        return tuple(words)

    def check_places(self, places: Sequence[tuple[Place, Sizes]]) -> None:
        """Checks the vectors against the outputs of the layers.

        Raises:
            InstrumentError: they do not fit; says what would.
        """
        for place, sizes in places:
            named, _ = batch_first(place.axes)
            behind = tuple(sizes[i] for i in sample_axes(place.axes))
            fits = [behind] if behind else []
            channel = channel_axis(named)
            if channel is not None and len(behind) >= _OVER_CHANNELS:
                fits.append((behind[channel - 1],))
            if self.vectors.shape[1:] not in fits:  # an open size is None, which no size is
                raise InstrumentError(self._misfit(place.name, named[1:], behind, fits))

    def _misfit(self, layer: str, axes: Axes, sizes: Sizes, fits: Sequence[Sizes]) -> str:
        shown = ", ".join(
            f"{axis} {'open' if size is None else size}"
            for axis, size in zip(axes, sizes, strict=True)
        )
        known = [w for w in fits if None not in w]
        forms = " or ".join(f"[concept, {', '.join(map(str, wanted))}]" for wanted in known)
        return (
            f"vectors= has the shape {self.vectors.shape}, which does not fit layer {layer!r} "
            f"({shown or 'no axis but the batch'}): "
            + (f"it takes {forms}." if forms else "it takes a layer whose sizes are known.")
        )

    def result(self, axes: Axes, sizes: Sizes, layer: str = "the layer") -> tuple[Axes, Sizes]:
        """Returns batch and concepts."""
        del layer
        batch = sizes[axes.index(BATCH)] if BATCH in axes else 1
        return (BATCH, CONCEPT), (batch, self.vectors.shape[0])

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the inner products of the gradient and each vector."""
        named, order = batch_first(axes)
        rows = gradient if BATCH in axes else ops.expand_dims(gradient, (0,))
        rows = ops.transpose(rows, order)
        if len(self.vectors.shape) == _OVER_CHANNELS and channel_axis(named) is not None:
            rows = ops.sum(rows, position_axes(named))
            named = without(named, *position_axes(named))
        slopes = ops.joined(rows, 1, len(named) - 1)
        # The vectors as they are stored, so that the artefact holds them once.
        vectors = ops.constant(np.reshape(self.vectors.values, (self.vectors.shape[0], -1)), value)
        return ops.transpose(ops.matmul(vectors, ops.transpose(slopes, (1, 0))), (1, 0))

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns what the concepts are called, and the shape of their vectors."""
        del axes
        names = None if self.names is None else list(self.names)
        return {"names": names, "vectors": list(self.vectors.shape)}
