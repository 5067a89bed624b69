"""Sizes that are computed at run time though shapes say them: found, and written as constants.

Exporters write `x.reshape(x.size(0), -1)` as a chain of Shape, Gather and Concat. Of each such
value is known, element by element, a number, an open size (a name, or a product of such), or
nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.size_products import (
    factors_of,
    product_of,
    quotient_of,
    told_by_equal,
)
from probegen.graph.core.values import (
    Dim,
    attribute,
    broadcast,
    constant_of,
    new_initializer,
    shape_of,
    static_shape,
)
from probegen.graph.passes.before.name_open_sizes import (
    rename_sizes,
    reshaped,
    shape_by_inputs,
)
from probegen.sources.onnx.constants import put_constant
from probegen.sources.onnx.names import AllNames, nodes_of
from probegen.sources.onnx.rewriting import graph_of
from probegen.sources.onnx.same_sizes import UNNAMED

#: Numbers, open sizes by name or as products, and None, as an array of objects.
_Known = npt.NDArray[Any]
_WHOLE = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
#: Larger values are data and no sizes.
_LARGEST = 256
#: From here on an end stands for "to the end", as the ONNX specification recommends it.
_UNBOUNDED = 2**31 - 1


def write_known_sizes(graph: ir.Graph) -> tuple[bool, Mapping[ir.Value, _Known]]:
    """Writes what shapes decide as constants: whole values, targets of reshapes.

    `Reshape(x, Concat(Gather(Shape(x), 0), [-1]))` -> `Reshape(x, [0, -1])`

    Open sizes of the graph's values get the names that they are equal to by the way.

    Needs: topological order, shapes inferred.

    Returns:
        Whether something was written; and of values that are made of open sizes what is known,
        element by element.
    """
    known: dict[ir.Value, _Known] = {}
    equal: dict[str, Dim] = {}
    changed = False
    for node in nodes_of(graph):
        for value in node.outputs:
            rename_sizes(value, equal)
        if node.domain:
            continue
        settle = _SETTLING.get(node.op_type)
        if settle is not None and settle(node, known):
            changed = True
            if node.graph is None:
                continue
        if node.graph is graph:  # in graphs of nodes a size may differ from step to step
            _name(node, known, equal)
        for value, found in zip(node.outputs, _evaluated(node, known), strict=False):
            if found is None or not value.name or node.graph is None:
                continue
            if all(isinstance(d, (int, bool, np.integer, np.bool_)) for d in found.reshape(-1)):
                if value.dtype in _WHOLE and not _is_stored(node):
                    put_constant(value, found.astype(value.dtype.numpy()))
                    changed = True
            else:
                known[value] = found
    return changed, known


def share_sizes(model: ir.Model, known: Mapping[ir.Value, _Known], names: AllNames) -> bool:
    """Makes what is put together from open sizes once, of the shapes of the inputs.

    `Reshape(y, Concat(Gather(Shape(h)), 8))` with h `[batch, 96]` -> `Reshape(y, Concat(Shape(x),
    8))` with x the input of that batch; the same for all such targets.

    Needs: what is known of the graph as it is now.

    Returns:
        Whether anything was: inference may then find sizes that it could not follow before.
    """
    changed = False
    shared = _Shared(model.graph, names)
    whole = {v: content for v, content in known.items() if None not in content.reshape(-1).tolist()}
    for value, content in whole.items():
        if value.dtype != ir.DataType.INT64 or content.ndim > 1 or value.graph is not model.graph:
            continue
        for use in list(value.uses()):
            if use.node.op_type in ("If", "Loop", "Scan") or use.node.outputs[0] in whole:
                continue
            same = shared.value(content)
            if same is not None and same is not value:
                use.node.replace_input_with(use.idx, same)
                changed = True
    shared.attach()
    return changed


class _Shared:
    """Values that are put together from sizes of the inputs, each once."""

    def __init__(self, graph: ir.Graph, names: AllNames) -> None:
        self._graph, self._names = graph, names
        self._places: dict[str, tuple[ir.Value, int]] = {}
        for value in graph.inputs:
            for axis, size in enumerate(shape_of(value) or ()):
                if isinstance(size, str):
                    self._places.setdefault(size, (value, axis))
        self._made: dict[tuple[object, ...], ir.Value] = {}
        self._nodes: list[ir.Node] = []

    def value(self, content: _Known) -> ir.Value | None:
        """Returns a value of that content, None where an input does not have a size of it."""
        elements = content.reshape(-1).tolist()
        if not all(factors_of(d)[1].keys() <= self._places.keys() for d in elements):
            return None
        parts = [self._part(d) for d in elements]
        whole = parts[0]
        if len(parts) > 1:
            whole = self._once(("Concat", *elements), "Concat", parts, axis=0)
        if content.ndim == 0:
            axis = self._part(0)
            whole = self._once(("Squeeze", *elements), "Squeeze", [whole, axis])
        return whole

    def _part(self, size: Dim) -> ir.Value:
        if isinstance(size, str):
            number, names = factors_of(size)
            first, *others = ([] if number == 1 else [number]) + sorted(names.elements())
            if others:
                return self._product(first, others)
            source, axis = self._places[size]
            return self._once((size,), "Shape", [source], start=axis, end=axis + 1)
        if (size,) not in self._made:
            name = self._names.values.unique(f"sizes/{size}")
            array = np.asarray([size], dtype=np.int64)
            self._made[size,] = new_initializer(self._graph, name, array)
        return self._made[size,]

    def _product(self, size: Dim, others: list[int | str]) -> ir.Value:
        whole = self._part(size)
        for other in others:
            size = product_of([size, other])
            whole = self._once((size,), "Mul", [whole, self._part(other)])
        return whole

    def _once(
        self, key: tuple[object, ...], op_type: str, inputs: list[ir.Value], **attributes: int
    ) -> ir.Value:
        if key not in self._made:
            name = "_".join(str(k) for k in (key if len(key) == 1 else key[1:])).replace(" ", "")
            node = ir.node(op_type, inputs, attributes)
            node.name = self._names.nodes.unique(f"sizes/{name}")
            result = node.outputs[0]
            result.name = self._names.values.unique(f"sizes/{name}")
            rank = 0 if op_type == "Squeeze" else 1
            result.type = ir.TensorType(ir.DataType.INT64)
            result.shape = ir.Shape([len(key) - 1 if op_type == "Concat" else 1] * rank)
            self._made[key] = result
            self._nodes.append(node)
        return self._made[key]

    def attach(self) -> None:
        """Puts what was made at the beginning of the graph."""
        if self._nodes:
            self._graph.insert_before(self._graph[0], self._nodes)


def _name(node: ir.Node, known: Mapping[ir.Value, _Known], equal: dict[str, Dim]) -> None:
    """Finds out open sizes of a node's first output that have a name of their own, or a number."""
    noted = shape_of(node.outputs[0])
    made = _shape_by_content(node, known) or shape_by_inputs(node)
    if noted is None or made is None or len(noted) != len(made):
        return
    for old, new in zip(noted, made, strict=True):
        if isinstance(old, str) and new is not None and old != new and old.startswith(UNNAMED):
            equal[old] = new
    rename_sizes(node.outputs[0], equal)
    if None in (shape_of(node.outputs[0]) or ()):
        sizes = [n if o is None else o for o, n in zip(noted, made, strict=True)]
        node.outputs[0].shape = ir.Shape(sizes)


