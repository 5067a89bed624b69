"""Which values of an ONNX graph's inputs are padding: see `probegen.plan.padding`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.artefact.manifest import Padding
from probegen.graph.core.queries import inputs_of, is_float
from probegen.graph.core.values import attribute, constant_of, shape_of
from probegen.plan.padding import JOIN, SELECT, Fed, Operand, PaddingFinder, Step

#: Operators that bring the numbers of their first operand into another shape, copy them, or tell of
#: several whether one is not 0.
_SAME = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"}
    | {"Slice", "ReduceMax", "ReduceSum"}
)
_KINDS = {
    **dict.fromkeys(_SAME, "same"),
    **{"Not": "not", "And": "and", "Or": "or", "Equal": "equal", "Greater": "greater"},
    **{"GreaterOrEqual": "at_least", "Less": "less", "LessOrEqual": "at_most"},
    **{"Neg": "negative", "Abs": "abs", "Sign": "sign", "Add": "add", "Sub": "subtract"},
    **{"Mul": "multiply", "Div": "divide", "Max": "largest", "Min": "smallest"},
    **{"Where": SELECT},
}
_COMPARING = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_LOOPS = frozenset({"Loop", "Scan"})
_OPERANDS = 2


def paddings(
    graph: ir.Graph, inputs: Sequence[Fed], constants: Sequence[float]
) -> Mapping[int, Padding]:
    """Returns the positions of inputs -> what says where they are padding.

    Args:
        graph: with shapes inferred.
        inputs: what is fed; keys are values.
        constants: what `constants_compared` returns.
    """
    finder = PaddingFinder(inputs, constants)
    for node in graph:
        finder.follow(_step(node, finder))
        if node.op_type in _LOOPS and not node.domain:  # the steps of a recurrent layer
            read = list(inputs_of(node))
            for value in (v for v in read if v.dtype == ir.DataType.BOOL):
                finder.mask(value, [v for v in read if v is not value])
    return finder.found()


def constants_compared(graph: ir.Graph) -> list[float]:
    """Returns the numbers that nodes compare with."""
    read = (v for n in graph if n.op_type in _COMPARING and not n.domain for v in inputs_of(n))
    return [n for n in map(_number, read) if n is not None]


def _step(node: ir.Node, finder: PaddingFinder) -> Step:
    kind = "" if node.domain else _KINDS.get(node.op_type, "")
    if node.op_type == "Cast" and not node.domain:
        kind = "truth" if node.outputs[0].dtype == ir.DataType.BOOL else "same"
    if not node.domain and (node.op_type == "Sum" or _joins_vectors(node)):
        kind = JOIN
    read = list(inputs_of(node))
    if kind == "same":
        read = read[:1]
    elif kind in ("largest", "smallest") and len(read) != _OPERANDS:
        kind = ""
    told = kind and any(finder.is_told(v) for v in read)
    operands = [
        Operand(
            v,
            _number(v) if told and not finder.depends(v) else None,
            is_float(v) and finder.depends(v),
        )
        for v in read
    ]
    return Step(kind, tuple(operands), tuple(node.outputs))


def _joins_vectors(node: ir.Node) -> bool:
    """Tells whether a node puts values behind each other along their last axis."""
    sizes = shape_of(node.outputs[0]) if node.op_type == "Concat" else None
    return sizes is not None and attribute(node, "axis", 0) in (-1, len(sizes) - 1)


def _number(value: ir.Value) -> float | None:
    """Returns the one number that a value always holds; None where there is none."""
    array = constant_of(value)
    if array is not None and array.size == 1 and array.dtype.kind in "biuf":
        return float(array.reshape(()))
    return None
