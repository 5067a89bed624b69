"""Rules of products of matrices and tensors.

`g` is the gradient of a node's output. Transposed operands are asked of Gemm where both have
two axes; elsewhere a Transpose of a stored weight is left to the session, which folds it when
it loads, so that the file holds the weight once.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, attribute, broadcast, dims_of, dtype_of, rank_of
from probegen.graph.vjp.common import Dys, Gradients, Local, given, inputs, optional, unary

# -- matrices ------------------------------------------------------------------------------


def matmul(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """MatMul, of any ranks: g @ w^T to the first input, x^T @ g to the second."""
    b = walk.builder
    g, (x, w) = given(dy), inputs(node)
    if rank_of(x) == rank_of(w) == 1:
        for value, other in ((x, w), (w, x)):
            if value in walk.wanted:
                yield value, b.mul(g, other)
        return
    # A vector is a matrix of one row on the left and of one column on the right.
    rows, columns = (_matrix(b, x, row=True), _matrix(b, w, row=False))
    if rank_of(x) == 1:
        g = b.unsqueeze(g, [rank_of(g) - 1])
    if rank_of(w) == 1:
        g = b.unsqueeze(g, [rank_of(g)])
    if x in walk.wanted:
        to_rows = b.unbroadcast(_product_with_transposed(b, g, columns), rows)
        yield x, to_rows if rows is x else b.squeeze(to_rows, [0])
    if w in walk.wanted:
        to_columns = _transposed_product(b, rows, g, columns)
        yield w, to_columns if columns is w else b.squeeze(to_columns, [1])


def _matrix(b: Builder, value: ir.Value, *, row: bool) -> ir.Value:
    if rank_of(value) > 1:
        return value
    return b.unsqueeze(value, [0 if row else 1])


def _product_with_transposed(b: Builder, g: ir.Value, w: ir.Value) -> ir.Value:
    """Returns g @ w^T over the last two axes."""
    if rank_of(g) == rank_of(w) == 2:
        return _gemm(b, g, w, trans_b=True)
    return _batched(b, g, _transposed(b, w))


def _transposed_product(b: Builder, x: ir.Value, g: ir.Value, w: ir.Value) -> ir.Value:
    """Returns x^T @ g over the last two axes, summed down to the shape of w."""
    if rank_of(w) == 2 and rank_of(g) > 2:
        # A weight shared by all matrices of a stack: one product of all their rows.
        features, units = dims_of(x)[-1], dims_of(g)[-1]
        if isinstance(features, int) and isinstance(units, int) and rank_of(x) == rank_of(g):
            x, g = b.reshape(x, [-1, features]), b.reshape(g, [-1, units])
    if rank_of(x) == rank_of(g) == 2:
        return _gemm(b, x, g, trans_a=True)
    return b.unbroadcast(_batched(b, _transposed(b, x), g), w)


def _transposed(b: Builder, value: ir.Value) -> ir.Value:
    rank = rank_of(value)
    return b.transpose(value, [*range(rank - 2), rank - 1, rank - 2])


def _batched(b: Builder, left: ir.Value, right: ir.Value) -> ir.Value:
    first, second = dims_of(left), dims_of(right)
    stack = broadcast(first[:-2], second[:-2]) or ()
    return b.op("MatMul", left, right, shape=[*stack, first[-2], second[-1]])


def gemm(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Gemm: y = alpha * x' @ w' + beta * c, where the dash transposes if the node says so."""
    b = walk.builder
    g, (x, w), c = given(dy), inputs(node)[:2], optional(node, 2)
    alpha = float(attribute(node, "alpha", 1.0))
    trans_x, trans_w = bool(attribute(node, "transA", 0)), bool(attribute(node, "transB", 0))
    if x in walk.wanted:
        if trans_x:
            yield x, _gemm(b, w, g, trans_a=trans_w, trans_b=True, alpha=alpha)
        else:
            yield x, _gemm(b, g, w, trans_b=not trans_w, alpha=alpha)
    if w in walk.wanted:
        if trans_w:
            yield w, _gemm(b, g, x, trans_a=True, trans_b=trans_x, alpha=alpha)
        else:
            yield w, _gemm(b, x, g, trans_a=not trans_x, alpha=alpha)
    if c is not None and c in walk.wanted:
        yield c, b.mul(b.unbroadcast(g, c), float(attribute(node, "beta", 1.0)))


def _gemm(
    b: Builder,
    left: ir.Value,
    right: ir.Value,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    alpha: float = 1.0,
) -> ir.Value:
    first, second = dims_of(left), dims_of(right)
    return b.op(
        "Gemm",
        left,
        right,
        shape=[first[1 if trans_a else 0], second[0 if trans_b else 1]],
        transA=1 if trans_a else None,
        transB=1 if trans_b else None,
        alpha=alpha if alpha != 1 else None,
    )


#: The largest matrix of which the determinant is differentiated: rounding grows with it.
_LARGEST_DET = 8


