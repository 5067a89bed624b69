"""The attention weights that a layer applies, taken from where it applies them.

Asking a Keras layer for `return_attention_scores=True` changes what it computes: it leaves its
fused path for an explicit one, which treats fully masked rows in another way (a row of zeros
instead of equal weights), so that the prediction changes with it. So nothing is asked for. The
weights are the result of the softmax inside the call, whichever path it took.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from probegen.instrumentation.capture import CallKey, LayerCall
from probegen.instrumentation.roles import role_of

_KERAS_LAYERS = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
_MIN_RANK = 3  # batch, query, key
_PAIR = 2


def attention_weights(graph: Any, calls: Sequence[LayerCall]) -> dict[CallKey, Any]:
    """Returns the weights of every call of an attention layer that shows some.

    Custom layers that return a pair `(output, weights)` are taken at their word, whatever they
    are called; other custom attention layers count where exactly one softmax stands in them.

    Args:
        graph: the graph that the calls were traced in.
        calls: the layer calls in the order in which they begin.

    Returns:
        Layer call -> weights, `[batch, head, query, key]` or `[batch, query, key]`.
    """
    operations = graph.get_operations()
    found = {}
    for call in calls:
        if role_of(call.layer) in ("attention", "other"):
            weights = _weights(call, calls, operations)
            if weights is not None and getattr(weights, "graph", None) is graph:
                found[call.path, call.index] = weights
    return found


def _weights(call: LayerCall, calls: Sequence[LayerCall], operations: Sequence[Any]) -> Any:
    if not isinstance(call.layer, _KERAS_LAYERS):
        if len(call.outputs) == _PAIR:
            return call.outputs[1]
        if role_of(call.layer) == "other":
            return None
    inside = [
        c
        for c in calls
        if c is not call and call.first_op <= c.first_op and c.last_op <= call.last_op
    ]
    of_layers = [
        c.outputs[0] for c in inside if isinstance(c.layer, keras.layers.Softmax) and c.outputs
    ]
    covered = {n for c in inside for n in range(c.first_op, c.last_op)}
    direct = [
        operations[n].outputs[0]
        for n in range(call.first_op, call.last_op)
        if n not in covered and operations[n].type == "Softmax"
    ]
    wide = [t for t in (*of_layers, *direct) if t.shape.rank is None or t.shape.rank >= _MIN_RANK]
    return wide[0] if len(wide) == 1 else None
