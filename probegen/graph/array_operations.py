"""The array operations that methods are written in, as ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import dtype_of, shape_of

_Operand = ir.Value | float


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

    def abs(self, x: ir.Value) -> ir.Value:
        """Writes Abs."""
        return self._builder.op("Abs", x, shape=x)

    def exp(self, x: ir.Value) -> ir.Value:
        """Writes Exp."""
        return self._builder.op("Exp", x, shape=x)

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

    def take(self, x: ir.Value, indices: Sequence[int], axis: int) -> ir.Value:
        """Writes Gather."""
        shape = shape_of(x)
        taken = None
        if shape is not None:
            taken = [len(indices) if i == axis else d for i, d in enumerate(shape)]
        at = self._builder.const(np.asarray(indices, np.int64))
        return self._builder.op("Gather", x, at, shape=taken, axis=axis)
