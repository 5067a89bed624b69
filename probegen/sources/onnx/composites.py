"""Takes operators that stand for several apart, where the walk has no rule for the whole.

onnxruntime's own operators (`com.microsoft`), which its optimiser and other exporters write, are
taken apart here and in `attention`; of standard operators onnx says what they consist of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from probegen.errors import SourceError
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import key_of
from probegen.graph.core.values import UnknownShapeError, attribute, constant_of, shape_of
from probegen.graph.vjp import BLOCKING, RULES
from probegen.sources.onnx import attention, learning, sequences
from probegen.sources.onnx.constants import lift_constants
from probegen.sources.onnx.functions import write_out
from probegen.sources.onnx.names import AllNames, nodes_of, told
from probegen.sources.onnx.parts import (
    Part,
    Parts,
    optional,
    refuse_attributes,
    required,
    tell_types,
)
from probegen.sources.onnx.rewriting import builder_at, replace

_MS = "com.microsoft"
#: Standard operators that stay though they have a body: what they give is no function of floats.
_WHOLE = frozenset({"Range", "SequenceMap", "BlackmanWindow", "HammingWindow", "HannWindow"})


def take_apart(model: ir.Model, names: AllNames) -> bool:
    """Writes operators out that stand for several and have no gradient rule of their own.

    Leaves: those whose parts depend on a rank or type that is not known yet.

    Returns:
        True where there was one.

    Raises:
        SourceError: an operator is used in a way that has no standard form; names the node.
    """
    changed = False
    opset = model.opset_imports[""]
    for node in nodes_of(model.graph):
        if node.graph is None:
            continue
        key = key_of(node)
        parts = _PARTS.get(key)
        if parts is not None:
            builder = builder_at(node, opset, names)
            tell_types(node)
            refuse_attributes(node, _KNOWN.get(key))
            try:
                results = parts(builder, node)
            except UnknownShapeError:
                continue
            if results is None:
                changed |= not node.domain and _written_out(model, node, names)
                continue
            replace(node, builder, _padded(results, len(node.outputs)))
            changed = True
        elif not node.domain and key not in RULES and key not in BLOCKING:
            changed |= _written_out(model, node, names)
    if changed:
        lift_constants(model.graph)
    return changed


def _padded(results: Sequence[ir.Value | None], count: int) -> list[ir.Value | None]:
    return [*results[:count], *(None for _ in range(count - len(results)))]


# -- standard operators that are functions ----------------------------------------------------


def _written_out(model: ir.Model, node: ir.Node, names: AllNames) -> bool:
    """Writes out a standard operator by the body that onnx gives it; False where it has none."""
    if node.op_type in _WHOLE:
        return False
    opset = model.opset_imports[""]
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        if onnx.defs.has(node.op_type):
            why = "it has been taken out of ONNX, or is newer"
        else:
            why = "ONNX has none of that name; tf2onnx, say, leaves what it cannot convert so"
        raise SourceError(
            f"{told(node)} is no operator of opset {opset}: {why}. Export the model anew with "
            f"standard operators of opset {opset}."
        ) from None
    proto = _body(schema, node, opset)
    if proto is None:
        return False
    made = {name for part in proto.node for name in part.output}
    # The body lists outputs that this use of the operator has no nodes for.
    given = [i for i, n in enumerate(proto.output) if n in made and i < len(node.outputs)]
    lacking = [v for i, v in enumerate(node.outputs) if i not in given and _is_read(v)]
    if lacking:
        raise SourceError(
            f"{told(node)} has an output {lacking[0].name!r} that onnx does not say how to compute."
        )
    kept = [proto.output[i] for i in given]
    del proto.output[:]
    proto.output.extend(kept)
    write_out(node, ir.serde.deserialize_function(proto), names, given)
    return True


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _body(schema: Any, node: ir.Node, opset: int) -> onnx.FunctionProto | None:
    if schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= opset]
        content = schema.get_function_with_opset_version(max(versions)) if versions else None
    elif schema.has_context_dependent_function:
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        if not versions or not _typed(node):
            return None
        types = [_type_proto(v) for v in node.inputs]
        content = schema.get_context_dependent_function_with_opset_version(
            max(versions), ir.serde.serialize_node(node).SerializeToString(), types
        )
    else:
        return None
    if not content:
        return None
    proto = onnx.FunctionProto()
    proto.ParseFromString(content)
    return proto


def _typed(node: ir.Node) -> bool:
    return all(v is None or (v.dtype is not None and v.shape is not None) for v in node.inputs)


def _type_proto(value: ir.Value | None) -> bytes:
    proto = onnx.TypeProto()
    if value is not None and value.dtype is not None:
        proto = onnx.helper.make_tensor_type_proto(int(value.dtype), shape_of(value))
    content: bytes = proto.SerializeToString()
    return content


# -- activations ------------------------------------------------------------------------------


def _gelu(b: Builder, x: ir.Value) -> ir.Value:
    half = b.mul(x, 0.5)
    return b.mul(half, b.add(b.op("Erf", b.mul(x, math.sqrt(0.5)), shape=x), 1.0))


def _gelu_by_tanh(b: Builder, x: ir.Value) -> ir.Value:
    if x.dtype == ir.DataType.DOUBLE:  # onnxruntime has six digits of the two factors there
        inner = b.mul(x, b.add(b.mul(b.mul(x, x), 0.035677), 0.797885))
        return b.mul(b.mul(x, 0.5), b.add(b.op("Tanh", inner, shape=x), 1.0))
    cube = b.mul(b.mul(b.mul(x, x), x), 0.044715)
    inner = b.mul(b.add(x, cube), math.sqrt(2 / math.pi))
    return b.mul(b.mul(x, 0.5), b.add(b.op("Tanh", inner, shape=x), 1.0))


def _biased(b: Builder, node: ir.Node) -> ir.Value:
    x, bias = required(node, 0), optional(node, 1)
    return x if bias is None else b.add(x, bias)


def _quick_gelu(b: Builder, node: ir.Node) -> Parts:
    x = required(node, 0)
    scaled = b.mul(x, attribute(node, "alpha", float(np.float32(1.702))))
    return [b.mul(x, b.op("Sigmoid", scaled, shape=x))]


def _activated(b: Builder, node: ir.Node, x: ir.Value) -> ir.Value:
    """Writes the activation that a fused operator ends with."""
    kind = attribute(node, "activation", "")
    given = list(attribute(node, "activation_params", ()))
    if not kind:
        return x
    if kind in ("Relu", "Tanh", "Sigmoid", "Softplus", "Softsign"):
        return b.op(kind, x, shape=x)
    alpha = attribute(node, "activation_alpha", given[0] if given else None)
    beta = attribute(node, "activation_beta", given[1] if len(given) > 1 else None)
    if kind in ("LeakyRelu", "Elu", "ThresholdedRelu"):
        return b.op(kind, x, shape=x, alpha=alpha)
    if kind == "HardSigmoid":
        return b.op(kind, x, shape=x, alpha=alpha, beta=beta)
    if kind == "Clip":
        return b.op(kind, x, b.scalar(given[0], x), b.scalar(given[1], x), shape=x)
    raise SourceError(f"{told(node)} ends with {kind}, an activation that is not known here.")


# -- products ---------------------------------------------------------------------------------

_FUSED = ("activation", "activation_params", "activation_alpha", "activation_beta")


def _left(node: ir.Node, *names: str) -> dict[str, Any]:
    """Returns the attributes of a node but for some."""
    return {name: value for name, value in node.attributes.items() if name not in names}


def _fused_conv(b: Builder, node: ir.Node) -> Parts:
    given = [*node.inputs, None, None, None]
    result = b.op("Conv", *_trimmed(given[:3]), shape=node.outputs[0], **_left(node, *_FUSED))
    if given[3] is not None:
        result = b.op("Add", result, given[3], shape=node.outputs[0])
    return [_activated(b, node, result)]


def _fused_gemm(b: Builder, node: ir.Node) -> Parts:
    result = b.op("Gemm", *node.inputs, shape=node.outputs[0], **_left(node, *_FUSED))
    return [_activated(b, node, result)]


def _trimmed(values: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    found = list(values)
    while found and found[-1] is None:
        found.pop()
    return found


def _fused_mat_mul(b: Builder, node: ir.Node) -> Parts | None:
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        raise SourceError(f"{told(node)} transposes batches, which is not known here.")
    sides = []
    for position, name in enumerate(("transA", "transB")):
        value = required(node, position)
        if attribute(node, name, 0):
            shape = shape_of(value)
            if shape is None:
                return None
            rank = len(shape)
            if rank > 1:
                value = b.transpose(value, [*range(rank - 2), rank - 1, rank - 2])
        sides.append(value)
    product = b.op("MatMul", *sides, shape=node.outputs[0])
    return [b.mul(product, attribute(node, "alpha", 1.0))]


# -- normalisations ---------------------------------------------------------------------------


def _layer_norm(
    b: Builder, x: ir.Value, scale: ir.Value, bias: ir.Value | None, epsilon: float
) -> list[ir.Value]:
    return list(
        b.ops(
            "LayerNormalization",
            *_trimmed([x, scale, bias]),
            outputs=3,
            shapes=[shape_of(x), None, None],
            axis=-1,
            epsilon=epsilon,
        )
    )


def _rms_norm(
    b: Builder, x: ir.Value, scale: ir.Value, epsilon: float, axis: int = -1
) -> list[ir.Value]:
    """Returns the result and the reciprocal of the root of the mean square."""
    axes = b.ints(*range(axis, 0)) if axis < 0 else None
    if axes is None:
        rank = len(shape_of(x) or ())
        axes = b.ints(*range(axis, rank))
    square = b.op("ReduceMean", b.mul(x, x), axes, keepdims=1)
    root = b.op("Sqrt", b.op("Add", square, b.scalar(epsilon, x)))
    inverse = b.op("Reciprocal", root)
    return [b.op("Mul", b.op("Mul", x, inverse, shape=x), scale, shape=x), inverse]


def _simplified_layer_norm(b: Builder, node: ir.Node) -> Parts | None:
    x = required(node, 0)
    axis = attribute(node, "axis", -1)
    if x.dtype is None or (axis >= 0 and shape_of(x) is None):
        return None
    return _rms_norm(b, x, required(node, 1), attribute(node, "epsilon", 1e-5), axis)


def _skip_layer_norm(b: Builder, node: ir.Node) -> Parts:
    x = b.op("Add", required(node, 0), required(node, 1), shape=required(node, 0))
    if (bias := optional(node, 4)) is not None:
        x = b.op("Add", x, bias, shape=x)
    epsilon = attribute(node, "epsilon", 1e-12)
    result = _layer_norm(b, x, required(node, 2), optional(node, 3), epsilon)
    return [*result, x]


def _skip_simplified_layer_norm(b: Builder, node: ir.Node) -> Parts | None:
    first = required(node, 0)
    if first.dtype is None:
        return None
    x = b.op("Add", first, required(node, 1), shape=first)
    if (bias := optional(node, 3)) is not None:
        x = b.op("Add", x, bias, shape=x)
    result, inverse = _rms_norm(b, x, required(node, 2), attribute(node, "epsilon", 1e-12))
    return [result, None, inverse, x]


def _embed_layer_norm(b: Builder, node: ir.Node) -> Parts:
    ids, segments = required(node, 0), optional(node, 1)
    positions, mask = optional(node, 8), optional(node, 7)
    words = b.op("Gather", required(node, 2), ids, dtype=required(node, 2).dtype, axis=0)
    table = required(node, 3)
    if positions is None:
        length = b.op("Shape", ids, dtype=ir.DataType.INT64, start=1, end=2)
        one = b.op("Squeeze", length, b.ints(0))
        zero, step = (b.const(np.asarray(n, np.int64)) for n in (0, 1))
        positions = b.op("Range", zero, one, step, dtype=ir.DataType.INT64)
    total = b.op("Add", words, b.op("Gather", table, positions, dtype=table.dtype, axis=0))
    if segments is not None and optional(node, 4) is not None:
        kinds = b.op("Gather", required(node, 4), segments, dtype=table.dtype, axis=0)
        total = b.op("Add", total, kinds)
    epsilon = attribute(node, "epsilon", 1e-12)
    result = _layer_norm(b, total, required(node, 5), optional(node, 6), epsilon)[0]
    return [result, _mask_lengths(b, ids, mask), total]


def _compress(b: Builder, node: ir.Node) -> Parts | None:
    """Writes a Compress of a known condition as the Gather that it is, whose sizes are known."""
    x, condition = required(node, 0), constant_of(required(node, 1))
    axis, shape = attribute(node, "axis", None), shape_of(x)
    if condition is None or axis is None or shape is None:
        return None
    kept = np.flatnonzero(condition).tolist()
    sizes = [len(kept) if i == axis % len(shape) else d for i, d in enumerate(shape)]
    return [b.op("Gather", x, b.ints(*kept), shape=sizes, axis=axis)]


def _cast_like(b: Builder, node: ir.Node) -> Parts | None:
    """Writes a cast to the type of another tensor, whose numbers say nothing, without it."""
    kind = required(node, 1).dtype
    if kind is None:
        raise UnknownShapeError(f"the type of {told(node)}")
    return [b.op("Cast", required(node, 0), shape=required(node, 0), dtype=kind, to=int(kind))]


def _mask_lengths(b: Builder, ids: ir.Value, mask: ir.Value | None) -> ir.Value:
    """Returns how many tokens of each sequence the mask keeps, int32 `[batch]`; 0 without one."""
    like = ids if mask is None else mask
    one = b.const(np.asarray(1, np.int32))
    kept = b.op(
        "Equal", b.op("Cast", like, dtype=ir.DataType.INT32, to=6), one, dtype=ir.DataType.BOOL
    )
    counted = b.op("Cast", kept, dtype=ir.DataType.INT32, to=6)
    lengths = b.op("ReduceSum", counted, b.ints(1), keepdims=0)
    return lengths if mask is not None else b.op("Sub", lengths, lengths)


#: Operator -> what it consists of.
_PARTS: Mapping[str, Part] = {
    **learning.PARTS,
    **sequences.PARTS,
    f"{_MS}::Gelu": lambda b, n: [_gelu(b, required(n, 0))],
    f"{_MS}::BiasGelu": lambda b, n: [_gelu(b, _biased(b, n))],
    f"{_MS}::FastGelu": lambda b, n: [_gelu_by_tanh(b, _biased(b, n))],
    f"{_MS}::QuickGelu": _quick_gelu,
    f"{_MS}::FusedConv": _fused_conv,
    f"{_MS}::FusedGemm": _fused_gemm,
    f"{_MS}::FusedMatMul": _fused_mat_mul,
    f"{_MS}::TransposeMatMul": _fused_mat_mul,
    f"{_MS}::SkipLayerNormalization": _skip_layer_norm,
    f"{_MS}::SkipSimplifiedLayerNormalization": _skip_simplified_layer_norm,
    f"{_MS}::EmbedLayerNormalization": _embed_layer_norm,
    "SimplifiedLayerNormalization": _simplified_layer_norm,
    f"{_MS}::SimplifiedLayerNormalization": _simplified_layer_norm,
    "Attention": attention.standard_attention,
    "Compress": _compress,
    "CastLike": _cast_like,
    f"{_MS}::Attention": attention.attention,
    f"{_MS}::MultiHeadAttention": attention.multi_head_attention,
    f"{_MS}::RotaryEmbedding": attention.rotary_embedding,
}

#: Attributes of operators of which newer versions of onnxruntime may have more: with another one
#: they compute something else.
_KNOWN: Mapping[str, frozenset[str]] = {
    f"{_MS}::Attention": frozenset(
        {"num_heads", "unidirectional", "scale", "mask_filter_value", "qkv_hidden_sizes"}
        | {"do_rotary", "rotary_embedding_dim", "past_present_share_buffer"}
    ),
    f"{_MS}::MultiHeadAttention": frozenset(
        {"num_heads", "unidirectional", "scale", "mask_filter_value"}
    ),
    f"{_MS}::RotaryEmbedding": frozenset(
        {"interleaved", "num_heads", "rotary_embedding_dim", "scale", "is_packed_batching"}
    ),
    f"{_MS}::SkipLayerNormalization": frozenset({"epsilon"}),
    f"{_MS}::SkipSimplifiedLayerNormalization": frozenset({"epsilon"}),
    f"{_MS}::EmbedLayerNormalization": frozenset({"epsilon", "mask_index_type"}),
}
