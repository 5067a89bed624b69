"""The outline of an artefact: its whole graph, differentiated, with sizes and without weights.

It goes the way of an export as far as the finished graph, so that it holds the very nodes of the
artefact, and what an export refuses is refused by the same rules. No weight is read, converted
or written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from probegen.cost.counts import constants, works
from probegen.errors import NotDifferentiableError, UnsupportedOpsError
from probegen.graph.assemble import explain_group, explained, joined, prepared, samples_to_fold
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import (
    Dim,
    attribute,
    new_initializer,
    shape_of,
    static_shape,
    subgraphs_of,
)
from probegen.graph.forward import ForwardGraph
from probegen.graph.passes import clean
from probegen.graph.shape_inference import infer_shapes
from probegen.graph.whole_numbers import read_own_floats
from probegen.plan.plan import Plan
from probegen.sources.base import Source

#: What an export raises where a gradient cannot pass.
Refusing = UnsupportedOpsError | NotDifferentiableError
_WHOLE = frozenset({ir.DataType.INT32, ir.DataType.INT64})
#: Operators whose results have sizes that inference tells of constants alone.
_NEED_CONSTANTS = frozenset({"Range", "TopK"})


@dataclasses.dataclass(frozen=True)
class Outline:
    """The graph of an artefact, without a gate, with the sizes of one run.

    Attributes:
        graph: the graph; its values have static shapes as far as these can be told.
        predictions: the values of the model's own outputs.
        explanations: output name -> value, for each output that is not refused.
        refused: id of a probe of the plan -> what an export would raise.
    """

    graph: ir.Graph
    predictions: tuple[ir.Value, ...]
    explanations: Mapping[str, ir.Value]
    refused: Mapping[int, Refusing]


def outline(source: Source, plan: Plan, opset: int, sizes: Mapping[str, int]) -> Outline:
    """Returns the outline of a plan.

    Args:
        source: the model.
        plan: what is to be computed.
        opset: ONNX operator set.
        sizes: name of an open size, as `forward.name_inputs` gives it -> the number to take.

    Raises:
        UnsupportedOpsError: an operation of the forward pass has no ONNX form.
        ExportError: the forward pass cannot be converted.
    """
    found = _outline(source, plan, opset, sizes)
    if all(work.known for work in works(found.graph, constants(found.graph))):
        return found
    # How often a loop runs may be computed of open sizes, and nobody tells afterwards how often.
    # With these sizes from the beginning the graph is that of a model which has them.
    return _outline(source, plan, opset, sizes, from_beginning=True)


def _outline(
    source: Source,
    plan: Plan,
    opset: int,
    sizes: Mapping[str, int],
    *,
    from_beginning: bool = False,
) -> Outline:
    """Returns the outline of a plan, with sizes given to the forward pass or to the whole."""

    def written() -> ForwardGraph:
        forward = source.forward_graph(plan, opset, source.batch, placeholders=True)
        if from_beginning:
            _give_sizes(forward.model, sizes)
        return forward

    refused: dict[int, Refusing] = {}
    forward = written()
    try:
        values = _written_out(plan, forward, source.batch)
    except (UnsupportedOpsError, NotDifferentiableError):
        # A walk that ends early leaves nodes behind, so the rest is written on a fresh graph.
        refused = _refused(plan, written(), source.batch)
        plan = _without(plan, refused)
        forward = written()
        values = _written_out(plan, forward, source.batch)
    names = list(values)
    forward.graph.outputs[:] = [*forward.predictions, *values.values()]
    clean(forward.model)
    read_own_floats(forward.graph, list(forward.graph.outputs)[: len(forward.predictions)])
    _give_sizes(forward.model, sizes)
    finished = tuple(forward.graph.outputs)
    count = len(forward.predictions)
    explanations = dict(zip(names, finished[count:], strict=True))
    return Outline(forward.graph, finished[:count], explanations, refused)


def _written_out(plan: Plan, forward: ForwardGraph, batch: int | None) -> dict[str, ir.Value]:
    """Writes all that a plan asks for into its forward graph; returns it by output name."""
    request = prepared(plan, forward, batch)
    samples = samples_to_fold(plan, forward, batch, joined(plan, forward))
    return explained(plan, forward, request, samples)


def _refused(plan: Plan, forward: ForwardGraph, batch: int | None) -> dict[int, Refusing]:
    """Returns the probes that are refused, each tried alone; the graph is of no use then."""
    request = prepared(plan, forward, batch)
    samples = samples_to_fold(plan, forward, batch)
    found: dict[int, Refusing] = {}
    for group, target in zip(plan.groups, forward.targets, strict=True):
        for probe in {id(o.probe): o.probe for o in group.outputs}.values():
            own = tuple(o for o in group.outputs if o.probe is probe)
            alone = dataclasses.replace(group, outputs=own)
            try:
                explain_group(
                    Builder(forward.graph, forward.opset),
                    forward,
                    alone,
                    target,
                    request,
                    samples,
                )
            except (UnsupportedOpsError, NotDifferentiableError) as error:
                found[id(probe)] = error
    return found


def _without(plan: Plan, probes: Container[int]) -> Plan:
    """Returns a plan without the outputs of some probes, given by id."""
    groups = [
        dataclasses.replace(g, outputs=tuple(o for o in g.outputs if id(o.probe) not in probes))
        for g in plan.groups
    ]
    chains = tuple(c for c in plan.chains if id(c.probe) not in probes)
    return dataclasses.replace(plan, groups=tuple(g for g in groups if g.outputs), chains=chains)


# -- sizes -------------------------------------------------------------------------------------


def _give_sizes(model: ir.Model, sizes: Mapping[str, int]) -> None:
    """Puts numbers in the place of open sizes, in the inputs and in all that follows."""
    before = {value: shape_of(value) for value in _values(model.graph)}
    for value in model.graph.inputs:
        value.shape = _with_sizes(before[value], sizes)
    infer_shapes(model)
    if _give_computed_sizes(model.graph):
        infer_shapes(model)
    # What inference cannot follow, those who wrote it knew by the names of other sizes.
    known = dict(sizes)
    for value, shape in before.items():
        found = static_shape(value)
        for name, size in zip(shape or (), found or (), strict=False):
            if isinstance(name, str):
                known.setdefault(name, size)
    for value, shape in before.items():
        if static_shape(value) is None:
            value.shape = _with_sizes(shape, known)
    # From these, inference may go on. It knows neither loops nor open sizes, so it comes last.
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def _give_computed_sizes(graph: ir.Graph) -> bool:
    """Gives numbers computed of sizes to those who need constants; tells whether there are any.

    Inference takes the end of a Range, and the number of a TopK, from constants alone: where a
    masked recurrent layer gathers its steps, nothing behind it had sizes. Others read what is
    computed, as in the artefact: it does not count as known when a runtime opens that.
    """
    known: dict[ir.Value, npt.NDArray[Any]] = {}
    found = False
    for node in graph:
        known.update(zip(node.outputs, _sizes_made(node, known), strict=False))
        for i, value in enumerate(node.inputs if node.op_type in _NEED_CONSTANTS else ()):
            if value is not None and value in known:
                new = new_initializer(graph, f"{value.name}/known", known[value])
                node.replace_input_with(i, new)
                found = True
    return found


def _sizes_made(
    node: ir.Node, known: Mapping[ir.Value, npt.NDArray[Any]]
) -> Sequence[npt.NDArray[Any]]:
    """Returns what a node makes of known sizes, nothing where it makes something else."""
    first = node.inputs[0] if node.inputs and not node.domain else None
    if node.op_type == "Shape" and first is not None and (shape := static_shape(first)):
        return (np.array(shape, np.int64)[attribute(node, "start", 0) : attribute(node, "end")],)
    sizes = None if first is None else known.get(first)
    if sizes is None:
        return ()
    if node.op_type == "Split" and len(node.outputs) == sizes.size:
        return np.split(sizes, sizes.size)
    if node.op_type in ("Squeeze", "Unsqueeze", "Reshape") and sizes.size == 1:
        return (sizes.reshape(() if node.op_type == "Squeeze" else 1),)
    if node.op_type == "Cast" and (to := ir.DataType(attribute(node, "to"))) in _WHOLE:
        return (sizes.astype(to.numpy()),)
    return ()


def _with_sizes(shape: Sequence[Dim] | None, sizes: Mapping[str, int]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape([sizes.get(d, d) if isinstance(d, str) else d for d in shape])


def _values(graph: ir.Graph) -> list[ir.Value]:
    """Returns the inputs of a graph and what its nodes make, with all graphs within it."""
    found = list(graph.inputs)
    for node in graph.all_nodes():
        found.extend(node.outputs)
        for inner in subgraphs_of(node):
            found.extend(inner.inputs)
    return found
