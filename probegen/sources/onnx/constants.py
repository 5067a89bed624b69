"""What is computed from constants alone is computed once, before the walk.

The values are onnxruntime's own: it would compute them when it loads the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from probegen.graph.core.queries import captured_values, inputs_of
from probegen.graph.core.values import new_initializer, static_shape, subgraphs_of
from probegen.graph.running import open_graph, session_options
from probegen.sources.onnx.names import AllNames, nodes_of
from probegen.sources.onnx.rewriting import graph_of

_Array = npt.NDArray[Any]

#: Elements of a result up to which it may be larger than what it is computed from.
_SMALL = 4096
#: Operators that give something else each time, or that stay as they are in the file: weights
#: that are stored in 8 bits.
_LEFT_ALONE = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
)
#: Elements of what says axes and sizes.
_FEW = 64


def lift_constants(graph: ir.Graph) -> None:
    """Makes initializers of `Constant` nodes, under the names of their outputs.

    `Constant() -> c` -> `c`

    Leaves: one that is an output of its graph, as an `Identity` of an initializer.
    """
    for node in nodes_of(graph):
        if node.op_type != "Constant" or node.domain:
            continue
        array = _constant(node)
        if array is not None:
            put_constant(node.outputs[0], array)


def copy_into_bodies(graph: ir.Graph, names: AllNames) -> None:
    """Gives the graphs within a graph copies of small constants of whole numbers that they read.

    Inference knows nothing of the content of constants of the graph around: without them it does
    not know, say, which axes an Unsqueeze in a branch adds.
    """
    for inner in graph.subgraphs():
        if inner is graph:
            continue
        copies: dict[ir.Value, ir.Value] = {}
        for node in inner:
            for position, value in enumerate(node.inputs):
                if value is None or value.graph is inner or not _is_small_whole(value):
                    continue
                if value not in copies:
                    array = value.const_value.numpy() if value.const_value is not None else None
                    name = names.values.unique(f"{node.name}/{value.name}")
                    copies[value] = new_initializer(inner, name, np.asarray(array))
                node.replace_input_with(position, copies[value])


def _is_small_whole(value: ir.Value) -> bool:
    return (
        is_constant(value)
        and value.dtype in (ir.DataType.INT64, ir.DataType.INT32)
        and value.const_value is not None
        and value.const_value.size <= _FEW
    )


def _constant(node: ir.Node) -> _Array | ir.TensorProtocol | None:
    """Returns what a `Constant` holds; None for an attribute that no version knows."""
    for name, attribute in node.attributes.items():
        if name == "value":
            return attribute.as_tensor()
        if name in ("value_float", "value_floats"):
            return np.asarray(attribute.value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(attribute.value, dtype=np.int64)
        if name in ("value_string", "value_strings"):
            return np.asarray(attribute.value, dtype=object)
    return None


def put_constant(value: ir.Value, content: _Array | ir.TensorProtocol) -> ir.Value:
    """Lets an initializer stand for an output of a node, under its name.

    The node is removed where nothing reads its other outputs. An output of the graph is handed on
    from the initializer.

    Args:
        value: the output.
        content: its content.
    """
    node = value.producer()
    if node is None:
        raise ValueError(f"{value.name!r} is no output of a node")
    graph, name = graph_of(node), str(value.name)
    if value.is_graph_output():
        constant = _register(graph, f"{name}/constant", content)
        value.name = None
        identity = ir.node("Identity", [constant], name=node.name, num_outputs=1)
        identity.meta.update(node.meta)
        out = identity.outputs[0]
        out.type, out.shape = constant.type, constant.shape
        graph.insert_before(node, identity)
        ir.convenience.replace_all_uses_with(value, out, replace_graph_outputs=True)
        out.name = name
    else:
        value.name = None
        constant = _register(graph, name, content)
        ir.convenience.replace_all_uses_with(value, constant)
    if not any(v.uses() or v.is_graph_output() for v in node.outputs):
        graph.remove(node, safe=True)
    return constant


def _register(graph: ir.Graph, name: str, content: _Array | ir.TensorProtocol) -> ir.Value:
    if isinstance(content, np.ndarray) and content.dtype == object:
        encoded = [s if isinstance(s, bytes) else str(s).encode() for s in content.reshape(-1)]
        content = ir.StringTensor(encoded, shape=ir.Shape(content.shape), name=name)
    if isinstance(content, np.ndarray):
        return new_initializer(graph, name, content)
    value = ir.Value(
        name=name,
        type=ir.TensorType(content.dtype),
        shape=ir.Shape(content.shape.numpy()),
        const_value=content,
    )
    graph.register_initializer(value)
    return value


def fold_constants(model: ir.Model) -> bool:
    """Computes what constants alone decide, in the graph and in those within it.

    Leaves: results that are much larger than what they are computed from (an `Expand`), weights
    that other nodes read as they are, stored in 8 bits, or drawn at random.

    Needs: topological order; the fewer shapes are known, the more is computed only to find that
    it is too large.

    Returns:
        True where something was computed.
    """
    changed = False
    too_large: set[ir.Node] = set()
    for graph in (model.graph, *model.graph.subgraphs()):
        while True:
            nodes = _constant_nodes(graph, too_large)
            results = _frontier(nodes)
            if not results:
                break
            arrays = _computed(model, nodes, results, too_large)
            for value, array in arrays.items():
                node = value.producer()
                if node is None:
                    continue
                if _fits(node, array.size, array.nbytes):
                    put_constant(value, array)
                    changed = True
                else:
                    too_large.add(node)
    return changed


def _constant_nodes(graph: ir.Graph, excluded: set[ir.Node]) -> list[ir.Node]:
    """Returns the nodes of a graph that depend on constants alone, in order."""
    found: list[ir.Node] = []
    computed: set[ir.Value] = set()
    for node in graph:
        if node in excluded or node.domain or node.op_type in _LEFT_ALONE:
            continue
        read = list(inputs_of(node))
        if not read or any(n.op_type in _LEFT_ALONE for g in subgraphs_of(node) for n in g):
            continue
        if _is_copy(node) or not all(v in computed or is_constant(v) for v in read):
            continue
        sizes = [static_shape(v) for v in node.outputs]
        count = sum(int(np.prod(s)) for s in sizes if s is not None)
        if None not in sizes and not _fits(node, count, None):
            continue
        found.append(node)
        computed.update(node.outputs)
    return found


def _is_copy(node: ir.Node) -> bool:
    """Tells whether a node hands a constant on as an output of the graph, as has to be."""
    return node.op_type == "Identity" and node.outputs[0].is_graph_output()


def is_constant(value: ir.Value) -> bool:
    """Tells whether a value is stored in the file, and nothing a caller may feed."""
    return value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def _fits(node: ir.Node, elements: int, bytes_: int | None) -> bool:
    """Tells whether a result of so many elements may take the place of the nodes that made it."""
    if elements <= _SMALL:
        return True
    before: set[ir.Value] = set()
    passed = {node}
    pending = list(inputs_of(node))
    while pending:
        value = pending.pop()
        made = value.producer()
        if is_constant(value):
            before.add(value)
        elif made is not None and made not in passed:
            passed.add(made)
            pending.extend(inputs_of(made))
    # A weight that others read too would be stored twice.
    alone = [v for v in before if all(use.node in passed for use in v.uses())]
    tensors = [v.const_value for v in alone if v.const_value is not None]
    if bytes_ is None:
        return elements <= sum(t.size for t in tensors)
    return bytes_ <= sum(t.nbytes for t in tensors)


def _frontier(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """Returns the results that other nodes, or graphs within those, read."""
    inside = set(nodes)
    within = {inner for node in nodes for g in subgraphs_of(node) for inner in nodes_of(g)}
    found = []
    for node in nodes:
        for value in node.outputs:
            read = value.is_graph_output() or any(
                use.node not in inside and use.node not in within for use in value.uses()
            )
            if read:
                found.append(value)
    return found


def _computed(
    model: ir.Model, nodes: Sequence[ir.Node], results: Sequence[ir.Value], failed: set[ir.Node]
) -> Mapping[ir.Value, _Array]:
    """Computes results; nodes that onnxruntime cannot run alone join the failed ones."""
    try:
        return _run(model, nodes, results)
    except Exception:
        if len(nodes) == 1:
            failed.add(nodes[0])
            return {}
    arrays: dict[ir.Value, _Array] = {}
    for node in nodes:
        if all(is_constant(v) for v in inputs_of(node)):
            read = [v for v in node.outputs if v.uses() or v.is_graph_output()]
            arrays.update(_computed(model, [node], read, failed))
            if node in failed:
                continue
    if not arrays:
        failed.update(nodes)
    return arrays


def _run(
    model: ir.Model, nodes: Sequence[ir.Node], results: Sequence[ir.Value]
) -> Mapping[ir.Value, _Array]:
    needed = _needed(nodes, results)
    session = open_graph(_extracted(model, needed, results), _options())
    arrays = session.run(None, {})
    return dict(zip(results, (np.asarray(a) for a in arrays), strict=True))


def _needed(nodes: Sequence[ir.Node], results: Iterable[ir.Value]) -> list[ir.Node]:
    wanted = set(results)
    found = []
    for node in reversed(nodes):
        if any(v in wanted for v in node.outputs):
            found.append(node)
            wanted.update(inputs_of(node))
    return found[::-1]


def _extracted(model: ir.Model, nodes: Sequence[ir.Node], results: Sequence[ir.Value]) -> ir.Model:
    """Returns a model of copies of nodes, with copies of the constants that they read."""
    copies: dict[ir.Value, ir.Value] = {}
    stored: list[ir.Value] = []
    made: list[ir.Node] = []

    def copy_of(value: ir.Value) -> ir.Value:
        if value not in copies:
            tensor = value.const_value
            if tensor is None:
                raise ValueError(f"{value.name!r} is not known")
            copies[value] = ir.Value(
                name=f"c{len(copies)}",
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(tensor.shape.numpy()),
                const_value=_renamable(tensor),
            )
            stored.append(copies[value])
        return copies[value]

    for number, node in enumerate(nodes):
        attributes = []
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inner = attribute.as_graph()
                outer = {v: copy_of(v) for v in captured_values(inner)}
                attributes.append(ir.AttrGraph(attribute.name, _reading(inner, outer)))
            else:
                attributes.append(attribute)
        copy = ir.Node(
            node.domain,
            node.op_type,
            [None if v is None else copy_of(v) for v in node.inputs],
            attributes,
            num_outputs=len(node.outputs),
            name=f"n{number}",
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            copies[old] = new
            new.name = f"c{len(copies)}" if old.name else ""
        made.append(copy)
    outputs = [copies[v] for v in results]
    graph = ir.Graph(
        [], outputs, nodes=made, initializers=stored, opset_imports=dict(model.opset_imports)
    )
    return ir.Model(graph, ir_version=min(model.ir_version, 10))


def _renamable(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Returns a tensor of the same content: a value gives its own name to the tensor it holds."""
    if tensor.dtype == ir.DataType.STRING:
        content = [bytes(s) for s in tensor.numpy().reshape(-1)]
        return ir.StringTensor(content, shape=ir.Shape(tensor.shape.numpy()))
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype)


def _reading(graph: ir.Graph, outer: Mapping[ir.Value, ir.Value]) -> ir.Graph:
    """Returns a copy of a graph that reads other values around it."""
    copy = graph.clone(allow_outer_scope_values=True)
    for node in copy.all_nodes():
        for position, value in enumerate(node.inputs):
            if value is not None and value in outer:
                node.replace_input_with(position, outer[value])
    for each in (copy, *copy.subgraphs()):
        each.outputs[:] = [outer.get(v, v) for v in each.outputs]
    return copy


def _options() -> onnxruntime.SessionOptions:
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return options
