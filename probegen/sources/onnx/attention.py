"""onnxruntime's attention operators, taken apart: a Softmax of scores whose result weighs values.

Their meaning is that of onnxruntime's kernels for the processor. Shapes: B sequences, S queries, T
keys (those of the past counted), N heads of size h.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from probegen.errors import SourceError
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, attribute, dtype_of, shape_of
from probegen.sources.onnx.names import told
from probegen.sources.onnx.parts import Parts, optional, refuse_outputs, required

_INT64 = ir.DataType.INT64
#: Attributes of the standard operator that are read here; newer opsets have more.
_PLAIN = frozenset(
    {"is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap"}
    | {"softmax_precision"}
)


def attention(b: Builder, node: ir.Node) -> Parts | None:
    """`Attention(x, weights, bias, mask, past, added)`: queries, keys and values of one input."""
    x, weights = required(node, 0), required(node, 1)
    if optional(node, 6) is not None or attribute(node, "past_present_share_buffer", 0):
        raise SourceError(f"{told(node)} shares a buffer with its past, which is not known here.")
    if attribute(node, "do_rotary", 0):
        raise SourceError(f"{told(node)} turns its queries (do_rotary), which is not known here.")
    shape = shape_of(weights)
    if shape is None or not isinstance(shape[1], int):
        return None
    third = shape[1] // 3
    sizes = list(attribute(node, "qkv_hidden_sizes", ())) or [third] * 3
    projected = b.op("MatMul", x, weights)
    if (bias := optional(node, 2)) is not None:
        projected = b.op("Add", projected, bias)
    split = b.ops("Split", projected, b.ints(*sizes), outputs=3, axis=-1)
    heads = attribute(node, "num_heads")
    query, key, value = (_by_head(b, part, heads) for part in split)
    if (past := optional(node, 4)) is not None:
        key, value = (
            b.op("Concat", b.op("Gather", past, b.const(np.asarray(i)), axis=0), now, axis=2)
            for i, now in enumerate((key, value))
        )
    scores = _scores(b, node, query, key, sizes[0] // heads)
    mask = optional(node, 3)
    if mask is not None:
        masked = _masked(b, node, mask, key, x)
        if masked is None:
            return None
        scores = b.op("Add", scores, masked)
    if (added := optional(node, 5)) is not None:
        scores = b.op("Add", scores, added)
    result = _weighed(b, node, scores, value)
    first = b.ints(0)
    present = b.op("Concat", *(b.op("Unsqueeze", part, first) for part in (key, value)), axis=0)
    return [result, present]


def multi_head_attention(b: Builder, node: ir.Node) -> Parts | None:
    """`MultiHeadAttention(query, key, value, bias, mask, added, past key, past value)`."""
    if optional(node, 8) is not None or optional(node, 9) is not None:
        raise SourceError(f"{told(node)} shares a buffer with its past, which is not known here.")
    refuse_outputs(node, 3, "its scores are read as an output, which is not known here")
    heads = attribute(node, "num_heads")
    parts = _query_key_value(b, node, heads)
    if parts is None:
        return None
    query, key, value, size = parts
    for position in (6, 7):
        past = optional(node, position)
        if past is not None and position == 6:
            key = b.op("Concat", past, key, axis=2)
        elif past is not None:
            value = b.op("Concat", past, value, axis=2)
    scores = _scores(b, node, query, key, size)
    mask = optional(node, 4)
    if mask is not None:
        masked = _masked(b, node, mask, key, required(node, 0))
        if masked is None:
            return None
        scores = b.op("Add", scores, masked)
    if (added := optional(node, 5)) is not None:
        scores = b.op("Add", scores, added)
    return [_weighed(b, node, scores, value), key, value]


def _query_key_value(
    b: Builder, node: ir.Node, heads: int
) -> tuple[ir.Value, ir.Value, ir.Value, int] | None:
    """Returns queries, keys and values by head, and the size of a head."""
    query, key, value = required(node, 0), optional(node, 1), optional(node, 2)
    shape = shape_of(query)
    if shape is None or not isinstance(shape[-1], int):
        return None
    if len(shape) == 5:
        query, key, value = _unpacked(b, query, 3)
        return query, key, value, shape[-1]
    size = shape[-1] // heads
    bias = optional(node, 3)
    biases: list[ir.Value | None] = [None] * 3
    if bias is not None:
        whole = (shape_of(bias) or (None,))[0]
        if not isinstance(whole, int):
            return None
        sizes = b.ints(shape[-1], shape[-1], whole - 2 * shape[-1])
        biases = list(b.ops("Split", bias, sizes, outputs=3, axis=0))
    if key is None:
        raise SourceError(f"{told(node)} has neither keys nor packed queries.")
    kind = shape_of(key)
    if kind is None:
        return None
    if len(kind) == 5:
        key, value = _unpacked(b, key, 2)
    else:
        value = required(node, 2)
        key, value = (
            _by_head(b, part, heads, added) if len(kind) == 3 else part
            for part, added in zip((key, value), biases[1:], strict=True)
        )
    return _by_head(b, query, heads, biases[0]), key, value, size


def _unpacked(b: Builder, packed: ir.Value, count: int) -> list[ir.Value]:
    """Takes `[B, S, N, count, h]` apart into values by head."""
    split = b.ops("Split", packed, outputs=count, axis=3, num_outputs=count)
    squeezed = (b.op("Squeeze", part, b.ints(3)) for part in split)
    return [b.op("Transpose", part, perm=[0, 2, 1, 3]) for part in squeezed]


def _by_head(b: Builder, value: ir.Value, heads: int, bias: ir.Value | None = None) -> ir.Value:
    """Brings `[B, S, N * h]` to `[B, N, S, h]`."""
    if bias is not None:
        value = b.op("Add", value, bias, shape=value)
    apart = b.op("Reshape", value, b.ints(0, 0, heads, -1))
    return b.op("Transpose", apart, perm=[0, 2, 1, 3])


def _scores(b: Builder, node: ir.Node, query: ir.Value, key: ir.Value, size: int) -> ir.Value:
    """Returns scaled scores `[B, N, S, T]`; what a causal mask forbids is the lowest number."""
    turned = b.op("Transpose", key, perm=[0, 1, 3, 2])
    scale = attribute(node, "scale", 0.0) or 1 / math.sqrt(size)
    scores = b.op("MatMul", query, turned)
    scores = b.op("Mul", scores, b.const(np.float32(scale), dtype_of(required(node, 0))))
    if not attribute(node, "unidirectional", 0):
        return scores
    rows, columns = _counted(b, query, 2), _counted(b, key, 2)
    before = b.op("Sub", _length(b, key, 2), _length(b, query, 2))
    last = b.op("Unsqueeze", b.op("Add", rows, before), b.ints(1))
    seen = b.op("LessOrEqual", columns, last, dtype=ir.DataType.BOOL)
    lowest = b.const(dtype_of(required(node, 0)).min, dtype_of(required(node, 0)))
    return b.op("Where", seen, scores, lowest, dtype=scores.dtype)


def _length(b: Builder, value: ir.Value, axis: int) -> ir.Value:
    return b.op("Shape", value, dtype=_INT64, shape=[1], start=axis, end=axis + 1)


def _counted(b: Builder, value: ir.Value, axis: int) -> ir.Value:
    """Returns the positions along an axis, from 0."""
    length = b.op("Squeeze", _length(b, value, axis), b.ints(0), shape=[])
    zero, one = (b.const(np.asarray(n, np.int64)) for n in (0, 1))
    return b.op("Range", zero, length, one, dtype=_INT64)


def _masked(
    b: Builder, node: ir.Node, mask: ir.Value, key: ir.Value, like: ir.Value
) -> ir.Value | None:
    """Returns what a mask adds to the scores; None where its rank is not known."""
    shape = shape_of(mask)
    if shape is None:
        return None
    dtype = dtype_of(like)
    if len(shape) == 1:
        _check_lengths(node, shape[0], (shape_of(like) or (None,))[0])
        positions = b.op("Cast", _counted(b, key, 2), dtype=ir.DataType.INT32, to=6)
        lengths = b.op("Unsqueeze", mask, b.ints(1))
        kept = b.op("Less", positions, lengths, dtype=ir.DataType.BOOL)
    elif len(shape) in (2, 3):
        zero = b.const(np.asarray(0), mask.dtype or ir.DataType.INT32)
        kept = b.op("Greater", mask, zero, dtype=ir.DataType.BOOL)
    else:
        raise SourceError(
            f"{told(node)} has a mask of rank {len(shape)}; known are lengths [batch] and masks "
            "[batch, keys] and [batch, queries, keys]."
        )
    kept = b.op("Unsqueeze", kept, b.ints(1) if len(shape) == 3 else b.ints(1, 2))
    low = b.const(np.float32(attribute(node, "mask_filter_value", -10000.0)), dtype)
    return b.op("Where", kept, b.const(0.0, dtype), low, dtype=dtype)


def _check_lengths(node: ir.Node, size: Dim, batch: Dim) -> None:
    if isinstance(size, int) and isinstance(batch, int) and size != batch:
        raise SourceError(
            f"{told(node)} has a mask of {size} numbers for {batch} sequences; known are one "
            "length a sequence, and masks [batch, keys] and [batch, queries, keys]."
        )


def _weighed(b: Builder, node: ir.Node, scores: ir.Value, value: ir.Value) -> ir.Value:
    weights = b.op("Softmax", scores, axis=-1)
    together = b.op("Transpose", b.op("MatMul", weights, value), perm=[0, 2, 1, 3])
    return b.op("Reshape", together, b.ints(0, 0, -1), shape=shape_of(node.outputs[0]))


# -- the standard operator --------------------------------------------------------------------


def standard_attention(b: Builder, node: ir.Node) -> Parts | None:
    """`Attention(query, key, value, mask)` of ONNX, of `[B, N, S, h]` or `[B, S, N * h]`.

    None where it is used in another way (a past, a soft cap, scores as an output): onnx says what
    it then consists of. Here a query that may look at no key has weights all the same, and its
    result is set to 0 after; so no gradient meets an infinite score.
    """
    mask = optional(node, 3)
    parts = None if _is_special(node) else _standard_parts(b, node)
    if parts is None:
        return None
    query, key, value, size = parts
    keys, masked = shape_of(required(node, 1)), None if mask is None else shape_of(mask)
    if mask is not None and (not keys or not masked or masked[-1] != keys[-2]):
        return None
    scale = attribute(node, "scale") or 1 / math.sqrt(size)
    dtype = dtype_of(query)
    scores = b.op("MatMul", query, b.op("Transpose", key, perm=[0, 1, 3, 2]))
    scores = b.op("Mul", scores, b.const(np.float32(scale), dtype))
    low = b.const(np.float32(float(dtype.min) / 2), dtype)
    seen: list[ir.Value] = []
    if attribute(node, "is_causal", 0):
        rows = b.op("Unsqueeze", _counted(b, query, 2), b.ints(1))
        seen.append(b.op("LessOrEqual", _counted(b, key, 2), rows, dtype=ir.DataType.BOOL))
        scores = b.op("Where", seen[0], scores, low, dtype=dtype)
    if mask is not None and mask.dtype == ir.DataType.BOOL:
        seen.append(mask)
        added = b.op("Where", mask, b.const(0.0, dtype), low, dtype=dtype)
        scores = b.op("Add", scores, added)
    elif mask is not None:
        seen.append(b.op("Greater", mask, low, dtype=ir.DataType.BOOL))
        scores = b.op("Add", scores, b.op("Max", mask, low, dtype=dtype))
    result = b.op("MatMul", b.op("Softmax", scores, axis=-1), value)
    if mask is not None:
        result = b.op("Mul", result, _any_key(b, seen, dtype))
    if len(shape_of(required(node, 0)) or ()) == 3:
        result = b.op("Reshape", b.op("Transpose", result, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
    return [result]


def _is_special(node: ir.Node) -> bool:
    """Tells whether a use has a past, a soft cap, another precision, or more than one result."""
    others = any(v is not None for v in node.inputs[4:]) or not _PLAIN.issuperset(node.attributes)
    read = any(v.name and (v.uses() or v.is_graph_output()) for v in node.outputs[1:])
    precision = attribute(node, "softmax_precision")
    precise = precision not in (None, int(dtype_of(required(node, 0))))
    return others or read or precise or bool(attribute(node, "softcap", 0.0))


def _standard_parts(b: Builder, node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value, int] | None:
    """Returns queries, keys and values by head, as many of each, and the size of a head."""
    query, key, value = (required(node, i) for i in range(3))
    shapes = [shape_of(v) or () for v in (query, key, value)]
    if not all(shapes):
        return None
    heads: tuple[Dim, Dim]
    size: Dim
    if len(shapes[0]) == 3:
        heads = attribute(node, "q_num_heads"), attribute(node, "kv_num_heads")
        width = shapes[0][-1]
        size = width // int(heads[0] or 1) if isinstance(width, int) else None
        query = _by_head(b, query, int(heads[0] or 1))
        key, value = (_by_head(b, part, int(heads[1] or 1)) for part in (key, value))
    else:
        heads, size = (shapes[0][1], shapes[1][1]), shapes[0][3]
    if not isinstance(size, int):
        return None
    if heads[0] != heads[1]:
        queries, keys = heads
        if not isinstance(queries, int) or not isinstance(keys, int) or queries % keys:
            return None
        key, value = (_repeated(b, part, queries, keys) for part in (key, value))
    return query, key, value, size


def _any_key(b: Builder, seen: list[ir.Value], dtype: ir.DataType) -> ir.Value:
    """Returns 1 for each query that may look at a key by all of `seen`, else 0."""
    together = seen[0]
    for other in seen[1:]:
        together = b.op("And", together, other, dtype=ir.DataType.BOOL)
    one = b.op("Cast", together, dtype=dtype, to=int(dtype))
    return b.op("ReduceMax", one, b.ints(-1), keepdims=1)


def _repeated(b: Builder, value: ir.Value, queries: int, keys: int) -> ir.Value:
    """Repeats each head of `[B, keys, T, h]`, so that there is one a head of the queries."""
    apart = b.op("Unsqueeze", value, b.ints(2))
    wide = b.op("Expand", apart, b.ints(1, 1, queries // keys, 1, 1))
    # Sizes that Reshape copies stand at the same place: the heads are joined where they come first.
    first = b.op("Transpose", wide, perm=[3, 4, 0, 1, 2])
    joined = b.op("Reshape", first, b.ints(0, 0, 0, -1))
    return b.op("Transpose", joined, perm=[2, 3, 0, 1])


def rotary_embedding(b: Builder, node: ir.Node) -> Parts | None:
    """`RotaryEmbedding(x, positions, cosines, sines)` of `[B, S, N * h]` or `[B, N, S, h]`."""
    x, positions = required(node, 0), required(node, 1)
    tables = [required(node, 2), required(node, 3)]
    shape, half = shape_of(x), (shape_of(tables[0]) or (None, None))[1]
    placed = shape_of(positions)
    if shape is None or placed is None or not isinstance(half, int):
        return None
    if attribute(node, "is_packed_batching", 0) or attribute(node, "scale", 1.0) != 1.0:
        raise SourceError(f"{told(node)} packs batches or scales, which is not known here.")
    turned = attribute(node, "rotary_embedding_dim", 0)
    heads = attribute(node, "num_heads", 0)
    if len(shape) == 3:
        if not heads and turned:
            return None
        width = shape[2]
        if not heads and not isinstance(width, int):
            return None
        heads = heads or int(width or 0) // (2 * half)
        x = b.op("Reshape", x, b.ints(0, 0, heads, -1))
    else:
        x = b.op("Transpose", x, perm=[0, 2, 1, 3])
    if len(placed) == 1:
        positions = b.op("Unsqueeze", b.op("Add", _counted(b, x, 1), positions), b.ints(0))
    cosine, sine = (
        b.op("Unsqueeze", b.op("Gather", t, positions, axis=0), b.ints(2)) for t in tables
    )
    rest = None
    if turned:
        rest = b.op("Slice", x, b.ints(turned), b.ints(2**31 - 1), b.ints(3))
        x = b.op("Slice", x, b.ints(0), b.ints(turned), b.ints(3))
    result = _turned(b, x, cosine, sine, half, bool(attribute(node, "interleaved", 0)))
    if rest is not None:
        result = b.op("Concat", result, rest, axis=3)
    if len(shape) == 3:
        return [b.op("Reshape", result, b.ints(0, 0, -1), shape=shape)]
    return [b.op("Transpose", result, shape=shape, perm=[0, 2, 1, 3])]


def _turned(
    b: Builder, x: ir.Value, cosine: ir.Value, sine: ir.Value, half: int, interleaved: bool
) -> ir.Value:
    """Turns pairs of features: those half a head apart, or neighbours."""
    last, end = b.ints(3), b.ints(2**31 - 1)
    if interleaved:
        first, second = (b.op("Slice", x, b.ints(i), end, last, b.ints(2)) for i in (0, 1))
    else:
        first = b.op("Slice", x, b.ints(0), b.ints(half), last)
        second = b.op("Slice", x, b.ints(half), end, last)
    real = b.op("Sub", b.op("Mul", first, cosine), b.op("Mul", second, sine))
    imaginary = b.op("Add", b.op("Mul", first, sine), b.op("Mul", second, cosine))
    if not interleaved:
        return b.op("Concat", real, imaginary, axis=3)
    pairs = [b.op("Unsqueeze", part, b.ints(4)) for part in (real, imaginary)]
    return b.op("Reshape", b.op("Concat", *pairs, axis=4), b.ints(0, 0, 0, -1))
