"""A maximum pads for itself.

tf2onnx writes zero padding before a maximum as an operator of its own, which takes onnxruntime out
of the blocked layout of its convolutions.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.values import attribute
from probegen.graph.passes.per_channel import zero_padding_of

#: Operators whose output is nowhere below 0.
_NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softplus"})


def pad_within_max_pool(model: ir.Model) -> None:
    """Lets a MaxPool pad for itself where zeros around images that are not negative say nothing.

    `MaxPool(Pad(Relu(x), [0, 0, 1, 0, 0, 0, 0, 1]))` -> `MaxPool<pads=[1, 0, 0, 1]>(Relu(x))`

    A padded zero ties with zeros of the images alone. Those come from a rectifier, or one like it,
    and pass no gradient, whoever wins. A MaxPool never chooses its own padding, so that every
    window has to cover an element of the image.

    Leaves: the Pad, which nothing may need any more.
    """
    for node in list(model.graph):
        padded = node.inputs[0] if node.op_type == "MaxPool" and not node.domain else None
        pad = None if padded is None else padded.producer()
        widths = None if pad is None else zero_padding_of(pad)
        if pad is None or widths is None or len(node.outputs) > 1:
            continue
        images = pad.inputs[0]
        producer = None if images is None else images.producer()
        if producer is None or producer.domain or producer.op_type not in _NOT_NEGATIVE:
            continue
        if _takes_padding(node, widths):
            node.attributes.pop("auto_pad", None)
            node.attributes["pads"] = ir.AttrInt64s("pads", widths)
            node.replace_input_with(0, images)


def _takes_padding(pool: ir.Node, widths: list[int]) -> bool:
    """Tells whether a pooling has no padding of its own, and windows wider than this padding."""
    kernel = attribute(pool, "kernel_shape")
    return (
        all(width < size for width, size in zip(widths, [*kernel, *kernel], strict=True))
        and not any(attribute(pool, "pads") or ())
        and attribute(pool, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and not attribute(pool, "ceil_mode", 0)
        and all(d == 1 for d in attribute(pool, "dilations", [1]))
    )
