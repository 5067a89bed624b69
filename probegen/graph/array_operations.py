"""The array operations that methods are written in, as ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder, Size
from probegen.graph.core.values import Dim, broadcast, dims_of, dtype_of, rank_of, shape_of
from probegen.methods.numpy_operations import linear_weights

_Operand = ir.Value | float
#: Bits of a float32.
_WORD = 32


class OnnxOperations:
    """Writes each operation of `methods.operations.Operations` with a builder."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def constant(self, values: Any, like: ir.Value) -> ir.Value:
        """Returns an initializer of the element type of `like`."""
        return self._builder.const(values, dtype_of(like))

    def cast(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """Writes a Cast, or nothing where the types agree."""
        return self._builder.cast(x, dtype_of(like))

    def zeros_like(self, x: ir.Value) -> ir.Value:
        """Writes ConstantOfShape."""
        return self._builder.zeros_like(x)

    def abs(self, x: ir.Value) -> ir.Value:
        """Writes Abs."""
        return self._builder.op("Abs", x, shape=x)

    def exp(self, x: ir.Value) -> ir.Value:
        """Writes Exp."""
        return self._builder.op("Exp", x, shape=x)

    def log(self, x: ir.Value) -> ir.Value:
        """Writes Log."""
        return self._builder.op("Log", x, shape=x)

    def cos(self, x: ir.Value) -> ir.Value:
        """Writes Cos."""
        return self._builder.op("Cos", x, shape=x)

    def sqrt(self, x: ir.Value) -> ir.Value:
        """Writes Sqrt."""
        return self._builder.op("Sqrt", x, shape=x)

    def relu(self, x: ir.Value) -> ir.Value:
        """Writes Relu."""
        return self._builder.op("Relu", x, shape=x)

    def add(self, a: _Operand, b: _Operand) -> ir.Value:
        """Writes Add, or nothing for the number 0."""
        return self._builder.add(a, b)

    def sub(self, a: _Operand, b: _Operand) -> ir.Value:
        """Writes Sub, or nothing where the number 0 is taken away."""
        if isinstance(a, ir.Value) and not isinstance(b, ir.Value) and b == 0:
            return a
        return self._builder.sub(a, b)

    def mul(self, a: _Operand, b: _Operand) -> ir.Value:
        """Writes Mul, or nothing for the number 1."""
        return self._builder.mul(a, b)

    def div(self, a: _Operand, b: _Operand) -> ir.Value:
        """Writes Div."""
        return self._builder.div(a, b)

    def greater(self, a: _Operand, b: _Operand) -> ir.Value:
        """Writes Greater."""
        return self._builder.elementwise("Greater", a, b)

    def where(self, condition: ir.Value, a: _Operand, b: _Operand) -> ir.Value:
        """Writes Where."""
        return self._builder.where(condition, a, b)

    def sum(self, x: ir.Value, axes: Sequence[int], keepdims: bool = False) -> ir.Value:
        """Writes ReduceSum, or nothing over no axes."""
        return self._builder.reduce("ReduceSum", x, axes, keepdims)

    def mean(self, x: ir.Value, axes: Sequence[int], keepdims: bool = False) -> ir.Value:
        """Writes ReduceMean, or nothing over no axes."""
        return self._builder.reduce("ReduceMean", x, axes, keepdims)

    def max(self, x: ir.Value, axes: Sequence[int], keepdims: bool = False) -> ir.Value:
        """Writes ReduceMax, or nothing over no axes."""
        return self._builder.reduce("ReduceMax", x, axes, keepdims)

    def min(self, x: ir.Value, axes: Sequence[int], keepdims: bool = False) -> ir.Value:
        """Writes ReduceMin, or nothing over no axes."""
        return self._builder.reduce("ReduceMin", x, axes, keepdims)

    def identity(self, like: ir.Value) -> ir.Value:
        """Writes a constant, or EyeLike where the size is open."""
        b = self._builder
        axis = rank_of(like) - 1
        size = (shape_of(like) or ())[axis]
        if isinstance(size, int):
            return b.const(np.eye(size), dtype_of(like))
        length = b.size(like, axis)
        sizes = b.concat([length, length], axis=0)
        zero = ir.tensor(np.zeros(1, dtype_of(like).numpy()))
        square = b.op(
            "ConstantOfShape", sizes, shape=[size, size], dtype=dtype_of(like), value=zero
        )
        return b.op("EyeLike", square, shape=square)

    def take(self, x: ir.Value, indices: Sequence[int], axis: int) -> ir.Value:
        """Writes Gather."""
        shape = shape_of(x)
        taken = None
        if shape is not None:
            taken = [len(indices) if i == axis else d for i, d in enumerate(shape)]
        at = self._builder.const(np.asarray(indices, np.int64))
        return self._builder.op("Gather", x, at, shape=taken, axis=axis)

    def widened(self, x: ir.Value) -> ir.Value:
        """Writes a Cast of what is narrower than 32 bits."""
        return self._builder.cast(x, ir.DataType.FLOAT) if dtype_of(x).bitwidth < _WORD else x

    def at_least(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """Writes a Cast of what has fewer bits."""
        return self.cast(x, like) if dtype_of(x).bitwidth < dtype_of(like).bitwidth else x

    def transpose(self, x: ir.Value, order: Sequence[int]) -> ir.Value:
        """Writes Transpose, or nothing where the order is the same."""
        return self._builder.transpose(x, order)

    def size(self, x: ir.Value, axis: int) -> int | None:
        """Returns the size of an axis, None where it is open."""
        size = (shape_of(x) or (None,) * (axis + 1))[axis]
        return size if isinstance(size, int) else None

    def joined(self, x: ir.Value, first: int, count: int) -> ir.Value:
        """Writes Reshape, or nothing for one axis."""
        if count == 1:
            return x
        kept = [*range(first), None, *range(first + count, rank_of(x))]
        sizes = [self.size(x, i) for i in range(first, first + count)]
        known = [size for size in sizes if size is not None]
        one = int(np.prod(known)) if len(known) == count else -1
        return self._builder.reshape(x, [one if i is None else (x, i) for i in kept])

    def reshape_like(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """Writes Reshape, or nothing where the shapes agree."""
        return self._builder.reshape_like(x, like)

    def counted(self, x: ir.Value, axis: int) -> ir.Value:
        """Returns an initializer, or writes Range where the size is open."""
        size = self.size(x, axis)
        if size is not None:
            return self._builder.const(np.arange(size), dtype_of(x))
        return self._builder.cast(self._range(x, axis), dtype_of(x))

    def _range(self, x: ir.Value, axis: int) -> ir.Value:
        """Writes 0, 1, 2... below the size of an axis, in int64."""
        return self._builder.count_up(self._builder.size(x, axis), dims_of(x)[axis])

    def numbered(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Writes Range and Reshape: nothing of the numbers is stored."""
        b = self._builder
        sizes: list[Size] = [(x, i) if i in axes else 1 for i in range(rank_of(x))]
        parts = [b.size(x, i) for i in axes] or [b.ints(1)]
        count = b.reduce("ReduceProd", b.concat(parts, axis=0), [0], keepdims=False)
        return b.cast(b.reshape(b.count_up(count), sizes), dtype_of(x))

    def correlate(self, x: ir.Value, window: Any, axis: int) -> ir.Value:
        """Writes a Conv of one channel along the axis."""
        b, rank, reach = self._builder, rank_of(x), len(window) // 2
        order = [*(i for i in range(rank) if i != axis), axis]
        last = b.transpose(x, order)
        rows = b.reshape(last, [-1, 1, (last, rank - 1)])
        weights = b.const(np.reshape(window, (1, 1, -1)), dtype_of(x))
        made = b.op("Conv", rows, weights, shape=rows, pads=[reach, reach])
        return b.transpose(b.reshape_like(made, last), [order.index(i) for i in range(rank)])

    def stack(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        """Writes an Unsqueeze for each, and Concat."""
        return self._builder.concat([self._builder.unsqueeze(p, [axis]) for p in parts], axis)

    def top(self, x: ir.Value, count: int) -> tuple[ir.Value, ir.Value]:
        """Writes TopK; of an open size, of the smaller of the two."""
        b, shape = self._builder, shape_of(x)
        size = None if shape is None else shape[-1]
        most = min(count, size) if isinstance(size, int) else None
        wanted = b.ints(count if most is None else most)
        if most is None:
            wanted = b.op("Min", wanted, b.size(x, rank_of(x) - 1), shape=[1])
        kept = None if shape is None else [*shape[:-1], most]
        values, positions = b.ops("TopK", x, wanted, outputs=2, shapes=[kept, kept], axis=-1)
        positions.dtype = ir.DataType.INT64
        return values, b.cast(positions, ir.DataType.INT32)

    def matmul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Writes MatMul."""
        left, right = shape_of(a), shape_of(b)
        shape: Sequence[Dim] | None = None
        if left is not None and right is not None:
            stack = broadcast(left[:-2], right[:-2])
            shape = None if stack is None else [*stack, left[-2], right[-1]]
        return self._builder.op("MatMul", a, b, shape=shape)

    def matrix_power(self, x: ir.Value, doublings: int) -> ir.Value:
        """Writes that many squarings, each of a matrix whose largest element is 1."""
        for _ in range(doublings):
            x = self._over_largest(x)
            x = self._builder.op("MatMul", x, x, shape=x)
        return self._over_largest(x)

    def _over_largest(self, x: ir.Value) -> ir.Value:
        """Writes matrices over their largest element, zeros as they are."""
        rank = rank_of(x)
        largest = self.max(self.abs(x), (rank - 2, rank - 1), keepdims=True)
        # Elements of a power are at least as large as this, where it is not of zeros.
        return self.div(x, self.where(self.greater(largest, 0.0), largest, 1.0))

    def resize(self, x: ir.Value, axis: int, like: ir.Value, like_axis: int) -> ir.Value:
        """Writes MatMul with stored weights, or with computed ones where a size is open."""
        old, new = self.size(x, axis), self.size(like, like_axis)
        if old is not None and new is not None:
            if old == new:
                return x
            weights = self._builder.const(linear_weights(old, new).T, dtype_of(x))
        else:
            weights = self._open_weights(x, axis, like, like_axis)
        rank = rank_of(x)
        last = [*(i for i in range(rank) if i != axis), axis]
        made = self.matmul(self.transpose(x, last), weights)
        return self.transpose(made, [last.index(i) for i in range(rank)])

    def _open_weights(self, x: ir.Value, axis: int, like: ir.Value, like_axis: int) -> ir.Value:
        """Writes `linear_weights` of sizes that are known when the graph runs, `[old, new]`."""
        b = self._builder
        double = ir.DataType.DOUBLE
        old, new = (b.cast(b.size(v, i), double) for v, i in ((x, axis), (like, like_axis)))
        rows = b.cast(self._range(like, like_axis), double)
        at = b.sub(b.div(b.mul(b.add(rows, 0.5), old), new), 0.5)
        at = b.elementwise("Min", b.elementwise("Max", at, 0.0), b.sub(old, 1.0))
        columns = b.unsqueeze(b.cast(self._range(x, axis), double), [1])
        near = b.sub(1.0, b.elementwise("Abs", b.sub(b.unsqueeze(at, [0]), columns)))
        return self.relu(b.cast(near, dtype_of(x)))

    def floor(self, x: ir.Value) -> ir.Value:
        """Writes Floor."""
        return self._builder.op("Floor", x, shape=x)

    def expand_dims(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Writes Unsqueeze, or nothing where there are no axes."""
        return self._builder.unsqueeze(x, sorted(axes))

    def reshape(self, x: ir.Value, sizes: Sequence[int]) -> ir.Value:
        """Writes Reshape."""
        return self._builder.reshape(x, list(sizes))

    def gather(self, x: ir.Value, indices: ir.Value, axis: int) -> ir.Value:
        """Writes Gather; indices that are floating are cast."""
        shape, at = shape_of(x), shape_of(indices)
        found = None
        if shape is not None and at is not None:
            found = [*shape[:axis], *at, *shape[axis + 1 :]]
        whole = self._builder.cast(indices, ir.DataType.INT64)
        return self._builder.op("Gather", x, whole, shape=found, axis=axis)

    def flags(self, values: Any) -> ir.Value:
        """Returns an initializer of bools."""
        return self._builder.const(np.asarray(values, bool))

    def rank(self, x: ir.Value) -> int:
        """Returns the number of axes."""
        return rank_of(x)

    def take_along(self, x: ir.Value, indices: ir.Value) -> ir.Value:
        """Writes GatherElements along the second axis."""
        whole = self._builder.cast(indices, ir.DataType.INT64)
        return self._builder.op("GatherElements", x, whole, shape=whole, axis=1)
