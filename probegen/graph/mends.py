"""What tf2onnx writes wrongly and no handler of a single operation can prevent, put right."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.builder import attribute, shape_of


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
