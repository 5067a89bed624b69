"""Products of matrices, and their diagonals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from probegen.sources.keras.to_onnx.handlers.writer import FLOATS, Writer, constant_value

_Type = onnx.TensorProto


def einsum(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes an Einsum of two operands as transposes around one MatMul, where that is all it is.

    That is so where each operand keeps one axis of its own, one is summed over, and all others
    are in both: the products of attention. No size need be known. Others stay an Einsum.
    """
    equation = node.get_attr_value("equation").decode().replace(" ", "")
    plan = _as_matmul(equation)
    del node.attr["N"]
    if plan is None:
        return
    w = Writer(context, node)
    first, second = (
        w.op("Transpose", x, perm=order) for x, order in zip(w.inputs, plan[:2], strict=True)
    )
    w.finish("Transpose", w.op("MatMul", first, second), perm=plan[2])


def _as_matmul(equation: str) -> tuple[list[int], list[int], list[int]] | None:
    """Returns how to transpose both operands of a MatMul and its result, None if it is none."""
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not arrow or "." in equation:
        return None
    first, second = terms
    if any(len(set(t)) < len(t) for t in (first, second, result)):
        return None
    shared = [c for c in result if c in first and c in second]
    rows = [c for c in result if c in first and c not in second]
    columns = [c for c in result if c in second and c not in first]
    summed = [c for c in first if c in second and c not in result]
    if not len(rows) == len(columns) == len(summed) == 1:
        return None
    if len(first) != len(shared) + 2 or len(second) != len(shared) + 2:
        return None
    made = [*shared, *rows, *columns]
    return (
        [first.index(c) for c in (*shared, *rows, *summed)],
        [second.index(c) for c in (*shared, *summed, *columns)],
        [made.index(c) for c in result],
    )


