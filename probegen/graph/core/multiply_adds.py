"""How many multiplications nodes sum up, an operator each. Open sizes count as 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx_ir as ir

from probegen.graph.core.values import attribute, shape_of


def multiply_adds(node: ir.Node) -> int:
    """Returns how many multiplications a node sums up.

    0 where its operator sums up none, and where the rank of an operand is not known.
    """
    count = _COUNTS.get(node.op_type)
    known = all(shape_of(v) is not None for v in node.inputs if v is not None)
    return count(node) if count is not None and known else 0


def _elements(value: ir.Value | None) -> int:
    return math.prod(_sizes(value))


def _sizes(value: ir.Value | None) -> tuple[int, ...]:
    sizes = () if value is None else shape_of(value) or ()
    return tuple(d if isinstance(d, int) else 1 for d in sizes)


def _convolution(node: ir.Node) -> int:
    """Each output element sums over the kernel `[out, in / groups, ...]`."""
    return _elements(node.outputs[0]) * math.prod(_sizes(node.inputs[1])[1:])


def _transposed_convolution(node: ir.Node) -> int:
    """Each input element is spread over the kernel `[in, out / groups, ...]`."""
    return _elements(node.inputs[0]) * math.prod(_sizes(node.inputs[1])[1:])


def _matrix_product(node: ir.Node) -> int:
    return _elements(node.outputs[0]) * _sizes(node.inputs[0])[-1]


def _gemm(node: ir.Node) -> int:
    rows = _sizes(node.inputs[0])
    return _elements(node.outputs[0]) * rows[0 if attribute(node, "transA", 0) else 1]


def _einsum(node: ir.Node) -> int:
    """Every combination of all indices, once for each factor behind the first."""
    terms = str(attribute(node, "equation")).replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, value in zip(terms, node.inputs, strict=True):
        given = _sizes(value)
        head, dots, tail = term.partition("...")
        sizes.update(zip(head, given, strict=False))
        sizes.update(zip(reversed(tail), reversed(given), strict=False))
        if dots:
            for i, size in enumerate(given[len(head) : len(given) - len(tail)]):
                sizes[f"...{i}"] = max(size, sizes.get(f"...{i}", 1))
    return math.prod(sizes.values()) * (len(terms) - 1)


def _recurrent(node: ir.Node) -> int:
    """Each step of each sample multiplies by the weights `[directions, gates * units, ...]`."""
    steps, batch = _sizes(node.inputs[0])[:2]
    return steps * batch * (_elements(node.inputs[1]) + _elements(node.inputs[2]))


_COUNTS: Mapping[str, Callable[[ir.Node], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matrix_product,
    "RNN": _recurrent,
}
