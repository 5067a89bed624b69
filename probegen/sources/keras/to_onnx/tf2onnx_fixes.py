"""What tf2onnx writes wrongly and no handler of a single operation can prevent, put right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, constant_of, rank_of, shape_of


def fix_negative_padding(graph: ir.Graph) -> None:
    """Writes the negative padding of a ConvTranspose as output padding.

    tf2onnx writes it where the stride is larger than the kernel, for the last rows and columns
    that no input reaches; ONNX knows none. Where two or more are missing it puts half of them in
    front, and TensorFlow all of them behind. Needs no shapes.
    """
    for node in graph.all_nodes():
        if node.op_type != "ConvTranspose":
            continue
        pads = attribute(node, "pads", [])
        count = len(pads) // 2
        starts = [max(start, 0) for start in pads[:count]]
        ends = [end + min(start, 0) for start, end in zip(pads, pads[count:], strict=False)]
        if not any(p < 0 for p in ends):
            continue
        before = attribute(node, "output_padding", [0] * count)
        added = [old + max(-p, 0) for old, p in zip(before, ends, strict=True)]
        widths = [*starts, *(max(p, 0) for p in ends)]
        node.attributes["pads"] = ir.AttrInt64s("pads", widths)
        node.attributes["output_padding"] = ir.AttrInt64s("output_padding", added)


def fix_output_shapes(graph: ir.Graph) -> None:
    """Writes the padding of a ConvTranspose that is told the size of its output instead.

    tf2onnx does so where it does not know the size of the image, behind a Dense layer say. Where
    the padding is odd, ONNX then cuts the larger half in front, TensorFlow behind. Needs shapes
    inferred; where they tell nothing, `auto_pad` still puts the larger half behind.
    """
    for node in graph.all_nodes():
        sizes = attribute(node, "output_shape")
        if node.op_type != "ConvTranspose" or node.domain or not sizes:
            continue
        before, after = _padding_for(node, sizes)
        if before is None:
            node.attributes["auto_pad"] = ir.AttrString("auto_pad", "SAME_UPPER")
            continue
        for name in ("output_shape", "auto_pad", "output_padding", "pads"):
            node.attributes.pop(name, None)
        node.attributes["pads"] = ir.AttrInt64s("pads", [*before, *(max(p, 0) for p in after)])
        if any(p < 0 for p in after):
            added = [max(-p, 0) for p in after]
            node.attributes["output_padding"] = ir.AttrInt64s("output_padding", added)


def _padding_for(node: ir.Node, sizes: Sequence[int]) -> tuple[list[int] | None, list[int]]:
    """Returns what a ConvTranspose cuts before and behind to give `sizes`; None for unknown.

    Where it gives too little, what is behind is negative: that much is to be added.
    """
    data, kernel = (None if v is None else shape_of(v) for v in node.inputs[:2])
    if data is None or kernel is None:
        return None, []
    rank = len(sizes)
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    before, after = [], []
    for axis, size in enumerate(sizes):
        image, width = data[2 + axis], kernel[2 + axis]
        if not isinstance(image, int) or not isinstance(width, int):
            return None, []
        whole = strides[axis] * (image - 1) + (width - 1) * dilations[axis] + 1
        cut = max(whole - size, 0) // 2
        before.append(cut)
        after.append(whole - size - cut)
    return before, after


def fix_transposes(graph: ir.Graph) -> None:
    """Writes a Transpose that moves axes of size 1 alone as a Reshape, which copies nothing.

    Needs shapes inferred. tf2onnx has such a rule, which goes by shapes that are not true.
    """
    opset = graph.opset_imports.get("", 0)
    for node in list(graph.all_nodes()):
        x, perm = node.inputs[0] if node.inputs else None, attribute(node, "perm")
        if node.op_type != "Transpose" or node.domain or x is None or perm is None:
            continue
        shape = shape_of(x)
        if shape is None or node.graph is None or perm == sorted(perm):
            continue
        moved = [axis for axis in perm if shape[axis] != 1]
        sizes = [
            size if isinstance(size := shape[axis], int) else 0 if axis == place else -1
            for place, axis in enumerate(perm)
        ]
        if moved != sorted(moved) or sizes.count(-1) > 1 or 0 in shape:
            continue
        x, sizes = _past_reshape(x, sizes)
        b = Builder(node.graph, opset, prefix=f"{node.name}/turned")
        target = b.ints(*sizes)
        node.replace_input_with(0, x)
        node.op_type = "Reshape"
        node.attributes.clear()
        node.resize_inputs(2)
        node.replace_input_with(1, target)


def _past_reshape(x: ir.Value, sizes: list[int]) -> tuple[ir.Value, list[int]]:
    """Returns what a Reshape to `sizes` may read and give instead, where x is a Reshape itself."""
    made_by = x.producer()
    if made_by is None or made_by.op_type != "Reshape" or made_by.domain:
        return x, sizes
    earlier, target = made_by.inputs[0], constant_of(made_by.inputs[1])
    if earlier is None or target is None or attribute(made_by, "allowzero", 0):
        return x, sizes
    # A size that is copied from x is what x has it from.
    copied = [int(target[i]) if size == 0 else size for i, size in enumerate(sizes)]
    return (x, sizes) if copied.count(-1) > 1 else (earlier, copied)


def fix_groups(graph: ir.Graph) -> None:
    """Gives every Conv the number of groups that its kernel is made for.

    tf2onnx leaves it out of convolutions in three dimensions. Needs shapes inferred.
    """
    for node in graph.all_nodes():
        if node.op_type != "Conv" or node.domain:
            continue
        data, kernel = (None if v is None else shape_of(v) for v in node.inputs[:2])
        if data is None or kernel is None:
            continue
        channels, each = data[1], kernel[1]
        if isinstance(channels, int) and isinstance(each, int) and each:
            node.attributes["group"] = ir.AttrInt64("group", channels // each)


def fix_empty_inputs(graph: ir.Graph) -> None:
    """Leaves out the optional inputs of a Resize that are there without elements.

    tf2onnx writes empty scales beside sizes. ONNX allows that, but takes them for scales where
    they come from outside the branch of an If, in which their content is not seen.
    """
    for node in graph.all_nodes():
        if node.op_type != "Resize" or node.domain:
            continue
        for position, value in list(enumerate(node.inputs))[1:]:
            content = constant_of(value)
            if content is not None and content.size == 0:
                node.replace_input_with(position, None)


def fix_boolean_eyes(graph: ir.Graph) -> None:
    """Casts identity matrices of truth values, which onnxruntime makes of numbers alone.

    `EyeLike<dtype=BOOL>(x)` -> `Cast<to=BOOL>(EyeLike<dtype=FLOAT>(x))`
    """
    for node in list(graph.all_nodes()):
        owner = node.graph
        boolean = attribute(node, "dtype") == ir.DataType.BOOL
        if node.op_type != "EyeLike" or not boolean or not isinstance(owner, ir.Graph):
            continue
        numbers = node.outputs[0]
        cast = ir.node("Cast", [numbers], {"to": ir.DataType.BOOL}, name=f"{node.name}/boolean")
        cast.outputs[0].name = f"{numbers.name}/boolean"
        cast.outputs[0].shape, cast.outputs[0].dtype = numbers.shape, ir.DataType.BOOL
        numbers.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
        cast.replace_input_with(0, numbers)
        node.attributes["dtype"] = ir.AttrInt64("dtype", ir.DataType.FLOAT)
        numbers.dtype = ir.DataType.FLOAT
        owner.insert_after(node, cast)


def fix_scales(graph: ir.Graph) -> bool:
    """Gives a Resize sizes for scales where the precision of a product decides what they give.

    tf2onnx writes 7/12 in 32 bits, a little less than that. Twelve times as much is 7 where a
    runtime multiplies in 32 bits, and 6 in shape inference; eleven times 13/11 is 12 in both.
    Needs shapes inferred.

    Sizes are given for all axes, the open ones from the image, and not by the attribute `axes`
    for some: where onnxruntime moves a Transpose past a Resize it reorders the sizes as if there
    was one for every axis.

    The nearest neighbour is told in a way that ONNX still has.

    Returns:
        Whether anything changed; shapes behind it are wrong then, and have to be inferred anew.
    """
    changed = False
    for node in list(graph.all_nodes()):
        if node.op_type != "Resize" or node.domain:
            continue
        _tell_nearest(node)
        scales = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        shape = None if node.inputs[0] is None else shape_of(node.inputs[0])
        if scales is None or shape is None or scales.size != len(shape):
            continue
        axes = [axis for axis, scale in enumerate(scales) if scale != 1]
        numbers = [size for axis in axes if isinstance(size := shape[axis], int)]
        if len(numbers) < len(axes):
            continue
        meant = [_meant(float(scales[a]) * n) for a, n in zip(axes, numbers, strict=True)]
        rough = [math.floor(scales[a] * np.float32(n)) for a, n in zip(axes, numbers, strict=True)]
        exact = [math.floor(float(scales[a]) * n) for a, n in zip(axes, numbers, strict=True)]
        if not meant == rough == exact:
            _resize_to(node, dict(zip(axes, meant, strict=True)), graph.opset_imports.get("", 0))
            changed = True
    return changed


def _tell_nearest(node: ir.Node) -> None:
    """Writes `tf_half_pixel_for_nn`, which ONNX dropped with operator set 13, as it can be said.

    The floor of t is the whole number next to t - 1/2, the upper one of two.
    """
    if attribute(node, "coordinate_transformation_mode") != "tf_half_pixel_for_nn":
        return
    said = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"}
    node.attributes.update((name, ir.AttrString(name, value)) for name, value in said.items())


def _meant(size: float) -> int:
    """Returns the size that a product with a scale of 32 bits stands for."""
    whole = round(size)
    return whole if abs(size - whole) <= whole * np.finfo(np.float32).eps else math.floor(size)


def _resize_to(node: ir.Node, sizes: Mapping[int, int], opset: int) -> None:
    """Replaces the scales of a Resize by sizes: axis -> size, others as they come."""
    x, graph = node.inputs[0], node.graph
    if x is None or graph is None:
        raise ValueError("a Resize has an input and stands in a graph")
    b = Builder(graph, opset, prefix=f"{node.name}/resized")
    pieces = [b.ints(sizes[i]) if i in sizes else b.size(x, i) for i in range(rank_of(x))]
    target = b.concat(pieces, axis=0)
    b.insert_before(node)
    node.resize_inputs(4)
    node.replace_input_with(2, None)
    node.replace_input_with(3, target)
    # Where the whole image stands for the region, as here, it may be left out.
    node.replace_input_with(1, None)
