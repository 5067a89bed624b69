"""What goes into the softmax or sigmoid that a tensor comes out of."""

from __future__ import annotations

from typing import Any

_FINAL_ACTIVATIONS = frozenset({"Softmax", "Sigmoid"})
#: Operations behind a softmax or sigmoid that leave its axes and meaning.
PASSES_THROUGH = frozenset({"Identity", "Cast"})


def pre_activation(tensor: Any) -> Any | None:
    """Returns what went into the softmax or sigmoid that made `tensor`, or None.

    Keras leaves the logits on the tensors that its activations return; where the activation was
    called in another way, the operation that made the tensor tells.
    """
    logits = getattr(tensor, "_keras_logits", None)
    if logits is not None and getattr(logits, "graph", None) is tensor.graph:
        return logits
    op = tensor.op
    while op.type in PASSES_THROUGH and op.inputs[0].dtype.is_floating:
        source = op.inputs[0]
        if getattr(source, "_keras_logits", None) is not None:
            return source._keras_logits
        op = source.op
    return op.inputs[0] if op.type in _FINAL_ACTIVATIONS else None
