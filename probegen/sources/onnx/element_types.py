"""Refuses files whose element types do not fit, as some converters to 16 bits leave them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir

from probegen.errors import SourceError
from probegen.sources.onnx.loading import Original
from probegen.sources.onnx.names import nodes_of, told
from probegen.sources.onnx.running import Runner
from probegen.stages import cause

_HINT = (
    "Compile the model as it was before it was converted, or convert it anew, with this operator "
    "left in float32 (op_block_list= of convert_float_to_float16)"
)


def check_element_types(model: ir.Model, original: Original) -> None:
    """Refuses a file in which an operator reads floats of types that do not go together.

    Needs: types inferred.

    Raises:
        SourceError: onnxruntime does not load it; names the operator, and what it reads.
    """
    opset = model.opset_imports[""]
    faults = (f"{told(n)} {w}" for n in nodes_of(model.graph) for w in _faults(n, opset))
    fault = next(faults, None)
    if fault is None:
        return
    try:
        Runner(original.clone() if isinstance(original, ir.Model) else original, joined=False)
    except Exception as error:
        raise SourceError(
            f"the file is invalid: {fault}. {_HINT}. onnxruntime says: {cause(error)}"
        ) from error


def _faults(node: ir.Node, opset: int) -> Iterator[str]:
    """Says what is wrong with the types of a node."""
    signature = None if node.domain else _signature(node.op_type, opset)
    if signature is None:
        return
    bound: dict[str, tuple[str, ir.DataType]] = {}
    for values, kinds in ((node.inputs, signature[0]), (node.outputs, signature[1])):
        for place, value in enumerate(values):
            kind = kinds[min(place, len(kinds) - 1)] if kinds else ""
            dtype = None if value is None else value.dtype
            if value is None or dtype is None or not dtype.is_floating_point():
                continue
            allowed = signature[2].get(kind, frozenset({kind}))
            name, first = bound.setdefault(kind, (str(value.name), dtype))
            if _written(dtype) not in allowed:
                yield f"does not take {value.name!r} as {_named(dtype)}"
            elif kind in signature[2] and dtype != first:
                yield (
                    f"has {name!r} in {_named(first)} and {value.name!r} in {_named(dtype)}, which "
                    "must be of one type"
                )


@functools.cache
def _signature(
    op_type: str, opset: int
) -> tuple[list[str], list[str], Mapping[str, frozenset[str]]] | None:
    """Returns the kinds of inputs and outputs of an operator, and which types a kind may be.

    None where it is unknown, or its operands may be of any types.
    """
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    sides = (schema.inputs, schema.outputs)
    if any(not p.is_homogeneous for side in sides for p in side):
        return None
    kinds = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    inputs, outputs = ([p.type_str for p in side] for side in sides)
    return inputs, outputs, kinds


def _named(dtype: ir.DataType) -> str:
    return str(dtype.numpy())


def _written(dtype: ir.DataType) -> str:
    """Returns what ONNX calls a tensor of a type."""
    return f"tensor({str(dtype.name).lower()})"
