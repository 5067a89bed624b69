"""An estimate of how long nodes run, from their multiply-adds and the bytes they move.

A few constants stand for a machine: what they say of the ratio of two graphs depends on their
proportions alone. They were read off onnxruntime's own profiles (version 1.32, CPU, 2 threads on
a 2-core x86-64 machine, float32, batch 1) of VGG16, ResNet50, MobileNetV2, EfficientNetB0,
ConvNeXtTiny and an encoder of BERT's width, plain and explained. There dense convolutions and
matrix products ran at 50 to 200 billion multiply-adds a second; depthwise convolutions,
products with a vector and everything elementwise moved 15 to 50 billion bytes a second. What a
node costs beside its work was read off small recurrent models, whose steps are hardly more. Steps
read the same weights again and again, from the processor's cache as long as they fit: LSTM, GRU and
RNN of 128 units take 2.1 to 2.6 microseconds a step (`python -m bench recurrent`, one thread).
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from probegen.cost.counts import FREE, STEPWISE, Work
from probegen.graph.core.values import static_shape

MULTIPLY_ADDS_PER_SECOND = 150e9
BYTES_PER_SECOND = 25e9
SECONDS_PER_NODE = 0.7e-6
#: What it costs to hand a node's work to threads, which is done from some size on.
SECONDS_PER_HANDOVER = 4e-6
BYTES_OF_A_HANDOVER = 2**16

#: What one step of a fused recurrent operator costs beside the weights that it reads.
SECONDS_PER_STEP = 1.5e-6
#: Of what is read again at each step, and of which so much stays in a cache.
CACHED_BYTES_PER_SECOND = 200e9
BYTES_OF_A_CACHE = 2**20
#: A product of fewer multiply-adds is done by one thread.
MULTIPLY_ADDS_OF_A_HANDOVER = 2**16

#: What onnxruntime does within the convolution before it.
_FUSED = frozenset({"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})


def seconds(works: Sequence[Work]) -> float:
    """Returns the estimated time of the work of some nodes that are run together."""
    together = {w.node for w in works}
    return sum(_seconds(w, together) for w in works)


def _seconds(work: Work, together: set[ir.Node]) -> float:
    if work.node.op_type in FREE or _is_fused(work.node, together):
        return 0.0
    steps = _steps(work.node)
    once = SECONDS_PER_NODE if steps == 1 else SECONDS_PER_STEP * steps
    if _is_handed_over(work, steps):
        once += SECONDS_PER_HANDOVER
    again = work.times > 1 or steps > 1
    cached = again and work.bytes / steps <= BYTES_OF_A_CACHE
    once += work.bytes / (CACHED_BYTES_PER_SECOND if cached else BYTES_PER_SECOND)
    return work.times * (once + work.multiply_adds / MULTIPLY_ADDS_PER_SECOND)


def _is_handed_over(work: Work, steps: int) -> bool:
    """Tells whether a node's work is divided between threads."""
    if work.multiply_adds:
        return work.multiply_adds / steps > MULTIPLY_ADDS_OF_A_HANDOVER
    return work.bytes >= BYTES_OF_A_HANDOVER


def _steps(node: ir.Node) -> int:
    """Returns how often an operator goes over its weights in one run."""
    shape = static_shape(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
    return shape[0] if node.op_type in STEPWISE and shape else 1


def _is_fused(node: ir.Node, together: set[ir.Node]) -> bool:
    """Tells whether a runtime computes a node as part of the one before or behind it."""
    value = node.inputs[0] if node.inputs else None
    if value is None or node.domain:
        return False
    before = value.producer()
    if node.op_type == "Sigmoid" and _is_swish(node, value, together):
        return True
    convolved = before is not None and before.op_type == "Conv"
    return convolved and node.op_type in _FUSED and _readers(value, together) == [node]


def _is_swish(node: ir.Node, value: ir.Value, together: set[ir.Node]) -> bool:
    """Tells whether a sigmoid is only there to be multiplied by what it is taken of."""
    readers = _readers(node.outputs[0], together)
    return len(readers) == 1 and readers[0].op_type == "Mul" and value in readers[0].inputs


def _readers(value: ir.Value, together: set[ir.Node]) -> list[ir.Node]:
    return [node for node, _ in value.uses() if node in together]
