"""The families that give out tensors of layers, or what is made of attention weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

from probegen.errors import InstrumentError, SpecError
from probegen.methods.axes import Axes, Sizes, behind_batch, without
from probegen.methods.chains import QUERY, Attending, axes_named
from probegen.methods.operations import Operations, T
from probegen.methods.probe import Probe

PAYLOADS = ("float16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class OfLayers(Probe):
    """Gives out a tensor of each selected layer.

    Attributes:
        of_weights: True where that is the attention weights that the layer applies, and not its
            output.
        of_states: True where it is what a recurrent layer keeps from step to step, over time.
    """

    selects: ClassVar[str] = "select"
    of_weights: ClassVar[bool] = False
    of_states: ClassVar[bool] = False

    @property
    def gates(self) -> bool:
        """Of states, whether gates are given out as well: a field."""
        return False

    @property
    def dtype(self) -> str | None:
        """Element type of what is given out, None for the tensor's own: a field with a default."""
        raise NotImplementedError

    def payload(self, ops: Operations[T], value: T, axes: Axes) -> T:
        """Returns what is given out of a tensor.

        Args:
            ops: the array operations.
            value: the tensor.
            axes: its axes.
        """
        del ops, axes
        return value

    @property
    def stack(self) -> bool:
        """Whether layers of one shape come out as one tensor; see `follow`: a field."""
        return False

    def whole(self) -> OfLayers:
        """Returns what gives out the tensors that `follow` makes something of, as they are."""
        raise NotImplementedError

    def everything(self) -> OfLayers:
        """Returns what gives out all from which this gives the positions of some, along the end."""
        raise NotImplementedError

    def beside(self) -> OfLayers | None:
        """Returns what gives one more output beside each, `"<its name>/<kind>"`; None for none."""
        return None

    def follow(
        self,
        ops: Operations[T],
        weights: Sequence[T],
        gradients: Sequence[T],
        layers: Sequence[Attending],
        keys: int,
    ) -> T:
        """Returns what is made of the tensors of several layers together.

        That is what is given out of each, `[batch, layer, ...]`, where a method says no other.

        Args:
            ops: the array operations.
            weights: of each layer, in the order of the forward pass.
            gradients: of the target at these weights; empty for a method without a target.
            layers: which positions each layer reads, and what its axes are.
            keys: the stream whose positions are the keys.
        """
        del gradients, keys
        parts = [self.payload(ops, w, y.axes) for w, y in zip(weights, layers, strict=True)]
        first = layers[0].axes
        left, _ = self.result(first, (None,) * len(first))
        return ops.stack(parts, behind_batch(left))


@dataclasses.dataclass(frozen=True)
class OfAttention(OfLayers):
    """Follows positions through all selected attention layers together.

    Attributes:
        crosses: True where layers may attend from one stream of positions to another.
        holds_identity: True where a matrix of a stream to itself begins with the identity, and
            what is added may be small beside it.
    """

    point: ClassVar[str] = "attention"
    of_weights: ClassVar[bool] = True
    crosses: ClassVar[bool] = False
    holds_identity: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        query = self.query
        whole = isinstance(query, int) and not isinstance(query, bool)
        if not whole and query not in (None, "mean"):
            raise SpecError(f"query= takes an index, 'mean' or None, got {query!r}.")

    @property
    def query(self) -> int | str | None:
        """Which query is given out: an index, `"mean"`, or None for all: a field."""
        raise NotImplementedError

    @property
    def dtype(self) -> str | None:
        """None: that of the weights."""
        return None

    def result(self, axes: Axes, sizes: Sizes, layer: str = "the layer") -> tuple[Axes, Sizes]:
        """Returns the axes and sizes of what is given out, from those of the whole matrix.

        Raises:
            InstrumentError: there is no such query.
        """
        if self.query is None:
            return axes, sizes
        gone = axes_named(axes, QUERY)
        along = [size for i in gone if (size := sizes[i]) is not None]
        size = math.prod(along) if len(along) == len(gone) else None
        if isinstance(self.query, int) and size is not None and not -size <= self.query < size:
            raise InstrumentError(
                f"query={self.query} is out of range: {layer!r} has {size} queries, 0 to "
                f"{size - 1}."
            )
        return without(axes, *gone), tuple(d for i, d in enumerate(sizes) if i not in gone)
