"""What shapes tell of values that are computed from sizes, element by element.

Of each element is known a number, an open size (a name, or a product of such), or nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.size_products import factors_of, product_of, quotient_of
from probegen.graph.core.values import attribute, constant_of, shape_of, static_shape

#: Numbers, open sizes by name or as products, and None, as an array of objects.
Known = npt.NDArray[Any]
#: Element types of values that are followed.
WHOLE = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
#: Larger values are data and no sizes.
_LARGEST = 256


def known_of(value: ir.Value | None, known: Mapping[ir.Value, Known]) -> Known | None:
    """Returns what is known of a value, computed or stored; None for nothing."""
    if value is None:
        return None
    if value in known:
        return known[value]
    tensor = value.const_value
    if tensor is None or tensor.size > _LARGEST or value.dtype not in WHOLE:
        return None
    array = constant_of(value)
    return None if array is None else array.astype(object)


def evaluated(node: ir.Node, known: Mapping[ir.Value, Known]) -> list[Known | None]:
    """Returns what is known of a node's outputs, element by element; None for nothing."""
    if node.op_type in ("Shape", "Size"):
        return [_measured(node)]
    function = _FUNCTIONS.get(node.op_type)
    if function is None:
        return []
    given = [known_of(v, known) for v in node.inputs]
    if all(g is None for g in given):
        return []
    given = [_open(v) if g is None else g for g, v in zip(given, node.inputs, strict=True)]
    if any(g is None and v is not None for g, v in zip(given, node.inputs, strict=True)):
        return []
    try:
        results = function(node, *given)
    except (IndexError, ValueError, TypeError, OverflowError, ZeroDivisionError):
        return []
    found = [
        None if each is None else np.asarray(each, dtype=object)
        for each in (results if isinstance(results, list) else [results])
    ]
    return [None if each is None or each.size > _LARGEST else each for each in found]


def _open(value: ir.Value | None) -> Known | None:
    """Returns as many elements as a value has, of which nothing is known."""
    sizes = None if value is None or value.dtype not in WHOLE else static_shape(value)
    if sizes is None or math.prod(sizes) > _LARGEST:
        return None
    return np.full(sizes, None, dtype=object)


def _measured(node: ir.Node) -> Known | None:
    shape = None if node.inputs[0] is None else shape_of(node.inputs[0])
    if shape is None:
        return None
    if node.op_type == "Size":
        return np.asarray(product_of(shape), object)
    cut = shape[slice(attribute(node, "start", 0), attribute(node, "end"))]
    found = np.empty(len(cut), dtype=object)
    found[:] = cut
    return found


# -- by operator ------------------------------------------------------------------------------


def _whole_cast(node: ir.Node, x: Known) -> Known | None:
    to = ir.DataType(attribute(node, "to"))
    if to == ir.DataType.BOOL:
        return _each(lambda d: bool(d) if not isinstance(d, str) else None, x)
    # An open size fits into 32 bits, or no engine could hold the tensor.
    return x if to in WHOLE else None


def _each(function: Callable[..., Any], *arrays: Known) -> Known:
    """Applies a function to elements; what is not known stays so."""

    def guarded(*elements: Any) -> Any:
        return None if any(e is None for e in elements) else function(*elements)

    return np.asarray(np.frompyfunc(guarded, len(arrays), 1)(*arrays), dtype=object)


def _number(*elements: Any) -> bool:
    return not any(isinstance(e, str) for e in elements)


def _add(a: Any, b: Any) -> Any:
    return _sum(a, b, 1)


def _sub(a: Any, b: Any) -> Any:
    return _sum(a, b, -1)


def _sum(a: Any, b: Any, sign: int) -> Any:
    """Returns `a + sign * b`, of open sizes where they are multiples of the same names."""
    if b == 0:
        return a
    if a == 0 and sign == 1:
        return b
    (number, names), (other, others) = factors_of(_plain(a)), factors_of(_plain(b))
    total = number + sign * other
    return product_of([total, *names.elements()]) if names == others else None


def _plain(a: Any) -> int | str:
    return a if isinstance(a, str) else int(a)


def _mul(a: Any, b: Any) -> Any:
    return product_of([_plain(a), _plain(b)])


def _div(a: Any, b: Any) -> Any:
    if _number(a, b):  # towards 0, as C has it
        return int(a) // int(b) if (a >= 0) == (b > 0) else -(-int(a) // int(b))
    return quotient_of(_plain(a), _plain(b))


def _mod(a: Any, b: Any) -> Any:
    if _number(a, b):
        return int(a) % int(b)
    return None if quotient_of(_plain(a), _plain(b)) is None else 0


def _larger(a: Any, b: Any) -> Any:
    """Returns the larger of two sizes where it can be told: an open size is never negative."""
    if a is None or b is None:
        return None
    (number, names), (other, others) = factors_of(_plain(a)), factors_of(_plain(b))
    if names == others:
        return a if number >= other else b
    if not names and number <= 0:
        return b
    return a if not others and other <= 0 else None


def _smaller(a: Any, b: Any) -> Any:
    """Returns the smaller of two sizes where it can be told."""
    larger = _larger(a, b)
    return None if larger is None else b if larger is a else a


