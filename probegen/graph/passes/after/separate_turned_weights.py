"""Weights that are used as they are stored and turned as well, kept apart for OpenVINO.

A product with a weight `[features, units]` is differentiated with the same weight, turned. Where it
has as many features as units, OpenVINO takes it for the same matrix both times, and the gradient is
wrong without a word. A weight that is turned with one axis more is folded at load, there as in
onnxruntime, and so becomes a constant of its own; the file stores it once nonetheless.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import inputs_of
from probegen.graph.core.values import attribute, static_shape


@dataclasses.dataclass(frozen=True)
class _Use:
    """A product with a matrix that is known at load, as its second operand.

    Attributes:
        node: the MatMul, Gemm or Einsum.
        weight: the matrix before it is turned; of any number of axes for an Einsum.
        order: its axes as the product goes by them: those that are summed over first.
        roots: the stored values that the matrix is computed from.
    """

    node: ir.Node
    weight: ir.Value
    order: tuple[int, ...]
    roots: frozenset[ir.Value]

    @property
    def turned(self) -> bool:
        """True where the axes that are summed over are not the first ones."""
        return self.order != tuple(sorted(self.order))


def separate_turned_weights(model: ir.Model) -> None:
    """Turns square weights that are used both ways by a Transpose of one axis more.

    `Gemm(g, w, transB=1)` -> `Gemm(g, Squeeze(Transpose(Unsqueeze(w))))`, and likewise for MatMul
    of a Transpose and for Einsum, where another product uses w as it is stored.

    Needs: topological order; shapes of weights.
    """
    graph = model.graph
    roots = _stored_roots(graph)
    uses = [use for node in graph.all_nodes() for use in _uses(node, roots)]
    plain = frozenset(root for use in uses if not use.turned for root in use.roots)
    names = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/turned")
    made: dict[tuple[object, ir.Value, tuple[int, ...]], ir.Value] = {}
    for use in uses:
        if use.turned and use.roots & plain:
            key = (use.node.graph, use.weight, use.order)
            if key not in made:
                made[key] = _turn(names, use)
            _read(use, made[key])


def _uses(node: ir.Node, roots_of: Mapping[ir.Value, frozenset[ir.Value]]) -> Iterator[_Use]:
    """Yields the product with a square matrix that a node is, if it is one."""
    if node.domain or node.op_type not in ("MatMul", "Gemm", "Einsum") or len(node.inputs) < 2:
        return
    operand = node.inputs[1]
    shape = None if operand is None else static_shape(operand)
    if operand is None or shape is None or len(shape) < 2:
        return
    roots = roots_of.get(operand)
    if not roots:
        return
    summed, others = _axes(node, len(shape))
    if math.prod(shape[a] for a in summed) != math.prod(shape[a] for a in others) or not summed:
        return
    order = (*range(len(shape) - len(summed) - len(others)), *summed, *others)
    weight, perm = _before_turning(operand, len(shape))
    yield _Use(node, weight, tuple(perm[a] for a in order), roots)


def _axes(node: ir.Node, rank: int) -> tuple[list[int], list[int]]:
    """Returns the axes of the second operand that are summed over, and the others."""
    rows, columns = rank - 2, rank - 1
    if node.op_type == "MatMul":
        return [rows], [columns]
    if node.op_type == "Gemm":
        return ([columns], [rows]) if attribute(node, "transB", 0) else ([rows], [columns])
    left, arrow, result = str(attribute(node, "equation")).replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not arrow or "." in terms[1] or len(set(terms[1])) < rank:
        return [], []
    summed = [i for i, letter in enumerate(terms[1]) if letter not in result]
    return summed, [i for i in range(rank) if i not in summed]


def _stored_roots(graph: ir.Graph) -> dict[ir.Value, frozenset[ir.Value]]:
    """Returns for each value that is computed from stored values alone which ones these are."""
    stored = [v for g in (graph, *graph.subgraphs()) for v in g.initializers.values()]
    roots = {v: frozenset({v}) for v in stored if not v.is_graph_input()}
    for node in graph.all_nodes():
        read = list(inputs_of(node))
        if read and all(v in roots for v in read):
            union = frozenset().union(*(roots[v] for v in read))
            roots.update((v, union) for v in node.outputs)
    return roots


def _before_turning(value: ir.Value, rank: int) -> tuple[ir.Value, list[int]]:
    """Returns what a Transpose turned into a value, and how; the value itself without one."""
    node = value.producer()
    if node is not None and node.op_type == "Transpose" and not node.domain:
        before, perm = node.inputs[0], attribute(node, "perm")
        if before is not None and perm is not None:
            return before, perm
    return value, list(range(rank))


def _turn(names: Builder, use: _Use) -> ir.Value:
    """Writes the matrix, its axes in the order of the product, before the node that reads it."""
    b = Builder(names.graph, names.opset, prefix=names.fresh("weight"))
    longer = b.unsqueeze(use.weight, [0])
    turned = b.squeeze(b.transpose(longer, [0, *(1 + a for a in use.order)]), [0])
    b.insert_before(use.node)
    return turned


def _read(use: _Use, turned: ir.Value) -> None:
    """Lets a product read the turned matrix."""
    node = use.node
    if node.op_type == "Gemm":
        node.attributes.pop("transB", None)
    elif node.op_type == "Einsum":
        left, _, result = str(attribute(node, "equation")).replace(" ", "").partition("->")
        first, second = left.split(",")
        summed, others = _axes(node, len(second))
        letters = "".join(second[a] for a in (*summed, *others))
        node.attributes["equation"] = ir.AttrString("equation", f"{first},{letters}->{result}")
    node.replace_input_with(1, turned)
