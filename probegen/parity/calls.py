"""Calls of an artefact, beside what should have come out of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.parity.samples import Batch

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of the artefact and what should have come out.

    Attributes:
        place: which call it is, from 1.
        batch: what it was called on.
        target: the targets asked for, where the artefact takes some.
        got: the outputs.
        expected: the reference.
    """

    place: int
    batch: Batch
    target: Array | None
    got: Mapping[str, Array]
    expected: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Start:
    """What an output holds before any gradient has added to it: an identity matrix.

    Beside that, what gradients have added may be small, and would not be seen to be wrong. What is
    a small difference of large numbers is looked at relative to these.

    Attributes:
        values: rows first; None where the output holds nothing of the kind.
        relative_to: the size of such numbers, of the output's shape.
    """

    values: Array | None = None
    relative_to: Array | None = None

    def taken_from(self, output: Array) -> Array:
        """Returns an output without it."""
        if self.relative_to is not None and self.relative_to.shape == output.shape:
            sizes = np.where(self.relative_to > 0, self.relative_to, 1.0)
            return np.asarray(output.astype(np.float64) / sizes)
        if self.values is None or output.shape != self.values.shape or not floating(output):
            return output
        rest: Array = output.astype(np.float64) - self.values
        return rest

    @property
    def size(self) -> float:
        """The Euclidean norm of a sample's: what is added to it is rounded with it."""
        if self.values is None:
            return 0.0
        norms = np.linalg.norm(self.values.reshape(len(self.values), -1), axis=1)
        return float(norms.max(initial=0.0))


def floating(values: Array) -> bool:
    """Tells whether an array holds floating numbers, bfloat16 (kind V) included."""
    return values.dtype.kind in "fV"
