"""What tf2onnx writes wrongly and no handler of a single operation can prevent, put right."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from probegen.graph.builder import attribute, constant_of, shape_of


def mend_negative_padding(graph: ir.Graph) -> None:
    """Writes the negative padding of a ConvTranspose as output padding.

    tf2onnx writes it where the stride is larger than the kernel, for the last rows and columns
    that no input reaches; ONNX knows none. Needs no shapes.
    """
    for node in graph.all_nodes():
        if node.op_type != "ConvTranspose":
            continue
        pads = attribute(node, "pads", [])
        ends = pads[len(pads) // 2 :]
        if not any(p < 0 for p in ends):
            continue
        before = attribute(node, "output_padding", [0] * len(ends))
        added = [old + max(-p, 0) for old, p in zip(before, ends, strict=True)]
        kept = [*pads[: len(ends)], *(max(p, 0) for p in ends)]
        node.attributes["pads"] = ir.AttrInt64s("pads", kept)
        node.attributes["output_padding"] = ir.AttrInt64s("output_padding", added)


def mend_groups(graph: ir.Graph) -> None:
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


def mend_scales(graph: ir.Graph) -> bool:
    """Gives a Resize sizes for scales where the precision of a product decides what they give.

    tf2onnx writes 7/12 in 32 bits, a little less than that. Twelve times as much is 7 where a
    runtime multiplies in 32 bits, and 6 in shape inference. Needs shapes inferred. Before opset
    18 sizes have to be given for the open batch too, and the scales stay.

    Returns:
        Whether anything changed; shapes behind it are wrong then, and have to be inferred anew.
    """
    changed = False
    for node in graph.all_nodes():
        if node.op_type != "Resize" or node.domain or graph.opset_imports.get("", 0) < 18:
            continue
        given = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        shape = None if node.inputs[0] is None else shape_of(node.inputs[0])
        if given is None or shape is None or given.size != len(shape) or node.graph is None:
            continue
        axes = [axis for axis, scale in enumerate(given) if scale != 1]
        known = [size for axis in axes if isinstance(size := shape[axis], int)]
        rough = [math.floor(given[a] * np.float32(n)) for a, n in zip(axes, known, strict=False)]
        exact = [math.floor(float(given[a]) * n) for a, n in zip(axes, known, strict=False)]
        if len(known) == len(axes) and rough != exact:
            _resize_to(node, node.graph, axes, rough)
            changed = True
    return changed


def _resize_to(node: ir.Node, graph: ir.Graph, axes: list[int], sizes: list[int]) -> None:
    """Replaces the scales of a Resize by sizes of some axes."""
    name = f"{node.outputs[0].name}/sizes"
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([len(sizes)]),
        const_value=ir.Tensor(np.array(sizes, np.int64), name=name),
    )
    graph.register_initializer(value)
    node.resize_inputs(4)
    node.replace_input_with(2, None)
    node.replace_input_with(3, value)
    # Where the whole image stands for the region, as here, it may be left out.
    node.replace_input_with(1, None)
    node.attributes["axes"] = ir.AttrInt64s("axes", axes)