def _equal(a: Any, b: Any) -> Any:
    if _number(a, b):
        return bool(a == b)
    if a == b:
        return True
    number = b if isinstance(a, str) else a
    # A size is never negative; whether it is some other number is open.
    return False if not isinstance(number, str) and number < 0 else None


def _compared(function: Callable[[Any, Any], bool]) -> Callable[..., Any]:
    return lambda _, a, b: _each(lambda x, y: function(x, y) if _number(x, y) else None, a, b)


def _chosen(_: ir.Node, condition: Known, a: Known, b: Known) -> Known:
    def choice(c: Any, x: Any, y: Any) -> Any:
        return (x if c else y) if c is not None else (x if x == y else None)

    return np.asarray(np.frompyfunc(choice, 3, 1)(condition, a, b), dtype=object)


def _gathered(node: ir.Node, x: Known, indices: Known) -> Known:
    return np.take(x, indices.astype(np.int64), axis=attribute(node, "axis", 0))


def _sliced(
    _: ir.Node,
    x: Known,
    starts: Known,
    ends: Known,
    axes: Known | None = None,
    steps: Known | None = None,
) -> Known:
    cut = [slice(None)] * x.ndim
    whole_axes = range(len(starts)) if axes is None else axes
    whole_steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, whole_axes, whole_steps, strict=True):
        stop = None if step < 0 and end < -x.shape[axis] else int(end)
        cut[int(axis)] = slice(int(start), stop, int(step))
    return x[tuple(cut)]


def _reshaped(_: ir.Node, x: Known, target: Known) -> Known | None:
    sizes = [int(d) for d in target]
    if 0 in sizes:
        return None
    return x.reshape(sizes)


def _squeezed(_: ir.Node, x: Known, axes: Known | None = None) -> Known:
    return np.squeeze(x, None if axes is None else tuple(int(a) for a in axes))


def _unsqueezed(_: ir.Node, x: Known, axes: Known) -> Known:
    return np.expand_dims(x, tuple(int(a) for a in axes))


def _reduced(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Returns what reduces a vector to one element."""

    def reduced(node: ir.Node, x: Known, axes: Known | None = None) -> Known | None:
        if axes is None and attribute(node, "noop_with_empty_axes", 0):
            return x
        if x.ndim != 1 or x.size == 0 or (axes is not None and axes.tolist() not in ([0], [-1])):
            return None
        total = functools.reduce(lambda a, b: _each(function, a, b), x)
        sizes = [1] if attribute(node, "keepdims", 1) else []
        return np.asarray(total, dtype=object).reshape(sizes)

    return reduced


def _folded(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Returns what goes over any number of operands, element by element."""
    return lambda _, *x: functools.reduce(lambda a, b: _each(function, a, b), x)


def _filled(node: ir.Node, shape: Known) -> Known | None:
    sizes = [int(d) for d in shape]
    if math.prod(sizes) > _LARGEST:
        return None
    tensor = node.attributes.get("value")
    if tensor is None or tensor.as_tensor().dtype not in WHOLE:
        return None
    return np.full(sizes, tensor.as_tensor().numpy().reshape(-1)[0].item(), dtype=object)


def _expanded(_: ir.Node, x: Known, shape: Known) -> Known | None:
    sizes = [int(d) for d in shape]
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, sizes))


def _split(node: ir.Node, x: Known, sizes: Known | None = None) -> list[Known]:
    axis, count = attribute(node, "axis", 0), len(node.outputs)
    if sizes is None:
        each = -(-x.shape[axis] // count)
        ends = [each * (i + 1) for i in range(count - 1)]
    else:
        ends = np.cumsum(sizes.astype(np.int64))[:-1].tolist()
    return np.split(x, ends, axis)


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "Identity": lambda _, x: x,
    "Cast": _whole_cast,
    "Add": lambda _, a, b: _each(_add, a, b),
    "Sub": lambda _, a, b: _each(_sub, a, b),
    "Mul": lambda _, a, b: _each(_mul, a, b),
    "Div": lambda _, a, b: _each(_div, a, b),
    "Mod": lambda node, a, b: None if attribute(node, "fmod", 0) else _each(_mod, a, b),
    "Max": _folded(_larger),
    "Min": _folded(_smaller),
    "Equal": lambda _, a, b: _each(_equal, a, b),
    "Less": _compared(lambda a, b: bool(a < b)),
    "LessOrEqual": _compared(lambda a, b: bool(a <= b)),
    "Greater": _compared(lambda a, b: bool(a > b)),
    "GreaterOrEqual": _compared(lambda a, b: bool(a >= b)),
    "Not": lambda _, x: _each(lambda d: not d, x),
    "And": lambda _, a, b: _each(lambda x, y: bool(x and y), a, b),
    "Or": lambda _, a, b: _each(lambda x, y: bool(x or y), a, b),
    "Where": _chosen,
    "Gather": _gathered,
    "Slice": _sliced,
    "Concat": lambda node, *x: np.concatenate(x, axis=attribute(node, "axis")),
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "ReduceProd": _reduced(_mul),
    "ReduceSum": _reduced(_add),
    "ReduceMax": _reduced(_larger),
    "ReduceMin": _reduced(_smaller),
    "Split": _split,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
}
