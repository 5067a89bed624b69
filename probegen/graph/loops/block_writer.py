"""Writes a `Scan` whose turn takes a block of time steps.

What depends on no step before (products with weights, activations, their slopes) is computed for a
whole block at once: few operators, on tensors that stay in a processor's cache. Only what goes from
step to step is written once a step, one behind the other in the body:

    [time, batch, width] -> [blocks, steps * batch, width], a turn a block

The number of steps is no multiple of the block's size in general. Rows of zeros are put in where
the caller says, in front of the first step or behind the last, and what is collected there is left
out in the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, dims_of, shape_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter

#: What is smaller counts as zero in `without_tiny`. Gradients fade from step to step, and
#: processors are slow, tenfold and more, at numbers below 1e-38.
_TINY = 1e-30


class BlockWriter:
    """One `Scan` in the making, over sequences `[time, batch, width]` of equal time and batch.

    Attributes:
        body: writes the nodes of a block; they may read any value of the graph around.
        steps: how many steps a block has.
    """

    def __init__(self, builder: Builder, like: ir.Value, steps: int) -> None:
        """Begins a loop.

        Args:
            builder: writes into the graph around.
            like: a value whose first two sizes are those of all sequences.
            steps: how many steps a block has.
        """
        self._outer, self._like = builder, like
        self._time, self._batch = (shape_of(like) or (None, None))[:2]
        self._loop = StepWriter(builder)
        self.steps = steps
        self.body = self._loop.body

    @property
    def rows(self) -> Dim:
        """How many rows a block has: one for each step and sample."""
        return self._batch * self.steps if isinstance(self._batch, int) else None

    def carry(self, initial: ir.Value) -> ir.Value:
        """Returns what a block finds of a carried value that starts as `initial`."""
        return self._loop.carry(initial)

    def blocks(self, sequence: ir.Value, width: int, *, in_front: bool) -> ir.Value:
        """Returns a sequence in blocks, `[blocks, steps * batch, width]`.

        Args:
            sequence: `[time, batch, width]`.
            width: its last size.
            in_front: put zeros in front of the first step, and else behind the last.
        """
        outer, missing = self._outer, self._missing()
        if missing is not None:
            none, others = outer.ints(0), outer.ints(0, 0)
            ends = (missing, others, none, others) if in_front else (none, others, missing, others)
            widths = outer.concat(list(ends), 0)
            sequence = outer.op("Pad", sequence, widths, shape=[self._whole, self._batch, width])
        rows = outer.ints(self.rows) if isinstance(self.rows, int) else self._count_rows()
        sizes = outer.concat([outer.ints(-1), rows, outer.ints(width)], 0)
        count = self._whole // self.steps if isinstance(self._whole, int) else None
        return outer.op("Reshape", sequence, sizes, shape=[count, self.rows, width])

    def read(self, blocks: ir.Value, *, backwards: bool) -> ir.Value:
        """Returns one of the blocks, `[steps * batch, width]`, the first step in front.

        Args:
            blocks: `[blocks, steps * batch, width]`.
            backwards: run from the last block to the first.
        """
        return self._loop.read(blocks, backwards=backwards)

    def each(self, block: ir.Value, *, backwards: bool) -> list[ir.Value]:
        """Returns the steps of a block, `[batch, width]` each, in the order of the run."""
        shape = [self._batch, dims_of(block)[1]]
        parts = self.body.ops(
            "Split",
            block,
            outputs=self.steps,
            shapes=[shape] * self.steps,
            axis=0,
            num_outputs=self.steps if self.body.opset >= 18 else None,
        )
        return list(parts[::-1] if backwards else parts)

    def join(self, run: Sequence[ir.Value], *, backwards: bool) -> ir.Value:
        """Returns the block of steps that are given in the order of the run."""
        ordered = run[::-1] if backwards else run
        shape = [self.rows, dims_of(run[0])[1]]
        return self.body.op("Concat", *ordered, axis=0, shape=shape)

    def without_tiny(self, carried: ir.Value) -> ir.Value:
        """Returns a carried gradient with zeros in the place of the smallest numbers."""
        size = self.body.op("Abs", carried, shape=carried)
        return self.body.where(self.body.elementwise("Less", size, _TINY), 0.0, carried)

    def finish(
        self, carried: Sequence[ir.Value], collected: Sequence[Collected]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Writes the node.

        Args:
            carried: what each carried value becomes after a block, in the order of `carry`.
            collected: blocks `[steps * batch, width]`.

        Returns:
            The carried values after the last block, and what was collected, in blocks.
        """
        return self._loop.finish(carried, collected)

    def steps_of(self, blocks: ir.Value, *, in_front: bool) -> ir.Value:
        """Returns blocks as `[time, batch, width]`, less what was put in; see `blocks`."""
        outer, width = self._outer, dims_of(blocks)[2]
        if not isinstance(width, int):
            raise TypeError("the width of what is collected in blocks has to be known")
        batch = outer.size(self._like, 1)
        sizes = outer.concat([outer.ints(-1), batch, outer.ints(width)], 0)
        missing, shape = self._missing(), [self._time, self._batch, width]
        if missing is None:
            return outer.op("Reshape", blocks, sizes, shape=shape)
        whole = outer.op("Reshape", blocks, sizes, shape=[self._whole, *shape[1:]])
        start, end = outer.ints(0), outer.size(self._like, 0)
        if in_front:
            start, end = missing, outer.ints(2**31 - 1)
        return outer.op("Slice", whole, start, end, outer.ints(0), shape=shape)

    # -- sizes -------------------------------------------------------------------------------

    @property
    def _whole(self) -> Dim:
        """How many steps whole blocks have; None where the length is open."""
        return -(-self._time // self.steps) * self.steps if isinstance(self._time, int) else None

    def _missing(self) -> ir.Value | None:
        """Returns how many steps are missing for whole blocks, int64 `[1]`; None where none are."""
        outer = self._outer
        if isinstance(self._time, int):
            number = -self._time % self.steps
            return outer.ints(number) if number else None
        negative = outer.op("Neg", outer.size(self._like, 0), shape=[1])
        return outer.op("Mod", negative, outer.ints(self.steps), shape=[1])

    def _count_rows(self) -> ir.Value:
        batch = self._outer.size(self._like, 1)
        return self._outer.op("Mul", batch, self._outer.ints(self.steps), shape=[1])