def _shape_by_content(node: ir.Node, known: Mapping[ir.Value, _Known]) -> tuple[Dim, ...] | None:
    """Returns what the content of inputs tells of the shape of a node's output."""
    if node.op_type == "Range":
        start, end, step = (_known_of(v, known) for v in node.inputs)
        counts = start is not None and step is not None and (start.item(), step.item()) == (0, 1)
        length = end.item() if end is not None and counts else None
        return (length,) if isinstance(length, str) else None
    if node.op_type == "Slice":
        return _shape_of_slice(node, known)
    position = {"ConstantOfShape": 0, "Reshape": 1, "Expand": 1}.get(node.op_type)
    target = None if position is None else _known_of(node.inputs[position], known)
    if target is None or target.ndim != 1:
        return None
    sizes: list[Dim] = [d if d is None or isinstance(d, str) else int(d) for d in target.tolist()]
    source = None if node.inputs[0] is None else shape_of(node.inputs[0])
    if node.op_type == "Expand":
        return broadcast(source, sizes)
    literal = bool(attribute(node, "allowzero", 0)) and 0 in sizes
    if node.op_type == "Reshape" and source is not None and not literal:
        # The one size that is left to be inferred may need sizes that are not known.
        sizes = [None if d == -1 else d for d in reshaped(source, sizes) or sizes]
    return None if any(isinstance(d, int) and d < 1 for d in sizes) else tuple(sizes)