def matrix_diag(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes vectors `[..., n]` on a diagonal of matrices `[..., rows, columns]`.

    One diagonal. Matrices as large as it needs may be of open size; of others the sizes have to
    be known, or they stay and are refused.
    """
    defaults: list[Any] = [np.array(n) for n in (0, -1, -1, 0)]
    read = [constant_value(context, i) for i in node.input[1:]]
    diagonals, rows, columns, padding = [*read, *defaults[len(read) :]]
    values = (diagonals, rows, columns, padding)
    if any(v is None for v in values) or np.ptp(diagonals):
        return
    w = Writer(context, node)
    k, rank = int(np.ravel(diagonals)[0]), w.rank_of(w.inputs[0])
    if rank is not None and int(rows) == int(columns) == -1:
        widths = np.zeros((2, rank), np.int64)
        widths[:, -1] = max(-k, 0), max(k, 0)
        placed = w.op("Pad", w.inputs[0], w.indices(widths.ravel())) if k else w.inputs[0]
        along = _counted(w, 0, w.size(placed, rank - 1))
        columns_of_rows = w.op("Add", along, w.const(k, _Type.INT64), dtype=_Type.INT64)
        there = w.test("Equal", w.unsqueeze(columns_of_rows, [1]), along)
        _finish_choice(w, there, w.unsqueeze(placed, [-1]), w.const(padding))
        return
    sizes, length = context.get_shape(node.output[0]), (w.shape_of(w.inputs[0]) or [-1])[-1]
    if _matrix_is_known(sizes) and length >= 0:
        on_rows = _on_rows(w, w.inputs[0], length, sizes, k)
        there = w.constant(np.eye(sizes[-2], sizes[-1], k, dtype=bool))
        _finish_choice(w, there, on_rows, w.const(padding))


def _finish_choice(w: Writer, condition: str, one: str, other: str) -> None:
    carrier = _carrier(w)
    w.give(w.where(condition, w.cast(one, carrier), w.cast(other, carrier)))


def _carrier(w: Writer) -> int:
    """Returns an element type that holds the node's, and that runtimes choose between values of."""
    return w.dtype if w.dtype in FLOATS else _Type.INT64


def _counted(w: Writer, first: int, end: str) -> str:
    """Returns the whole numbers from one up to an int64 tensor `[1]`, that one left out."""
    bounds = w.const(first, _Type.INT64), w.reshape(end, []), w.const(1, _Type.INT64)
    return w.op("Range", *bounds, dtype=_Type.INT64)


def matrix_diag_part(context: Any, node: Any, _: str, __: Any) -> None:
    """Reads a diagonal of matrices `[..., rows, columns]`; tf2onnx writes a loop without a rank.

    One diagonal; several stay, and are tf2onnx's.
    """
    diagonals = np.array(0) if len(node.input) == 1 else constant_value(context, node.input[1])
    w = Writer(context, node)
    x, rank = w.inputs[0], w.rank_of(w.inputs[0])
    if diagonals is None or np.ptp(diagonals) or rank is None:
        return
    k, carrier = int(np.ravel(diagonals)[0]), _carrier(w)
    rows, columns = (w.size(x, axis) for axis in (rank - 2, rank - 1))
    end = w.op(
        "Sub", columns, w.indices([k]), dtype=_Type.INT64
    )  # the row behind the last column's
    there = w.test("Equal", w.unsqueeze(_counted(w, 0, rows), [1]), _counted(w, -k, end))
    kept = w.sum(w.where(there, w.cast(x, carrier), w.const(0, carrier)), [rank - 1])
    w.give(w.op("Slice", kept, w.indices([max(-k, 0)]), end, w.indices([rank - 2]), dtype=carrier))


def matrix_set_diag(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes matrices `[..., rows, columns]` with vectors `[..., n]` on a diagonal of them."""
    diagonals = constant_value(context, node.input[2])
    sizes = context.get_shape(node.output[0])
    if diagonals is None or np.ptp(diagonals) or not _matrix_is_known(sizes):
        return
    w = Writer(context, node)
    k = int(np.ravel(diagonals)[0])
    rows, columns = sizes[-2:]
    length = min(rows + min(k, 0), columns - max(k, 0))
    on_rows = _on_rows(w, w.inputs[1], length, sizes, k)
    w.finish("Where", w.constant(np.eye(rows, columns, k, dtype=bool)), on_rows, w.inputs[0])


def _matrix_is_known(sizes: Sequence[int] | None) -> bool:
    return sizes is not None and min(sizes[-2:]) >= 0


def _on_rows(w: Writer, diagonal: str, length: int, sizes: Sequence[int], k: int) -> str:
    """Returns the values `[..., length]` of diagonal k, each beside its row: `[..., rows, 1]`."""
    above = max(-k, 0)
    widths = np.zeros((2, len(sizes) - 1), np.int64)
    widths[:, -1] = above, sizes[-2] - above - length
    padded = w.op("Pad", diagonal, w.indices(widths.ravel())) if widths.any() else diagonal
    return w.op("Unsqueeze", padded, w.indices([-1]))


def matrix_band_part(context: Any, node: Any, _: str, __: Any) -> None:
    """Keeps a band around the diagonal of matrices; tf2onnx multiplies the rest by 0."""
    w = Writer(context, node)
    x, below, above = w.inputs
    rank, whole = w.rank_of(x), _Type.INT64
    if rank is None:
        raise ValueError("it needs matrices whose number of axes is known")

    def places(axis: int, behind: int) -> str:
        return w.reshape(_counted(w, 0, w.size(x, axis)), [-1, *[1] * behind])

    distance = w.op("Sub", places(rank - 2, 1), places(rank - 1, 0), dtype=whole)
    conditions = []
    for limit, far in ((below, distance), (above, w.op("Neg", distance, dtype=whole))):
        most = w.cast(limit, whole)
        all_of_it = w.test("Less", most, w.const(0, whole))
        conditions.append(w.test("Or", all_of_it, w.test("LessOrEqual", far, most)))
    carrier = _carrier(w)
    inside = w.test("And", *conditions)
    w.give(w.where(inside, w.cast(x, carrier), w.const(0, carrier)))
