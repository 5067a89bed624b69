"""Which nodes of a graph make up one linear layer with stored weights, and which layers are first.

A layer is a product or convolution with stored weights, and the sums and factors of constants
behind it that nothing else reads: a bias, a batch normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.queries import inputs_of, key_of, sole_reader
from probegen.graph.core.stored import is_stored, stored_array
from probegen.graph.core.values import attribute, constant_of, rank_of, shape_of
from probegen.graph.loops.iteration import Iteration, is_loop, iteration_of

Array = npt.NDArray[Any]

#: Layers with weights: the position of the weights, -1 for either of two.
LAYERS: Mapping[str, int] = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1, "Einsum": -1}
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
#: What nodes and values of a loop's body carry in memory, and their copies with them: that a layer
#: has none before it, and that a value goes out of the step.
FIRST, GIVEN_OUT = "probegen.first_layer", "probegen.given_out"


def first_layers(graph: ir.Graph) -> set[ir.Node]:
    """Returns the layers with weights that no other one comes before, those of loops too."""
    return _first_layers(graph, set())


def _first_layers(graph: ir.Graph, behind: set[ir.Value]) -> set[ir.Node]:
    """Returns the first layers; adds to `behind` what comes behind a layer."""
    found: set[ir.Node] = set()
    for node in graph:
        if is_loop(node):
            found |= _first_in_steps(iteration_of(node), behind)
            continue
        after = any(v in behind for v in inputs_of(node))
        weighted = key_of(node) in LAYERS and weights_of(node) is not None
        if weighted and not after:
            found.add(node)
        if weighted or after:
            behind.update(node.outputs)
    return found


def _first_in_steps(iteration: Iteration, behind: set[ir.Value]) -> set[ir.Node]:
    """Returns the first layers of a loop: a state has all behind it that any step has done."""
    states = iteration.states
    entering = {s.entering for s in states if s.initial in behind}
    entering |= {s.entering for s in iteration.scan_inputs if s.sequence in behind}

    def behind_in_a_step(some: set[ir.Value]) -> set[ir.Value]:
        inside = behind | some
        _first_layers(iteration.body, inside)
        return inside

    inside = iteration.in_any_step(entering, behind_in_a_step)
    found = _first_layers(iteration.body, inside)
    behind |= {s.final for s in states if s.leaving in inside or s.initial in behind}
    behind |= {s.stacked for s in iteration.scan_outputs if s.leaving in inside}
    return found


def weights_of(node: ir.Node) -> int | None:
    """Returns which input of a node holds stored weights, None where none does, or both do."""
    at = LAYERS.get(key_of(node))
    if at is None or len(node.inputs) < 2:
        return None
    stored = [i for i in (0, 1) if is_stored(node.inputs[i])]
    if len(stored) != 1 or (at >= 0 and stored != [at]):
        return None
    if key_of(node) == "Einsum" and len(node.inputs) != 2:
        return None
    biases = node.inputs[2:] if key_of(node) == "Gemm" else ()
    if any(v is not None and not is_stored(v) for v in biases):
        return None  # a sum of a product and of another tensor
    return stored[0]


def affine_behind(node: ir.Node) -> tuple[list[ir.Node], Array, Array]:
    """Returns the sums and factors behind a layer that only it feeds, and what they do together.

    Returns:
        The nodes, in order; the factor and the shift, which broadcast to the layer's output.
    """
    value = node.outputs[0]
    nodes: list[ir.Node] = []
    factor, shift = np.ones(()), own_bias(node)
    while True:
        reader = only_reader(value)
        step = None if reader is None else affine(reader, value)
        if reader is None or step is None or shape_of(reader.outputs[0]) != shape_of(value):
            return nodes, factor, shift
        if not _is_of_outputs(node, step[0], rank_of(value)):
            return nodes, factor, shift
        factor, shift = factor * step[0], shift * step[0] + step[1]
        nodes.append(reader)
        value = reader.outputs[0]


def affine(node: ir.Node, value: ir.Value) -> tuple[Array, Array] | None:
    """Returns the constant factor and shift of a node that only scales and shifts a value."""
    key = key_of(node)
    if key == "BatchNormalization" and node.inputs[0] is value:
        known = [constant_of(v) for v in node.inputs[1:5]]
        if any(a is None for a in known):
            return None
        scale, bias, mean, variance = (np.asarray(a, np.float64) for a in known)
        form = [1, -1, *[1] * (rank_of(value) - 2)]
        factor = scale / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
        return factor.reshape(form), (bias - mean * factor).reshape(form)
    if key not in ("Add", "Sub", "Mul") or len(node.inputs) != 2:
        return None
    other = stored_array(node.inputs[1 if node.inputs[0] is value else 0])
    if other is None or (key == "Sub" and node.inputs[0] is not value):
        return None
    wide = np.asarray(other, np.float64)
    if key == "Mul":
        return wide, np.zeros(())
    return np.ones(()), -wide if key == "Sub" else wide


def own_bias(node: ir.Node) -> Array:
    """Returns the bias that a layer has as an input of its own, in the form of its output."""
    bias = stored_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        return np.zeros(())
    wide = np.asarray(bias, np.float64)
    if key_of(node) == "Gemm":
        return wide * float(attribute(node, "beta", 1.0))
    return wide.reshape([1, -1, *[1] * (rank_of(node.outputs[0]) - 2)])


def _is_of_outputs(node: ir.Node, factor: Array, rank: int) -> bool:
    """Tells whether a factor is one number, or one for each output of a layer."""
    if factor.size == 1:
        return True
    form = (1,) * (rank - factor.ndim) + factor.shape
    wide = [i for i, size in enumerate(form) if size != 1]
    if key_of(node) == "Conv":
        return wide == [1]
    return key_of(node) in ("MatMul", "Gemm") and weights_of(node) == 1 and wide == [rank - 1]


def only_reader(value: ir.Value) -> ir.Node | None:
    """Returns what alone reads a value; None for what a step gives out, in copies of it too."""
    return None if value.meta.get(GIVEN_OUT, False) else sole_reader(value)
