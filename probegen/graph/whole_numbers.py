"""Lets explanations of a quantised model read other tensors than its fused integer kernels.

A runtime joins `DequantizeLinear -> operator -> QuantizeLinear` into one kernel that computes with
whole numbers, and rounds otherwise in rare places. It does so only where nobody else reads what
lies between. A backward pass reads it; and so prediction and explanation would come from another
computation than the file that people deploy, one step of eight bits away here and there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import read_others
from probegen.graph.core.queries import (
    DEQUANTISING,
    QUANTISING,
    RECURRENT,
    inputs_of,
    is_float,
    needed_for,
)
from probegen.graph.core.values import constant_of, rank_of, shape_of, subgraphs_of
from probegen.graph.passes.after.join_repeated_nodes import RANDOM

#: The operator set in which DequantizeLinear got an axis.
_OLDEST = 13
#: What lies between a signed number of 8 bits and the unsigned one in its place.
_SIGN = 128


def read_own_floats(graph: ir.Graph, predictions: Sequence[ir.Value]) -> None:
    """Lets all but predictions and quantisations read floats that are computed once more for them.

    `x = Conv(DequantizeLinear(q)); Q(x); Mask(x)` ->
    `x = Conv(DequantizeLinear(q)); Q(x); Mask(Conv(DequantizeLinear(q)))`

    The whole numbers themselves are shared: what is explained are the very numbers of the
    prediction.

    Needs: the graph in topological order.
    Leaves: graphs that quantise nothing, and those older than operator set 13; what draws at
    random; loops, branches and recurrent operators, which no kernel of whole numbers computes.

    Args:
        graph: changed in place, the bodies of its loops too.
        predictions: those of its outputs that are to come from kernels of whole numbers. All
            others count as readers.
    """
    opset = graph.opset_imports.get("", 0)
    if opset >= _OLDEST and any(n.op_type in QUANTISING for n in graph.all_nodes()):
        _read_own_floats(Builder(graph, opset), graph, predictions)


def _read_own_floats(builder: Builder, graph: ir.Graph, predictions: Sequence[ir.Value]) -> None:
    for node in list(graph):
        for body in subgraphs_of(node):
            _read_own_floats(builder, body, ())
    quantised = [n.outputs[0] for n in graph if n.op_type in QUANTISING and not n.domain]
    if quantised:
        kernels = needed_for(graph, [*predictions, *quantised])
        if graph is not builder.graph:
            _bring_weights_in(builder, graph, kernels)
        _lay_signs_off(builder, graph, kernels, set(predictions))
        _Separated(builder, graph, kernels).give_to_others(set(predictions))


def _bring_weights_in(builder: Builder, body: ir.Graph, kernels: Collection[ir.Node]) -> None:
    """Lets the kernels of a body read weights that are dequantised within it.

    `w = DequantizeLinear(stored)` around a body with `Conv(x, w)` -> in the body as well

    A runtime joins nodes of one graph alone.
    """
    within: dict[ir.Value, ir.Value] = {}
    for node in (n for n in body if n in kernels and _reads_whole_numbers(n)):
        for position, value in enumerate(node.inputs):
            made = None if value is None else value.producer()
            if value is None or made is None or made.graph is body or not _is_weight(made):
                continue
            if value not in within:
                within[value] = builder.again(made, made.inputs, [shape_of(value)])[0]
            node.replace_input_with(position, within[value])
    if builder.nodes:
        body.insert_before(body[0], builder.nodes)
        builder.nodes = []


def _reads_whole_numbers(node: ir.Node) -> bool:
    """Tells whether the first that a node reads is made of whole numbers beside it."""
    made = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return made is not None and made.graph is node.graph and made.op_type in DEQUANTISING


def _is_weight(node: ir.Node) -> bool:
    """Tells whether a node dequantises what is stored."""
    return (
        node.op_type in DEQUANTISING
        and not node.domain
        and all(v is None or v.is_initializer() for v in node.inputs)
    )


def _lay_signs_off(
    builder: Builder,
    graph: ir.Graph,
    kernels: Collection[ir.Node],
    predictions: Collection[ir.Value],
) -> None:
    """Writes signed whole numbers of 8 bits as unsigned ones, where onnxruntime does so.

    `DequantizeLinear(QuantizeLinear(x, s, -3), s, -3)` ->
    `DequantizeLinear(QuantizeLinear(x, s, 125), s, 125)`

    On x86 it does so where a pair has no second reader, and which kernels it finds hangs on that;
    beside explanations there is a second reader. They stand for the same numbers. The last pair of
    a body has no reader among the kernels: what the file computes of it is floats.
    """
    for node in graph:
        if node not in kernels or node.op_type != "QuantizeLinear" or node.domain:
            continue
        whole = node.outputs[0]
        readers = list(whole.uses())
        if len(readers) != 1 or whole.is_graph_output():
            continue
        behind = readers[0].node
        if behind.op_type not in DEQUANTISING or behind.domain or behind.graph is not graph:
            continue
        floats = behind.outputs[0]
        read = sum(use.node in kernels for use in floats.uses()) + (floats in predictions)
        zeros = [_signed_zero(n) for n in (node, behind)]
        if read <= 1 and zeros[0] is not None and zeros[0] == zeros[1]:
            unsigned = builder.const(np.uint8(zeros[0] + _SIGN))
            for one in (node, behind):
                one.replace_input_with(2, unsigned)
            whole.type = ir.TensorType(ir.DataType.UINT8)


def _signed_zero(node: ir.Node) -> int | None:
    """Returns the zero point of a node where it is one signed number of 8 bits, else None."""
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero is None or zero.dtype != np.int8 or zero.size != 1 or zero.ndim:
        return None
    return None if "output_dtype" in node.attributes else int(zero)


class _Separated:
    """The floats that kernels of whole numbers compute, and their copies."""

    def __init__(self, builder: Builder, graph: ir.Graph, kernels: Collection[ir.Node]) -> None:
        """Finds what is copied.

        Args:
            builder: writes nodes and names them.
            graph: the graph.
            kernels: its nodes that lead to whole numbers and to predictions.
        """
        self._builder, self._graph, self._kernels = builder, graph, kernels
        self._behind: set[ir.Value] = set()
        self._copies: dict[ir.Value, ir.Value] = {}
        for node in graph:
            if node in kernels and self._is_copied(node):
                self._behind.update(v for v in node.outputs if is_float(v))

    def _is_copied(self, node: ir.Node) -> bool:
        if node.domain or node.op_type in RECURRENT | RANDOM | QUANTISING:
            return False
        if any(True for _ in subgraphs_of(node)):
            return False
        if node.op_type in DEQUANTISING:
            return node.inputs[0] is not None and node.inputs[0].producer() is not None
        return any(v in self._behind for v in inputs_of(node))

    def give_to_others(self, kept: Collection[ir.Value]) -> None:
        """Lets all other nodes, and outputs that are not among those kept, read copies."""
        others = [n for n in self._graph if n not in self._kernels]
        outputs = [v for v in self._graph.outputs if v not in kept]
        wanted = {v for n in others for v in inputs_of(n)} | set(outputs)
        self._write_copies(v for v in wanted if v in self._behind)
        for node in others:
            for position, value in enumerate(node.inputs):
                if value in self._copies:
                    node.replace_input_with(position, self._copies[value])
            for body in subgraphs_of(node):
                read_others(body, self._copies)
        for place, value in enumerate(self._graph.outputs):
            if value not in kept and value in self._copies:
                copy = self._graph.outputs[place] = self._copies[value]
                value.name, copy.name = copy.name, value.name

    def _write_copies(self, wanted: Iterable[ir.Value]) -> None:
        pending, needed = list(wanted), set[ir.Node]()
        while pending:
            node = pending.pop().producer()
            if node is not None and node not in needed:
                needed.add(node)
                pending.extend(v for v in node.inputs if v in self._behind and v is not None)
        for node in [n for n in self._graph if n in needed]:
            self._copy(node)
            self._graph.insert_after(node, self._builder.nodes)
            self._builder.nodes = []

    def _copy(self, node: ir.Node) -> None:
        changes: dict[str, int] = {}
        scale = node.inputs[1] if node.op_type in DEQUANTISING else None
        if scale is not None and shape_of(scale) is not None and rank_of(scale) == 0:
            # One scale has no axis. Saying another one keeps runtimes from joining the two again.
            axis = node.attributes.get("axis")
            changes["axis"] = 1 if axis is not None and axis.as_int() == 0 else 0
        made = self._builder.again(
            node,
            [None if v is None else self._copies.get(v, v) for v in node.inputs],
            [shape_of(v) for v in node.outputs],
            changes,
        )
        self._copies.update(zip(node.outputs, made, strict=True))
