"""A traced function once more in numbers of another length: what rounding makes of the function.

Noise on inputs does not show all rounding. Where large numbers cancel out inside of a model that
answers smoothly (a normalisation of one element, the gradient of a mean of normalised values), each
step rounds anew whatever is fed, or rounds alike at all inputs. The same operations on numbers of
twice the length show what is left of that. Nothing is longer than float64: what such a function
rounds is what it rounds in float32, less by the ratio of the roundings. Where numbers happen to be
exact in one of the two that shows too little: it is tried with constants and weights near the own
ones as well.

Where a function rounds its weights and inputs to 16 bits, they are rounded so: the function is that
of the rounded ones. What it calculates with them is calculated in float64.

Sigmoids may be rounded like numbers near 1, as those of some engines are: far below 0 they are 0.
What is behind them (`t - floor(t)`, a sign) may tell -1e-19 from 0, and then says more of the
engine than of the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, graph_pb2, node_def_pb2, types_pb2

from probegen.sources.keras.as_traced import run_as_traced

_FLOAT, _DOUBLE = types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE
_COARSE = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)
#: Element type -> the one that stands in its place.
_Types = Mapping[int, int]
_IN_DOUBLE: _Types = {
    **dict.fromkeys([*_COARSE, _FLOAT], _DOUBLE),
    types_pb2.DT_COMPLEX64: types_pb2.DT_COMPLEX128,
}
_IN_SINGLE: _Types = {_DOUBLE: _FLOAT, types_pb2.DT_COMPLEX128: types_pb2.DT_COMPLEX64}
_AS_IT_IS: _Types = {_DOUBLE: _DOUBLE}
_COARSE_SIGMOIDS: _Types = {_FLOAT: _FLOAT}
#: Moves numbers to others near them.
_Near = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
#: By how much that is, relative, and which draws are made: the first moves nothing.
_NEAR, _DRAWS = 1e-3, (0, 1)
#: What a rounding in float64 is of one in float32.
_SHORTER = 2.0**-29
#: Blends of the elements of images give float32 whatever they take, and their gradients take it.
_GIVE_FLOAT = frozenset({"ResizeBilinear", "ResizeBicubic"})
_TAKE_FLOAT = frozenset({"ResizeBilinearGrad", "ResizeBicubicGrad"})
#: What a sigmoid is a whole number of in engines where it is exact to a rounding of 1.
_UNIT = 2.0**-24
#: Numbers that names of functions end with, so that none is that of another.
_NUMBERS = itertools.count()


def in_double(function: Any) -> Callable[..., Any]:
    """Returns what computes in float64 what a concrete function computes in fewer bits.

    It takes what that takes, and returns the same nest.

    Raises:
        Exception: an operation has no form in float64.
    """
    return _in_other_types(function, _IN_DOUBLE)


def with_coarse_sigmoids(function: Any) -> Callable[..., Any] | None:
    """Returns what computes the same with sigmoids that are exact to a rounding of 1.

    It takes what a concrete function takes, and returns the same nest. None where that has no
    sigmoid in float32.
    """
    written = function.graph.as_graph_def()
    nodes = itertools.chain(written.node, *(f.node_def for f in written.library.function))
    if not any(map(_is_sigmoid, nodes)):
        return None
    return _in_other_types(function, _COARSE_SIGMOIDS)


def rounding_in_double(function: Any) -> Callable[..., Any]:
    """Returns what tells how much a concrete function of float64 rounds.

    It takes what that takes; of each floating result it gives one rounding, in the same nest.

    Raises:
        Exception: an operation has no form in float32.
    """
    pairs = [
        [_in_other_types(function, types, draw) for types in (_AS_IT_IS, _IN_SINGLE)]
        for draw in _DRAWS
    ]

    def run(*given: Any) -> Any:
        found = [[tf.nest.flatten(one(*given)) for one in pair] for pair in pairs]
        apart = [[_apart(*both) for both in zip(*pair, strict=True)] for pair in found]
        most = [np.maximum.reduce(draws) for draws in zip(*apart, strict=True)]
        return tf.nest.pack_sequence_as(function.structured_outputs, most)

    return run


def _apart(one: Any, other: Any) -> npt.NDArray[np.float64]:
    """Returns what rounding in float64 is where two results are as far apart by that in float32."""
    if not one.dtype.is_floating:
        return np.zeros(one.shape)
    with np.errstate(invalid="ignore"):
        off = np.abs(one.numpy().astype(np.float64) - other.numpy().astype(np.float64))
    return np.where(np.isfinite(off), _SHORTER * off, 0.0)


def _in_other_types(function: Any, types: _Types, draw: int = 0) -> Callable[..., Any]:
    """Returns a function in other types; a `draw` beyond 0 moves its constants and weights."""
    graph, outputs = function.graph, tf.nest.flatten(function.structured_outputs)
    rng = np.random.default_rng(draw)
    near = (lambda a: a * (1 + _NEAR * rng.standard_normal(a.shape))) if draw else (lambda a: a)
    written = _rewritten(graph.as_graph_def(), types, near)
    wrapped = tf.compat.v1.wrap_function(
        lambda: tf.graph_util.import_graph_def(written, name=""), []
    )
    captured = [_in_type(outer, types, near) for outer, _ in graph.captures]
    fed = [*function.inputs[: len(function.inputs) - len(captured)]]
    fed += [inner for _, inner in graph.captures]
    at = wrapped.graph.get_tensor_by_name
    pruned = wrapped.prune([at(t.name) for t in fed], [at(t.name) for t in outputs])
    kinds = [at(t.name).dtype for t in fed]

    def run(*given: Any) -> Any:
        arrays = [
            tf.cast(a, kind) if kind.is_floating else tf.convert_to_tensor(a)
            for a, kind in zip(given, kinds, strict=False)
        ]
        found = run_as_traced(pruned, *arrays, *(value for value, _ in captured))
        return tf.nest.pack_sequence_as(function.structured_outputs, found)

    return run


def _in_type(outer: Any, types: _Types, near: _Near) -> tuple[Any, Any]:
    """Returns what stands in for a captured tensor or variable, and what keeps it alive."""
    if outer.dtype.as_datatype_enum in types:
        return tf.cast(near(outer.numpy()), types[outer.dtype.as_datatype_enum]), None
    data = getattr(outer, "_handle_data", None)
    kinds = [s.dtype for s in data.shape_and_type] if data is not None and data.is_set else []
    if outer.dtype != tf.resource or len(kinds) != 1 or kinds[0] not in types:
        return outer, None
    value = tf.raw_ops.ReadVariableOp(resource=outer, dtype=kinds[0])
    variable = tf.Variable(tf.cast(near(value.numpy()), types[kinds[0]]))
    return variable.handle, variable


def _rewritten(written: graph_pb2.GraphDef, types: _Types, near: _Near) -> graph_pb2.GraphDef:
    """Returns a graph and its functions with other element types."""
    names, number = [f.signature.name for f in written.library.function], next(_NUMBERS)
    renamed = {name: f"{name}_in_another_length_{number}" for name in names}
    for function in written.library.function:
        function.signature.name = renamed[function.signature.name]
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            argument.type = types.get(argument.type, argument.type)
            del argument.handle_data[:]
        nodes = list(_nodes(function.node_def, renamed, types, near, inner=True))
        del function.node_def[:]
        function.node_def.extend(nodes)
    nodes = list(_nodes(written.node, renamed, types, near, inner=False))
    del written.node[:]
    written.node.extend(nodes)
    del written.library.gradient[:]
    return written


def _nodes(
    nodes: Iterable[node_def_pb2.NodeDef],
    renamed: Mapping[str, str],
    types: _Types,
    near: _Near,
    *,
    inner: bool,
) -> Iterator[node_def_pb2.NodeDef]:
    """Yields nodes in other types, and casts beside those whose types are not free.

    Args:
        nodes: the nodes.
        renamed: names of functions.
        types: the other types.
        near: moves constants.
        inner: whether they are those of a function, which name what they read otherwise.
    """
    for node in nodes:
        rounds = node.op == "Cast" and node.attr["DstT"].type in _COARSE
        coarse = node.attr["DstT"].type if rounds else _FLOAT
        _rewrite(node, renamed, types, near)
        if not inner and types.get(_FLOAT) and node.op in _TAKE_FLOAT:
            yield (cast := _cast(f"{node.name}/given", node.input[0], _DOUBLE, _FLOAT))
            node.input[0] = cast.name
        if types.get(coarse) and (rounds or (not inner and node.op in _GIVE_FLOAT)):
            name, node.name = node.name, f"{node.name}/rounded"
            if rounds:
                node.attr["DstT"].type = coarse
            read = f"{node.name}:y:0" if inner else node.name
            yield _cast(name, read, coarse, types[coarse])
        if types is _COARSE_SIGMOIDS and _is_sigmoid(node):
            name, node.name = node.name, f"{node.name}/exact"
            yield from _coarse(name, node.name, inner=inner)
        yield node


def _is_sigmoid(node: node_def_pb2.NodeDef) -> bool:
    return bool(node.op == "Sigmoid" and node.attr["T"].type == _FLOAT)


def _coarse(name: str, exact: str, *, inner: bool) -> Iterator[node_def_pb2.NodeDef]:
    """Yields what rounds a sigmoid to a whole number of `_UNIT`."""

    def read(other: str, output: str) -> str:
        return f"{other}:{output}:0" if inner else other

    def made(op: str, part: str, *inputs: str) -> node_def_pb2.NodeDef:
        node = node_def_pb2.NodeDef(name=f"{name}/{part}", op=op, input=inputs)
        node.attr["T"].type = _FLOAT
        return node

    for part, number in (("up", 1 / _UNIT), ("down", _UNIT)):
        constant = node_def_pb2.NodeDef(name=f"{name}/{part}", op="Const")
        constant.attr["dtype"].type = _FLOAT
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(number, tf.float32))
        yield constant
    yield made("Mul", "large", read(exact, "y"), read(f"{name}/up", "output"))
    yield made("Round", "whole", read(f"{name}/large", "z"))
    yield made("Mul", "small", read(f"{name}/whole", "y"), read(f"{name}/down", "output"))
    yield _cast(name, read(f"{name}/small", "z"), _FLOAT, _FLOAT)  # an output of the same name


def _cast(name: str, read: str, given: int, made: int) -> node_def_pb2.NodeDef:
    node = node_def_pb2.NodeDef(name=name, op="Cast", input=[read])
    node.attr["SrcT"].type, node.attr["DstT"].type = given, made
    return node


def _rewrite(
    node: node_def_pb2.NodeDef, renamed: Mapping[str, str], types: _Types, near: _Near
) -> None:
    node.op = renamed.get(node.op, node.op)
    for name in ("_output_shapes", "_gradient_op_type", "_class"):
        if name in node.attr:
            del node.attr[name]
    for value in node.attr.values():
        _rewrite_attribute(value, renamed, types, near)


def _rewrite_attribute(
    value: attr_value_pb2.AttrValue, renamed: Mapping[str, str], types: _Types, near: _Near
) -> None:
    kind = value.WhichOneof("value")
    if kind == "type":
        value.type = types.get(value.type, value.type)
    elif kind == "func":
        value.func.name = renamed.get(value.func.name, value.func.name)
    elif kind == "list":
        value.list.type[:] = [types.get(t, t) for t in value.list.type]
        for function in value.list.func:
            function.name = renamed.get(function.name, function.name)
    elif kind == "tensor" and value.tensor.dtype in types:
        dtype = tf.as_dtype(types[value.tensor.dtype])
        array = near(tf.make_ndarray(value.tensor)).astype(dtype.as_numpy_dtype)
        value.tensor.CopyFrom(tf.make_tensor_proto(array, dtype=dtype))
