"""A traced function of float32 once more in float64: what rounding makes of the function.

Noise on inputs does not show all rounding. Where large numbers cancel out inside of a model that
answers smoothly (a normalisation of one element, the gradient of a mean of normalised values), each
step rounds anew whatever is fed, or rounds alike at all inputs. The same operations on numbers of
twice the length show what is left of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, graph_pb2, node_def_pb2, types_pb2

from probegen.sources.keras.as_traced import run_as_traced

_FLOAT, _DOUBLE = types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE
#: What names of functions end with, so that they are others than those they were made of.
_SUFFIX = "_in_double"


def in_double(function: Any) -> Callable[..., Any]:
    """Returns what computes in float64 what a concrete function computes in float32.

    It takes what that takes, and returns the same nest.

    Raises:
        Exception: an operation has no form in float64.
    """
    graph, outputs = function.graph, tf.nest.flatten(function.structured_outputs)
    written = _rewritten(graph.as_graph_def())
    wrapped = tf.compat.v1.wrap_function(
        lambda: tf.graph_util.import_graph_def(written, name=""), []
    )
    captured = [_doubled(outer) for outer, _ in graph.captures]
    fed = [*function.inputs[: len(function.inputs) - len(captured)]]
    fed += [inner for _, inner in graph.captures]
    at = wrapped.graph.get_tensor_by_name
    pruned = wrapped.prune([at(t.name) for t in fed], [at(t.name) for t in outputs])
    kinds = [at(t.name).dtype for t in fed]

    def run(*given: Any) -> Any:
        arrays = [
            tf.cast(a, kind) if kind == tf.float64 else tf.convert_to_tensor(a)
            for a, kind in zip(given, kinds, strict=False)
        ]
        found = run_as_traced(pruned, *arrays, *(value for value, _ in captured))
        return tf.nest.pack_sequence_as(function.structured_outputs, found)

    return run


def _doubled(outer: Any) -> tuple[Any, Any]:
    """Returns what stands in for a captured tensor or variable, and what keeps it alive."""
    if outer.dtype == tf.float32:
        return tf.cast(outer, tf.float64), None
    data = getattr(outer, "_handle_data", None)
    kinds = [s.dtype for s in data.shape_and_type] if data is not None and data.is_set else []
    if outer.dtype != tf.resource or kinds != [_FLOAT]:
        return outer, None
    variable = tf.Variable(
        tf.cast(tf.raw_ops.ReadVariableOp(resource=outer, dtype=tf.float32), tf.float64)
    )
    return variable.handle, variable


def _rewritten(written: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
    """Returns a graph and its functions with float64 in the place of float32."""
    renamed = {f.signature.name: f.signature.name + _SUFFIX for f in written.library.function}
    nodes = [*written.node, *(n for f in written.library.function for n in f.node_def)]
    for node in nodes:
        _rewrite(node, renamed)
    for function in written.library.function:
        function.signature.name = renamed[function.signature.name]
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            argument.type = _DOUBLE if argument.type == _FLOAT else argument.type
            del argument.handle_data[:]
    del written.library.gradient[:]
    return written


def _rewrite(node: node_def_pb2.NodeDef, renamed: Mapping[str, str]) -> None:
    node.op = renamed.get(node.op, node.op)
    for name in ("_output_shapes", "_gradient_op_type", "_class"):
        if name in node.attr:
            del node.attr[name]
    for value in node.attr.values():
        _rewrite_attribute(value, renamed)


def _rewrite_attribute(value: attr_value_pb2.AttrValue, renamed: Mapping[str, str]) -> None:
    kind = value.WhichOneof("value")
    if kind == "type" and value.type == _FLOAT:
        value.type = _DOUBLE
    elif kind == "func":
        value.func.name = renamed.get(value.func.name, value.func.name)
    elif kind == "list":
        value.list.type[:] = [_DOUBLE if t == _FLOAT else t for t in value.list.type]
        for function in value.list.func:
            function.name = renamed.get(function.name, function.name)
    elif kind == "tensor" and value.tensor.dtype == _FLOAT:
        array = tf.make_ndarray(value.tensor).astype("float64")
        value.tensor.CopyFrom(tf.make_tensor_proto(array, dtype=tf.float64))