def _determinant(v: Local) -> ir.Value:
    """Det: g times the transposed adjugate, by Faddeev and LeVerrier; right where det is 0 too."""
    b, x = v.b, v.x
    size = dims_of(x)[-1]
    if not isinstance(size, int) or size > _LARGEST_DET:
        raise Refused(f"its matrices are not known to have at most {_LARGEST_DET} rows")
    identity = b.const(np.eye(size), dtype_of(x))
    rank = rank_of(x)
    adjugate, coefficient = identity, 1.0
    for k in range(1, size):
        product = _batched(b, x, adjugate)
        trace = b.reduce_sum(b.mul(product, identity), [rank - 2, rank - 1], keepdims=True)
        coefficient = -1.0 / k
        adjugate = b.add(product, b.mul(b.mul(trace, coefficient), identity))
    transposed = _transposed(b, adjugate)
    outer = b.unsqueeze(v.g, [rank - 2, rank - 1])
    return b.expand(b.mul(b.mul(outer, transposed), (-1.0) ** (size - 1)), x)


# -- Einstein sums -------------------------------------------------------------------------


def einsum(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Einsum: each operand gets the sum of g and all other operands over what it lacks.

    An axis that only this operand has was summed over; the gradient is broadcast along it.
    """
    b = walk.builder
    operands = inputs(node)
    terms, result, dots = _terms(str(attribute(node, "equation")), [rank_of(x) for x in operands])
    for position, (x, term) in enumerate(zip(operands, terms, strict=True)):
        if x not in walk.wanted:
            continue
        factors = list(zip(operands, terms, strict=True))
        factors[position] = (given(dy), result)
        if len(set(term)) == len(term):
            yield x, _sum_onto(b, x, term, factors, dots)
            continue
        # An axis named twice takes a diagonal, and gives it back.
        once = "".join(dict.fromkeys(term))
        shape = [dims_of(x)[term.index(letter)] for letter in once]
        diagonal = b.op("Einsum", x, shape=shape, equation=f"{term}->{once}")
        yield x, _onto_diagonal(b, _sum_onto(b, diagonal, once, factors, dots), x, term)


def _onto_diagonal(b: Builder, gradient: ir.Value, x: ir.Value, term: str) -> ir.Value:
    """Puts the gradient of a diagonal of x to where it is, zeros beside it."""
    seen: list[int] = []
    for axis, letter in enumerate(term):
        first = term.index(letter)
        if first == axis:
            seen.append(axis)
            continue
        positions = b.count_up(b.size(x, axis), dims_of(x)[axis])
        rank = len(term[: axis + 1])
        rows, columns = (
            b.reshape(positions, [-1 if i == at else 1 for i in range(rank)])
            for at in (first, axis)
        )
        same = b.cast(b.elementwise("Equal", rows, columns), dtype_of(gradient))
        wide = b.unsqueeze(gradient, [axis])
        rest = rank_of(wide) - rank
        gradient = b.mul(wide, b.unsqueeze(same, list(range(rank, rank + rest))))
    return gradient


def _sum_onto(
    b: Builder, x: ir.Value, term: str, factors: Sequence[tuple[ir.Value, str]], dots: str
) -> ir.Value:
    """Returns the sum of products of `factors` over all axes that `term`, that of `x`, lacks.

    Axes under an ellipsis, `dots`, may have been broadcast from 1 in x and are summed then.
    """
    found = set("".join(letters for _, letters in factors))
    kept = "".join(letter for letter in term if letter in found)
    sizes: dict[str, Dim] = dict(zip(term, dims_of(x), strict=True))
    for value, letters in factors:
        for letter, dim in zip(letters, dims_of(value), strict=True):
            if letter in dots:
                sizes[letter] = (broadcast([sizes.get(letter, 1)], [dim]) or (None,))[0]
    if dots and dots in kept:
        # Axes that may be broadcast stay under an ellipsis: named ones are not broadcast.
        factors = [(value, letters.replace(dots, "...")) for value, letters in factors]
    shape = [sizes[letter] for letter in kept]
    product = _einsum(b, factors, kept.replace(dots, "...") if dots else kept, shape)
    missing = [i for i, letter in enumerate(term) if letter not in found]
    return b.expand(b.unbroadcast(b.unsqueeze(product, missing), x), x)


def _einsum(
    b: Builder, factors: Sequence[tuple[ir.Value, str]], kept: str, shape: Sequence[Dim]
) -> ir.Value:
    if len(factors) == 1:
        value, letters = factors[0]
        if "." not in kept and sorted(letters) == sorted(kept):
            return b.transpose(value, [letters.index(letter) for letter in kept])
    equation = ",".join(letters for _, letters in factors) + "->" + kept
    return b.op("Einsum", *(value for value, _ in factors), shape=shape, equation=equation)


def _terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str, str]:
    """Returns one letter an axis: of each operand, of the result, and of the ellipsis.

    An ellipsis becomes letters of its own, the same from the right in every term, as its axes
    are broadcast. Without an arrow the result has the ellipsis and then, sorted, the letters
    that occur once.
    """
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    longest = max((n for n, t in zip(hidden, terms, strict=True) if "..." in t), default=0)
    dots = "".join(unused[:longest])
    named = [t.replace("...", dots[longest - n :]) for t, n in zip(terms, hidden, strict=True)]
    if not arrow:
        once = sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
        result = "..." + "".join(once)
    return named, result.replace("...", dots), dots


RULES: Mapping[str, Rule] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "Det": unary(_determinant),
    "Einsum": einsum,
}
