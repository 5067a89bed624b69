"""Positions of an input: what an attribution gives them, and hiding them.

A position is a pixel, a voxel, a step or a token with all its channels; of a vector it is a
feature. What an attribution gives the channels of a position is joined into one number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from probegen.artefact.manifest import (
    CLASS,
    DRAWN_AS_ATTENTION,
    SIGNED,
    STEP,
    InputSpec,
    OutputSpec,
)
from probegen.artefact.preprocessing import PLACED_DETAIL
from probegen.artefact.rows import BATCH, rows_first
from probegen.errors import InputError
from probegen.runtime.axes import CHANNEL
from probegen.runtime.inputs import Array, describe
from probegen.runtime.resize import over_picture, resize
from probegen.runtime.texts.whole_words import joined_by

#: What stands in the unit of a derivative, such as "score per unit of input".
_PER_UNIT = " per unit of "


@dataclasses.dataclass(frozen=True)
class Positions:
    """The positions of one input.

    Attributes:
        spec: the input.
        axes: the names of their axes, in the input's order.
    """

    spec: InputSpec
    axes: tuple[str, ...]

    @classmethod
    def of(cls, spec: InputSpec) -> Positions:
        """Returns those of an input: all axes but batch and channels, or all of a vector's."""
        inner = tuple(axis for axis in spec.axes if axis != BATCH)
        places = tuple(axis for axis in inner if axis not in CHANNEL)
        return cls(spec, places or inner)

    def sizes(self, value: Array) -> tuple[int, ...]:
        """Returns how many positions there are along each of their axes.

        Args:
            value: what is fed to the input.
        """
        return tuple(value.shape[self.spec.axes.index(axis)] for axis in self.axes)

    def over(self, chosen: Array) -> Array:
        """Returns an array `[batch, ...positions]` so that it broadcasts against the input."""
        names = (BATCH, *self.axes)
        if BATCH not in self.spec.axes:  # one sample, which stands for all
            names, chosen = self.axes, chosen[0]
        kept = [axis for axis in self.spec.axes if axis in names]
        moved = np.transpose(chosen, [names.index(axis) for axis in kept])
        missing = [i for i, axis in enumerate(self.spec.axes) if axis not in names]
        return np.expand_dims(moved, missing)

    def map_of(self, spec: OutputSpec, array: Array, sizes: Sequence[int]) -> Array:
        """Returns one number a position, float64 `[batch, ...positions]`.

        Further axes of the attribution are joined: signed numbers are summed up, of others the
        largest is taken; of the slopes at an embedding the Euclidean norm, as in pictures. A map
        that is coarser than the input is brought to its size linearly.

        Args:
            spec: the attribution.
            array: its values.
            sizes: of the positions.

        Raises:
            InputError: it does not say something of each of these positions.
        """
        axes = tuple(axis for axis in spec.axes if axis != BATCH)
        lacking = [axis for axis in self.axes if axis not in axes]
        if CLASS in axes and CLASS not in self.axes:
            raise InputError(
                f"the output {spec.name!r} has a map for each of several classes; take an output "
                "of one class, such as one compiled with target='input'."
            )
        if spec.target is not None and spec.target.step is not None and STEP in axes:
            raise InputError(
                f"the output {spec.name!r} has a map for each step of the model's output; take an "
                "output of one step, such as one compiled with target=(-1, 2)."
            )
        if lacking or len(set(axes)) < len(axes):
            raise InputError(
                f"the output {spec.name!r} has the axes {describe(spec.axes, spec.shape)}, which "
                f"give no number to each position of the input {self.spec.name!r}: "
                f"{describe(self.spec.axes, self.spec.shape)}. Take an attribution of that input, "
                f"or of a layer that has the axes {', '.join(self.axes)}."
            )
        values = rows_first(np.asarray(array, np.float64), spec.axes)
        rest = [axis for axis in axes if axis not in self.axes]
        order = [1 + axes.index(axis) for axis in (*self.axes, *rest)]
        values = np.transpose(values, (0, *order))
        values = _joined(values.reshape(*values.shape[: 1 + len(self.axes)], -1), spec, self.spec)
        if (
            self.spec.preprocessing is not None and PLACED_DETAIL not in spec.detail
        ):  # of a picture, whose axes stand in this order
            height, width = sizes
            how = self.spec.preprocessing
            return np.stack([over_picture(row, (height, width), how) for row in values])
        return np.stack([resize(row, tuple(sizes)) for row in values])


def _joined(values: Array, spec: OutputSpec, of: InputSpec) -> Array:
    """Joins the last axis."""
    if values.shape[-1] == 1:
        return values[..., 0]
    slopes_at_embedding = is_derivative(spec) and not set(of.axes) & set(CHANNEL)
    if slopes_at_embedding:
        return np.asarray(np.linalg.norm(values, axis=-1))
    return np.asarray(values.sum(-1) if spec.sign == SIGNED else values.max(-1))


def is_derivative(spec: OutputSpec) -> bool:
    """Tells whether numbers are slopes, which are no shares of a score and cannot be added up."""
    return _PER_UNIT in spec.unit


def joined_as(spec: OutputSpec) -> str:
    """Returns how numbers of an attribution or of attention to pieces become that of their word.

    Args:
        spec: of the attribution; numbers at an embedding are one a token already (`map_of`).
    """
    slopes = is_derivative(spec)
    lengths = slopes and len(spec.axes) > 2  # of the slopes at an embedding
    return joined_by(
        signed=spec.sign == SIGNED and not lengths,
        share=spec.draw == DRAWN_AS_ATTENTION,
        derivative=slopes,
    )


def explained_input(spec: OutputSpec, inputs: Sequence[InputSpec]) -> InputSpec:
    """Returns the input that an attribution explains; for that of a layer the one that fits.

    Raises:
        InputError: there is none, or more than one.
    """
    for one in inputs:
        if one.name == spec.input:
            return one
    fitting = [one for one in inputs if set(Positions.of(one).axes) <= set(spec.axes)]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(f"{one.name!r} {describe(one.axes, one.shape)}" for one in inputs)
    raise InputError(
        f"the output {spec.name!r} {describe(spec.axes, spec.shape)} explains "
        f"{'more than one' if fitting else 'none'} of the inputs {shown}, so its numbers belong to "
        "no positions. Take an attribution of an input."
    )