def _shape_of_slice(node: ir.Node, known: Mapping[ir.Value, _Known]) -> tuple[Dim, ...] | None:
    """Returns the sizes of the axes that a Slice does not cut, None for the others."""
    shape = None if node.inputs[0] is None else shape_of(node.inputs[0])
    axes = _known_of(node.inputs[3], known) if len(node.inputs) > 3 else None
    if shape is None or axes is None or None in axes.tolist():
        return None
    cut = {int(axis) % len(shape) for axis in axes.tolist()}
    return tuple(None if i in cut else size for i, size in enumerate(shape))


def _is_stored(node: ir.Node) -> bool:
    return node.op_type == "Identity" and node.outputs[0].is_graph_output()


def _known_of(value: ir.Value | None, known: Mapping[ir.Value, _Known]) -> _Known | None:
    if value is None:
        return None
    if value in known:
        return known[value]
    tensor = value.const_value
    if tensor is None or tensor.size > _LARGEST or value.dtype not in _WHOLE:
        return None
    array = constant_of(value)
    return None if array is None else array.astype(object)


def _evaluated(node: ir.Node, known: Mapping[ir.Value, _Known]) -> list[_Known | None]:
    """Returns what is known of a node's outputs, element by element; None for nothing."""
    if node.op_type in ("Shape", "Size"):
        return [_measured(node)]
    function = _FUNCTIONS.get(node.op_type)
    if function is None:
        return []
    given = [_known_of(v, known) for v in node.inputs]
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


def _open(value: ir.Value | None) -> _Known | None:
    """Returns as many elements as a value has, of which nothing is known."""
    sizes = None if value is None or value.dtype not in _WHOLE else static_shape(value)
    if sizes is None or math.prod(sizes) > _LARGEST:
        return None
    return np.full(sizes, None, dtype=object)


def _measured(node: ir.Node) -> _Known | None:
    shape = None if node.inputs[0] is None else shape_of(node.inputs[0])
    if shape is None:
        return None
    if node.op_type == "Size":
        return np.asarray(product_of(shape), object)
    cut = shape[slice(attribute(node, "start", 0), attribute(node, "end"))]
    found = np.empty(len(cut), dtype=object)
    found[:] = cut
    return found


# -- functions --------------------------------------------------------------------------------


def _whole_cast(node: ir.Node, x: _Known) -> _Known | None:
    to = ir.DataType(attribute(node, "to"))
    if to == ir.DataType.BOOL:
        return _each(lambda d: bool(d) if not isinstance(d, str) else None, x)
    # An open size fits into 32 bits, or no engine could hold the tensor.
    return x if to in _WHOLE else None


def _each(function: Callable[..., Any], *arrays: _Known) -> _Known:
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


def _chosen(_: ir.Node, condition: _Known, a: _Known, b: _Known) -> _Known:
    def choice(c: Any, x: Any, y: Any) -> Any:
        return (x if c else y) if c is not None else (x if x == y else None)

    return np.asarray(np.frompyfunc(choice, 3, 1)(condition, a, b), dtype=object)


def _gathered(node: ir.Node, x: _Known, indices: _Known) -> _Known:
    return np.take(x, indices.astype(np.int64), axis=attribute(node, "axis", 0))


def _sliced(
    _: ir.Node,
    x: _Known,
    starts: _Known,
    ends: _Known,
    axes: _Known | None = None,
    steps: _Known | None = None,
) -> _Known:
    cut = [slice(None)] * x.ndim
    whole_axes = range(len(starts)) if axes is None else axes
    whole_steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, whole_axes, whole_steps, strict=True):
        stop = None if step < 0 and end < -x.shape[axis] else int(end)
        cut[int(axis)] = slice(int(start), stop, int(step))
    return x[tuple(cut)]


def _reshaped(_: ir.Node, x: _Known, target: _Known) -> _Known | None:
    sizes = [int(d) for d in target]
    if 0 in sizes:
        return None
    return x.reshape(sizes)


def _squeezed(_: ir.Node, x: _Known, axes: _Known | None = None) -> _Known:
    return np.squeeze(x, None if axes is None else tuple(int(a) for a in axes))


