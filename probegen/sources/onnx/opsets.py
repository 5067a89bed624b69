"""Brings operators of older opsets into the form that opset 18 gives them.

One function an operator. What they say is held against onnxruntime running the old file; onnx's
own converter is wrong about several of them, and knows neither functions nor the names of values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from probegen.errors import SourceError
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, constant_of, shape_of
from probegen.sources.onnx.functions import OPSET
from probegen.sources.onnx.idle import write_mask
from probegen.sources.onnx.names import AllNames, nodes_of, told
from probegen.sources.onnx.rewriting import builder_at, replace
from probegen.sources.onnx.scores_of_outputs import SCORES

#: What is read, and what operators are brought to at least.
OLDEST, LEAST = 7, 18
_LEAST_IR = 8
#: Operators that onnx withdrew -> the opset that has their successor.
_WITHDRAWN: Mapping[str, int] = {"GroupNormalization": 21}

#: Changes a node in place, or puts others in its place: (node, opset it was written in, a builder
#: of what takes its place).
Adapter = Callable[[ir.Node, int, Builder], None]


def check_opset(model: ir.Model) -> None:
    """Checks that the standard operators are of a version that is known.

    Raises:
        SourceError: it is older or newer.
    """
    version = model.opset_imports.get("")
    if version is None:
        model.opset_imports[""] = LEAST  # other domains alone; what replaces them is standard
        return
    newest = onnx.defs.onnx_opset_version()
    if version < OLDEST:
        raise SourceError(
            f"the model is written in opset {version}; expected {OLDEST} or newer. Export it "
            "anew, or bring it up with onnx.version_converter.convert_version."
        )
    if version > newest:
        raise SourceError(
            f"the model is written in opset {version}; the installed onnx {onnx.__version__} "
            f"knows opsets up to {newest}. Upgrade onnx, or export with opset {newest} or older."
        )


def convert(model: ir.Model, names: AllNames) -> int:
    """Brings every node to one opset, 18 or the file's own where that is newer.

    Where a node is of a kind that has been withdrawn since, to the one of its successor.

    Needs: functions written out.

    Returns:
        The opset that the model was written in.

    Raises:
        SourceError: an operator has no form in the newer opset; names it.
    """
    written = model.opset_imports[""]
    nodes = nodes_of(model.graph)
    versions = [int(node.meta.get(OPSET) or written) for node in nodes]
    target = max([LEAST, written, *versions])
    if any(node.op_type in _WITHDRAWN and not node.domain for node in nodes):
        target = max(target, *_WITHDRAWN.values())
    if min([written, *versions]) < target:
        # What the operators of old are told by the types and ranks of what they read.
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    for node, version in zip(nodes, versions, strict=True):
        if node.domain:
            continue
        for since, adapter in _ADAPTERS.get(node.op_type, ()):
            if version < since <= target and node.graph is not None:
                adapter(node, version, builder_at(node, target, names))
                break
    model.opset_imports[""] = target
    model.ir_version = max(model.ir_version, _LEAST_IR)
    return written


# -- attributes that became inputs ------------------------------------------------------------


def _input(node: ir.Node, position: int, value: ir.Value | None) -> None:
    if len(node.inputs) <= position:
        node.resize_inputs(position + 1)
    node.replace_input_with(position, value)


def _pop(node: ir.Node, name: str, default: Any = None) -> Any:
    """Returns an attribute, which the node then no longer has."""
    found = attribute(node, name, default)
    node.attributes.pop(name, None)
    return found


def _axes(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    axes = _pop(node, "axes")
    if axes:
        _input(node, 1, b.ints(*axes))


def _split(node: ir.Node, version: int, b: Builder) -> None:
    sizes = _pop(node, "split")
    if version < 13 and sizes:
        _input(node, 1, b.ints(*sizes))
    elif len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _slice(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    starts, ends, axes = (_pop(node, name) for name in ("starts", "ends", "axes"))
    _input(node, 1, b.ints(*starts))
    _input(node, 2, b.ints(*ends))
    if axes:
        _input(node, 3, b.ints(*axes))


def _pad(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    pads, value = _pop(node, "pads"), _pop(node, "value", 0.0)
    _input(node, 1, b.ints(*pads))
    if value:
        _input(node, 2, _of_its_type(node, np.float32(value), b))


def _clip(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    for position, name in enumerate(("min", "max"), start=1):
        bound = _pop(node, name)
        if bound is not None:
            _input(node, position, _of_its_type(node, np.float32(bound), b))


def _of_its_type(node: ir.Node, number: np.float32, b: Builder) -> ir.Value:
    """Returns a number in the element type of what a node reads.

    Behind an operator of another domain nobody knows that yet: onnx infers none there.
    """
    first = node.inputs[0]
    known = None if first is None else first.dtype or node.outputs[0].dtype
    if known is None and first is not None:
        like = b.op("CastLike", b.const(number, ir.DataType.FLOAT), first, shape=[])
        b.insert_before(node)
        return like
    return b.const(number, known or ir.DataType.FLOAT)


def _top_k(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    _input(node, 1, b.ints(_pop(node, "k")))


# -- other meanings ---------------------------------------------------------------------------


def _softmax(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    """Up to opset 12 the axes from `axis` on count as one.

    Where they are several, what is read stays known as the scores of the result.
    """
    x = _first(node)
    axis = attribute(node, "axis", 1)
    shape = shape_of(x) or shape_of(node.outputs[0])
    if shape is not None:
        place = axis % len(shape) if shape else 0
        wide = [i for i in range(place, len(shape)) if shape[i] != 1]
        if len(wide) < 2:
            chosen = wide[0] if wide else len(shape) - 1
            node.attributes["axis"] = ir.AttrInt64("axis", chosen)
            return
    flat = b.op("Flatten", x, axis=axis)
    result = b.op(node.op_type, flat, axis=-1)
    sizes = b.op("Shape", x, dtype=ir.DataType.INT64)
    made = b.op("Reshape", result, sizes, shape=x)
    if node.op_type == "Softmax":
        made.meta[SCORES] = x
    replace(node, b, [made])


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise SourceError(f"{told(node)} lacks its first input.")
    return value


def _dropout(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    """The mask was of floats up to opset 9; onnxruntime says false up to opset 11, then true."""
    node.attributes.pop("ratio", None)
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if mask is None or not (mask.uses() or mask.is_graph_output()):
        return
    if version < 10:
        raise _no_form(node, version, "something reads its mask")
    write_mask(node, mask, False)


def _batch_normalization(node: ir.Node, version: int, b: Builder) -> None:
    extra = [v for v in node.outputs[1:] if v.name and (v.uses() or v.is_graph_output())]
    if version < 14 and extra:
        raise _no_form(node, version, "it computes statistics as in training; export for inference")
    if version < 14:
        node.resize_outputs(1)
    spatial = _pop(node, "spatial", 1)
    if version < 9 and not spatial:
        x, scale, bias, mean, variance = (v for v in node.inputs if v is not None)
        root = b.op("Sqrt", b.add(variance, attribute(node, "epsilon", 1e-5)))
        scaled = b.mul(b.div(b.sub(x, mean), root), scale)
        replace(node, b, [b.add(scaled, bias)])


def _upsample(node: ir.Node, version: int, b: Builder) -> None:
    scales = (
        b.const(np.asarray(attribute(node, "scales"), np.float32))
        if version < 9
        else node.inputs[1]
    )
    _old_resize(node, scales, b)


def _resize_10(node: ir.Node, version: int, b: Builder) -> None:
    if version < 11:
        _old_resize(node, node.inputs[1], b)
        return
    for position in range(1, len(node.inputs)):
        array = constant_of(node.inputs[position])
        if array is not None and array.size == 0:
            node.replace_input_with(position, None)
    if attribute(node, "coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        # floor(t) is the whole number next to t - 1/2, the upper one of two.
        if attribute(node, "nearest_mode", "round_prefer_floor") != "floor":
            raise _no_form(node, version, "tf_half_pixel_for_nn with another rounding than floor")
        _set(node, coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil")


def _old_resize(node: ir.Node, scales: ir.Value | None, b: Builder) -> None:
    mode = attribute(node, "mode", "nearest")
    known = constant_of(scales)
    x = _first(node)
    given: dict[str, Any] = {
        "mode": "linear" if mode in ("linear", "bilinear") else mode,
        "coordinate_transformation_mode": "asymmetric",
    }
    if mode != "nearest":
        replace(node, b, [b.op("Resize", x, None, scales, **given)])
        return
    # onnxruntime rounds down where it makes larger, and up where it makes smaller.
    if known is None or not (known < 1).any():
        replace(node, b, [b.op("Resize", x, None, scales, nearest_mode="floor", **given)])
        return
    smaller = b.const(np.minimum(known, 1).astype(np.float32))
    result = b.op("Resize", x, None, smaller, nearest_mode="ceil", **given)
    if (known > 1).any():
        larger = b.const(np.maximum(known, 1).astype(np.float32))
        result = b.op("Resize", result, None, larger, nearest_mode="floor", **given)
    replace(node, b, [result])


def _set(node: ir.Node, **values: str) -> None:
    for name, value in values.items():
        node.attributes[name] = ir.AttrString(name, value)


def _scatter(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    node.op_type = "ScatterElements"


def _roi_align(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    _set(node, coordinate_transformation_mode="output_half_pixel")


def _scan(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    raise _no_form(node, version, "the Scan of opset 8 has an axis for the batch")


def _group_normalization(node: ir.Node, version: int, b: Builder) -> None:
    """Up to opset 20 there is a scale and a bias a group, from then on one a channel."""
    groups = attribute(node, "num_groups")
    shape = shape_of(_first(node))
    if shape is None or not isinstance(shape[1], int):
        raise _no_form(node, version, "the number of channels is not known")
    each = shape[1] // groups
    for position in (1, 2):
        value = node.inputs[position]
        if value is None:
            continue
        column = b.op("Reshape", value, b.ints(groups, 1), shape=[groups, 1])
        wide = b.op("Expand", column, b.ints(groups, each), shape=[groups, each])
        flat = b.op("Reshape", wide, b.ints(-1), shape=[shape[1]])
        node.replace_input_with(position, flat)
    b.insert_before(node)


def _grid_sample(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    mode = attribute(node, "mode", "bilinear")
    _set(node, mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def _dft(node: ir.Node, version: int, b: Builder) -> None:  # noqa: ARG001
    axis = b.const(np.asarray(_pop(node, "axis", 1), np.int64))
    _input(node, 2, axis)


def _no_form(node: ir.Node, version: int, reason: str) -> SourceError:
    return SourceError(
        f"{told(node)} of opset {version} has no form in opset {LEAST}: {reason}. Export the "
        f"model with opset {LEAST} or newer."
    )


_Table = Mapping[str, tuple[tuple[int, Adapter], ...]]
_REDUCTIONS: _Table = {
    f"Reduce{kind}": ((18, _axes),)
    for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}
#: Operator -> the opsets from which on it has another form, and what brings it there; the first
#: that applies is applied.
_ADAPTERS: _Table = {
    **_REDUCTIONS,
    "ReduceSum": ((13, _axes),),
    "Squeeze": ((13, _axes),),
    "Unsqueeze": ((13, _axes),),
    "Split": ((18, _split),),
    "Slice": ((10, _slice),),
    "Pad": ((11, _pad),),
    "Clip": ((11, _clip),),
    "TopK": ((10, _top_k),),
    "Softmax": ((13, _softmax),),
    "LogSoftmax": ((13, _softmax),),
    "Hardmax": ((13, _softmax),),
    "Dropout": ((12, _dropout),),
    "BatchNormalization": ((14, _batch_normalization),),
    "Upsample": ((10, _upsample),),
    "Resize": ((13, _resize_10),),
    "Scatter": ((11, _scatter),),
    "RoiAlign": ((16, _roi_align),),
    "Scan": ((9, _scan),),
    "GroupNormalization": ((21, _group_normalization),),
    "GridSample": ((20, _grid_sample),),
    "DFT": ((20, _dft),),
}
