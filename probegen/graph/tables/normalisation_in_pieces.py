"""Normalisations by a tensor's own statistics, however a writer has spelled them.

Keras writes `x * m + (shift - mean(x) * m)`, torch `(x - mean(x)) / deviation * scale + shift`,
others take the variance as `mean(x * x) - mean(x) * mean(x)`. Group normalisation has a scale along
other axes than those of its statistics, so that no operator of ONNX stands for it. What counts is
that a size of a tensor divides the tensor itself. Behind a convolution of images whose channels are
last, the statistics may be those of the tensor before it is transposed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Container, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.core.marks import MARK_DOMAIN, STOP_GRADIENT
from probegen.graph.core.queries import key_of, varying_inputs
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of, whole_numbers

#: Means; tf2onnx writes those over the last axes as a pooling.
_MEANS = frozenset({"ReduceMean", "GlobalAveragePool"})
#: What makes one size of the squares or sizes of elements.
_COLLECTING = _MEANS | {"ReduceSum", "ReduceMax"}
#: What makes one size of the elements themselves.
_NORMS = frozenset({"ReduceL1", "ReduceL2", "ReduceSumSquare"})
#: What is made of a size with constants. `Reciprocal` and what is said in `_turned` turn it over.
_OF_SIZES = frozenset(
    {"Add", "Mul", "Div", "Sqrt", "Reciprocal", "Pow", "Max", "Clip", "Identity", "Cast", "Reshape"}
    | {"Squeeze", "Unsqueeze", "Transpose"}
)
#: What leaves a tensor as it is, but for its form and its element type.
_SAME = frozenset(
    {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose"}
    | {f"{MARK_DOMAIN}::{STOP_GRADIENT}"}
)
#: Of these, what changes the form of a mean.
_FORMING = frozenset({"Reshape", "Squeeze", "Unsqueeze"})
#: Nodes up to which a normalisation is looked at.
_MOST_NODES = 24


@dataclasses.dataclass(frozen=True)
class InPieces:
    """`y = (x - mean(x)) * k + shift`, where k is one over a deviation of x, times constants.

    Attributes:
        x: the tensor.
        axes: those of the mean, not negative.
        factors: what k is the product of, each with whether it divides; they broadcast to y.
    """

    x: ir.Value
    axes: tuple[int, ...]
    factors: tuple[tuple[ir.Value, bool], ...]


@dataclasses.dataclass(frozen=True)
class _Term:
    """One term of a sum: a tensor times factors.

    Attributes:
        value: the tensor.
        sign: 1 or -1.
        factors: see `InPieces`.
        forms: what brings the tensor into the form of the sum, the last first.
    """

    value: ir.Value
    sign: int = 1
    factors: tuple[tuple[ir.Value, bool], ...] = ()
    forms: tuple[ir.Node, ...] = ()


def normalisation_in_pieces(node: ir.Node, apart: Container[ir.Value] = ()) -> InPieces | None:
    """Returns the normalisation that a node ends; None where it ends none that takes a mean away.

    Args:
        node: any node.
        apart: tensors that must not lie within it.
    """
    if key_of(node) not in ("Add", "Sub", "Sum", "Mul", "Div"):
        return None
    y = node.outputs[0]
    whole = _divided_within(y)
    if whole is None or shape_of(y) is None:
        return None
    inner: set[ir.Value] = set()
    terms = list(itertools.islice(_terms(_Term(y), whole, inner), 3))
    inner.discard(y)
    if len(terms) != 2 or any(v in apart for v in inner):
        return None
    own, mean = terms if _is_turned(terms[0].value, whole) else terms[::-1]
    if not _is_turned(own.value, whole) or shape_of(y) != shape_of(own.value):
        return None
    axes = _mean_axes(mean.value, own.value, mean.forms)
    same = own.factors == mean.factors and own.sign == 1 and mean.sign == -1
    if own.forms or axes is None or not same:
        return None
    return InPieces(own.value, axes, own.factors)


def divided_by_own_size(node: ir.Node) -> ir.Value | None:
    """Returns what a node divides by a size of its own: a normalisation in pieces; None for others.

    The size is a norm of x over some axes, or of x less its mean (a deviation), and functions with
    constants of that. What it divides is x, its mean, or x less its mean:
    `x * rsqrt(mean(x * x) + epsilon)`, with the scale before or behind.
    """
    for value, factor, divides in _divisions(node):
        measured = _measured(factor, divides)
        if measured is not None and _alike(_whole(value), _whole(measured)):
            return value
    return None


def _divisions(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value, bool]]:
    """Yields what a node multiplies, by what, and whether it divides by that."""
    if key_of(node) not in ("Mul", "Div") or len(node.inputs) != 2:
        return
    first, second = node.inputs
    if first is None or second is None:
        return
    yield first, second, key_of(node) == "Div"
    if key_of(node) == "Mul":
        yield second, first, False


def _divided_within(value: ir.Value) -> ir.Value | None:
    """Returns a tensor by whose size something is divided in the sum that a value is."""
    pending, looked_at = [value], 0
    while pending and looked_at < _MOST_NODES:
        node, looked_at = pending.pop().producer(), looked_at + 1
        if node is None:
            continue
        for _, factor, divides in _divisions(node):
            measured = _measured(factor, divides)
            if measured is not None:
                return _whole(measured)
        scaled = key_of(node) in ("Mul", "Div") and len(varying_inputs(node)) == 1
        if scaled or key_of(node) in ("Add", "Sub", "Sum", "Neg"):
            pending += varying_inputs(node)
    return None


def _terms(term: _Term, whole: ir.Value, inner: set[ir.Value]) -> Iterator[_Term]:
    """Yields what a term is the sum of, down to a tensor and its means; constants are left out.

    Args:
        term: the term.
        whole: the tensor.
        inner: gets the tensors on the way.
    """
    value, node = term.value, term.value.producer()
    ends = node is None or _is_turned(value, whole) or _is_mean_of(value, whole)
    if ends or node is None or len(inner) > _MOST_NODES:
        yield term
        return
    key, varying = key_of(node), varying_inputs(node)
    inner.add(value)
    if key in _SAME and node.inputs[0] is not None:
        forms = (*term.forms, node)
        yield from _terms(
            dataclasses.replace(term, value=node.inputs[0], forms=forms), whole, inner
        )
        return
    if term.forms and key != "Neg":
        yield term  # its factors are of another form than those of the sum
        return
    if key in ("Add", "Sub", "Sum", "Neg"):
        for i, addend in enumerate(node.inputs):
            if addend is not None and addend in varying:
                turned = key == "Neg" or (key == "Sub" and i == 1)
                sign = -term.sign if turned else term.sign
                inner_term = dataclasses.replace(term, value=addend, sign=sign)
                yield from _terms(inner_term, whole, inner)
        return
    for base, factor, divides in _divisions(node):
        measured = None if constant_of(base) is not None else _measured(factor, divides)
        of_whole = measured is not None and _alike(_whole(measured), whole)
        if of_whole or constant_of(factor) is not None:
            factors = ((factor, divides), *term.factors)
            yield from _terms(_Term(base, term.sign, factors), whole, inner)
            return
    yield term


def _is_mean_of(value: ir.Value, whole: ir.Value) -> bool:
    """Tells whether a value is the mean of a tensor over some of its axes, in whatever form."""
    source = _mean_of(value)
    return source is not None and _alike(source, whole)


def _mean_axes(
    value: ir.Value, whole: ir.Value, forms: tuple[ir.Node, ...]
) -> tuple[int, ...] | None:
    """Returns the axes over which a value is the mean of a tensor; they stay as 1.

    Args:
        value: what may be the mean.
        whole: the tensor, in the order of its axes that counts.
        forms: what brings the value into the form of the tensor, the last first.
    """
    passed, node = list(forms), value.producer()
    while node is not None and key_of(node) in _SAME and node.inputs[0] is not None:
        passed.append(node)
        node = node.inputs[0].producer()
    source = None if node is None else node.inputs[0]
    if node is None or key_of(node) not in _MEANS or source is None:
        return None
    order, sizes = _order_of_axes(source, whole), shape_of(whole)
    if order is None or sizes is None or shape_of(node.outputs[0]) is None:
        return None
    pooled = key_of(node) == "GlobalAveragePool"
    named = range(2, len(order)) if pooled else whole_numbers(node, "axes", 1)
    taken = {axis % len(order) for axis in named or ()}
    places: list[int | None] | None = [None if i in taken else at for i, at in enumerate(order)]
    for form in reversed(passed):
        places = _places_behind(form, places, sizes)
        if places is None:
            return None
    axes = tuple(sorted(order[i] for i in taken))
    expected = [None if i in axes else i for i in range(len(sizes))]
    if places != expected or not axes:
        return None
    return axes


def _order_of_axes(source: ir.Value, whole: ir.Value) -> list[int] | None:
    """Returns, for each axis of a tensor, which one it is of what is that tensor as well.

    None where they are not one tensor but for the order of axes and the element type.
    """
    (one, first), (other, second) = _untransposed(source), _untransposed(whole)
    shape = shape_of(one)
    if shape is None or shape != shape_of(other) or not _alike(one, other):
        return None
    return [second.index(axis) for axis in first]


def _places_behind(
    form: ir.Node, places: list[int | None] | None, sizes: Sequence[Dim]
) -> list[int | None] | None:
    """Returns which axis of the whole each axis of a mean is behind a node, None for those of 1.

    Args:
        form: gives the mean another form.
        places: those before it.
        sizes: of the whole.
    """
    if places is None:
        return None
    if key_of(form) == "Transpose":
        return [places[i] for i in attribute(form, "perm", list(reversed(range(len(places)))))]
    if key_of(form) not in _FORMING:
        return places
    behind, kept = shape_of(form.outputs[0]), [at for at in places if at is not None]
    if behind is None:
        return None
    if len(behind) == len(sizes) and all(
        size == (1 if at is None else sizes[at]) for size, at in zip(behind, places, strict=False)
    ):
        return places
    rest = iter(kept)
    found = [None if size == 1 else next(rest, None) for size in behind]
    fits = all(at is None or sizes[at] == size for size, at in zip(behind, found, strict=True))
    return found if fits and [at for at in found if at is not None] == kept else None


def _is_turned(value: ir.Value, whole: ir.Value) -> bool:
    """Tells whether a value is a tensor, its axes in whatever order."""
    return _untransposed(value)[0] is _untransposed(whole)[0]


def _untransposed(value: ir.Value) -> tuple[ir.Value, list[int]]:
    """Returns what a value was before it was transposed, and which axis of that each of its is."""
    shape = shape_of(value)
    order = list(range(0 if shape is None else len(shape)))
    node = value.producer()
    while node is not None and key_of(node) == "Transpose" and node.inputs[0] is not None:
        perm = attribute(node, "perm", list(reversed(range(len(order)))))
        order = [perm[i] for i in order]
        value = node.inputs[0]
        node = value.producer()
    return value, order


def _measured(value: ir.Value, turned: bool) -> ir.Value | None:
    """Returns the tensor whose size a value is a function of; None where it is none such.

    Args:
        value: the value.
        turned: whether the size itself is looked for, and not one over it.
    """
    node = value.producer()
    while node is not None and key_of(node) in _OF_SIZES:
        varying = varying_inputs(node)
        if len(varying) != 1:
            return None
        turned = turned != _turned(node, varying[0])
        node = varying[0].producer()
    if node is None or node.inputs[0] is None or not turned:
        return None
    if key_of(node) == "Sub":
        return _measured_by_squares(node)
    if key_of(node) in _NORMS:
        return node.inputs[0]
    return _sized(node.inputs[0]) if key_of(node) in _COLLECTING else None


def _turned(node: ir.Node, size: ir.Value) -> bool:
    """Tells whether a node makes one over a size of a size."""
    if key_of(node) == "Pow":
        power = constant_of(node.inputs[1])
        return power is not None and bool(np.all(power < 0))
    return key_of(node) == "Reciprocal" or (key_of(node) == "Div" and node.inputs[1] is size)


def _measured_by_squares(node: ir.Node) -> ir.Value | None:
    """Returns x where a node is `mean(x * x) - mean(x) * mean(x)`, which is its variance."""
    first, second = node.inputs
    mean = None if second is None else _sized(second)
    measured = None if first is None else _measured(first, True)
    if mean is None or measured is None or _mean_of(mean) is None:
        return None
    return measured if _alike(_whole(mean), _whole(measured)) else None


def _sized(value: ir.Value) -> ir.Value | None:
    """Returns the tensor whose squares or sizes a value is, element by element."""
    node = value.producer()
    if node is None:
        return None
    key, inner = key_of(node), node.inputs[0]
    if key == "Abs" or (key == "Mul" and inner is node.inputs[1]):
        return inner
    power = constant_of(node.inputs[1]) if key == "Pow" else None
    if power is None or inner is None:
        return None
    made_by = inner.producer()
    if made_by is not None and key_of(made_by) == "Abs":
        return made_by.inputs[0]
    return inner if np.all(power == 2) else None


def _whole(value: ir.Value) -> ir.Value:
    """Returns the tensor that a value is, that it is the mean of, or that it is less its mean.

    Signs, constant factors and the order of axes count nothing.
    """
    node = _untransposed(value)[0].producer()
    while node is not None and key_of(node) in ("Neg", "Mul", "Div") and node.inputs[0] is not None:
        varying = varying_inputs(node)
        if len(varying) != 1 or (key_of(node) == "Div" and varying[0] is not node.inputs[0]):
            break
        value = varying[0]
        node = _untransposed(value)[0].producer()
    of = _mean_of(value)
    if of is not None:
        return of
    if node is not None and key_of(node) == "Sub":
        whole, mean = node.inputs
        source = None if mean is None else _mean_of(mean)
        if whole is not None and source is not None and _alike(source, whole):
            return whole
    return value


def _mean_of(value: ir.Value) -> ir.Value | None:
    """Returns the tensor that a value is the mean of, over some axes; None for others."""
    node = _bare(value).producer()
    return node.inputs[0] if node is not None and key_of(node) in _MEANS else None


def _alike(one: ir.Value, other: ir.Value) -> bool:
    """Tells whether two values are one tensor, but for its form and its element type."""
    return _bare(one) is _bare(other)


def _bare(value: ir.Value) -> ir.Value:
    """Returns what a tensor was before its form or element type was changed."""
    node = value.producer()
    while node is not None and key_of(node) in _SAME and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value