def _unsqueezed(_: ir.Node, x: _Known, axes: _Known) -> _Known:
    return np.expand_dims(x, tuple(int(a) for a in axes))


def _reduced(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Returns what reduces a vector to one element."""

    def reduced(node: ir.Node, x: _Known, axes: _Known | None = None) -> _Known | None:
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


def _filled(node: ir.Node, shape: _Known) -> _Known | None:
    sizes = [int(d) for d in shape]
    if math.prod(sizes) > _LARGEST:
        return None
    tensor = node.attributes.get("value")
    if tensor is None or tensor.as_tensor().dtype not in _WHOLE:
        return None
    return np.full(sizes, tensor.as_tensor().numpy().reshape(-1)[0].item(), dtype=object)


def _expanded(_: ir.Node, x: _Known, shape: _Known) -> _Known | None:
    sizes = [int(d) for d in shape]
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, sizes))


def _split(node: ir.Node, x: _Known, sizes: _Known | None = None) -> list[_Known]:
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


# -- targets of reshapes ----------------------------------------------------------------------


def _settle_reshape(node: ir.Node, known: Mapping[ir.Value, _Known]) -> bool:
    """Writes the target of a Reshape as a constant, where at most one size has to be inferred."""
    source, target = node.inputs[0], node.inputs[1]
    if source is None or target is None or target not in known:
        return False
    literal = bool(attribute(node, "allowzero", 0))
    given = shape_of(source)
    wanted = known[target].reshape(-1).tolist()
    if not literal and given is not None:
        wanted = list(reshaped(given, wanted) or wanted)
    if told_by_reshape(node, known) is not None:
        return False  # once it is written, nothing tells it any more
    sizes: list[int] = []
    for axis, size in enumerate(wanted):
        if not isinstance(size, str):
            if size is None or (literal and size == 0):
                sizes.append(-1 if size is None else 0)
            else:
                sizes.append(int(size))
        elif not literal and given is not None and axis < len(given) and given[axis] == size:
            sizes.append(0)
        else:
            sizes.append(-1)
    if sizes.count(-1) > 1 or (literal and 0 in sizes) or _may_be_no_size(known[target]):
        return False
    node.attributes.pop("allowzero", None)
    name = f"{node.outputs[0].name}/target"
    node.replace_input_with(
        1, new_initializer(graph_of(node), name, np.asarray(sizes, dtype=np.int64))
    )
    return True


def told_by_reshape(node: ir.Node, known: Mapping[ir.Value, _Known]) -> tuple[str, int] | None:
    """Returns which size of the inputs is one number, as a Reshape takes no other; else None.

    `Reshape(x [time, batch, 8], [6, 2 * batch, 4])` -> `time` is 6

    Args:
        node: a Reshape.
        known: what is known of values.
    """
    source, target = node.inputs[0], _known_of(node.inputs[1], known)
    given = None if source is None else shape_of(source)
    if given is None or target is None or not node.outputs[0].uses():
        return None
    sizes = target.reshape(-1).tolist()
    if not attribute(node, "allowzero", 0):
        sizes = [given[i] if d == 0 and i < len(given) else d for i, d in enumerate(sizes)]
    if any(d is None or (not isinstance(d, str) and d < 1) for d in sizes):
        return None
    told = told_by_equal(product_of(given), product_of(sizes))
    inputs = {d for value in graph_of(node).inputs for d in shape_of(value) or ()}
    return told if told is not None and told[0] in inputs else None


def _may_be_no_size(target: _Known) -> bool:
    """Tells whether an element that is not known may be a request (-1, 0) and no size.

    Beside a -1 it is a size, or the target was invalid; alone it is inferred all the same: from
    -1 as from the size itself.
    """
    flat = target.reshape(-1).tolist()
    return flat.count(None) > 1


def _settle_expand(node: ir.Node, known: Mapping[ir.Value, _Known]) -> bool:
    """Takes out an Expand to the shape that its input has."""
    source, target = node.inputs[0], node.inputs[1]
    if source is None or target is None or node.outputs[0].is_graph_output():
        return False
    wanted, given = _known_of(target, known), shape_of(source)
    if wanted is None or given is None or len(wanted) > len(given):
        return False
    own: tuple[Dim, ...] = given[len(given) - len(wanted) :]
    if any(w is None or (w not in (1, o)) for w, o in zip(wanted.tolist(), own, strict=True)):
        return False
    ir.convenience.replace_all_uses_with(node.outputs[0], source)
    graph_of(node).remove(node, safe=True)
    return True


def _settle_resize(node: ir.Node, known: Mapping[ir.Value, _Known]) -> bool:
    """Leaves out of the sizes of a Resize those that its input has already.

    `Resize(x, sizes=[N, 2, 6, 10])` -> `Resize<axes=[2, 3]>(x, sizes=[6, 10])`

    Needs: opset 18 or later.
    """
    source, sizes = node.inputs[0], node.inputs[3] if len(node.inputs) > 3 else None
    if source is None or sizes is None or sizes not in known or "axes" in node.attributes:
        return False
    if attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize":
        return False
    wanted, given = known[sizes].tolist(), shape_of(source)
    if given is None or attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    axes = [i for i, (w, g) in enumerate(zip(wanted, given, strict=True)) if w is None or w != g]
    kept = [wanted[i] for i in axes]
    if not axes or not all(isinstance(size, int) for size in kept):
        return False
    name = f"{node.outputs[0].name}/sizes"
    node.replace_input_with(3, new_initializer(graph_of(node), name, np.asarray(kept, np.int64)))
    node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    return True


def _settle_slice(  # noqa: PLR0911
    node: ir.Node, known: Mapping[ir.Value, _Known]
) -> bool:
    """Leaves out of a Slice the axes of which it takes everything; all of it where it takes all.

    `Slice(x, [0], [N], [0])` of x with N rows -> `x`
    """
    source = node.inputs[0]
    shape = None if source is None else shape_of(source)
    bounds = [_known_of(v, known) for v in node.inputs[1:]]
    if source is None or shape is None or len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return False
    if any(b is None and v is not None for b, v in zip(bounds, node.inputs[1:], strict=True)):
        return False
    starts, ends = bounds[0].tolist(), bounds[1].tolist()
    axes = bounds[2] if len(bounds) > 2 and bounds[2] is not None else np.arange(len(starts))
    steps = bounds[3] if len(bounds) > 3 and bounds[3] is not None else np.ones(len(starts), int)
    if not all(isinstance(n, int) for n in (*axes.tolist(), *steps.tolist())):
        return False
    cuts = [
        cut
        for cut in zip(starts, ends, axes.tolist(), steps.tolist(), strict=True)
        if not _takes_all(shape[cut[2]], *cut[:2], cut[3])
    ]
    if not cuts:
        if node.outputs[0].is_graph_output():
            return False
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        graph_of(node).remove(node, safe=True)
        return True
    if len(cuts) == len(starts) or not all(isinstance(n, int) for cut in cuts for n in cut):
        return False
    node.resize_inputs(5)
    for position, numbers in enumerate(zip(*cuts, strict=True), start=1):
        name = f"{node.outputs[0].name}/bound_{position}"
        array = np.asarray(numbers, dtype=np.int64)
        node.replace_input_with(position, new_initializer(graph_of(node), name, array))
    return True


def _takes_all(size: Dim, start: Any, end: Any, step: int) -> bool:
    if step != 1 or start != 0 or end is None or size is None:
        return isinstance(end, int) and end >= _UNBOUNDED and step == 1 and start == 0
    if isinstance(end, int):
        return end >= _UNBOUNDED or (isinstance(size, int) and end >= size)
    return bool(end == size)


def _settle_range(node: ir.Node, known: Mapping[ir.Value, _Known]) -> bool:  # noqa: ARG001
    """Makes numbers of vectors of one element, which onnx' own bodies of operators hand over."""
    changed = False
    for position, value in enumerate(node.inputs):
        array = constant_of(value)
        if value is not None and array is not None and array.ndim == 1 and array.size == 1:
            name = f"{node.outputs[0].name}/number_{position}"
            number = new_initializer(graph_of(node), name, array.reshape(()))
            node.replace_input_with(position, number)
            changed = True
    return changed


_SETTLING: Mapping[str, Callable[[ir.Node, Mapping[ir.Value, _Known]], bool]] = {
    "Reshape": _settle_reshape,
    "Expand": _settle_expand,
    "Resize": _settle_resize,
    "Slice": _settle_slice,
    "Range": _settle_range,
}
