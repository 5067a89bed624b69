"""The attention weights that a layer applies, taken from where it applies them.

Asking a Keras layer for `return_attention_scores=True` changes what it computes: it leaves its
fused path for an explicit one, which treats fully masked rows in another way (a row of zeros
instead of equal weights), so that the prediction changes with it. So nothing is asked for. The
weights are the result of the softmax inside the call, whichever path it took.

What a layer returns, or what it is called, proves nothing: an encoder returns `(output, state)`.
Weights are attention where the graph shows that they weigh values: a softmax whose result is
multiplied with something computed from the input and summed over the axis that adds up to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from probegen.errors import InstrumentError, SpecError
from probegen.plan.plan import CallKey
from probegen.sources.keras.capture import LayerCall
from probegen.sources.keras.links import constant, contracted, links
from probegen.sources.keras.roles import role_of

#: Layer, its flat inputs, its flat outputs -> the weights.
Capture = Callable[[Any, Sequence[Any], Sequence[Any]], Any]

_KERAS_LAYERS = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
_MIN_RANK = 2  # batch, key
#: Layers that do a step of what stands around them; weights are named after the layer around.
_PARTS = frozenset({"activation", "dense", "regularisation", "reshaping", "model"})
#: Operations that weights pass unchanged, but for the order and number of axes.
_PASS = frozenset(
    {
        "BroadcastTo",
        "Cast",
        "CheckNumerics",
        "ConcatV2",
        "ExpandDims",
        "Identity",
        "IdentityN",
        "Pack",
        "PreventGradient",
        "Reshape",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "Tile",
        "Transpose",
    }
)
_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})
_TIMES = frozenset({"Mul", "MulNoNan"})
_OVER = frozenset({"RealDiv", "DivNoNan", "Div"})
_SUMS = frozenset({"Sum", "Mean"})
#: What stands between a sum and a division by it: an epsilon against zero.
_GUARDS = frozenset({"AddV2", "Add", "Maximum", "Identity", "Cast"})
#: Operations followed from one softmax; weights are applied close to where they are made.
_MOST_STEPS = 200

_registered: dict[type, Capture] = {}


def register_attention(layer_class: type, capture: Capture) -> None:
    """Says where the attention weights of a layer are that applies them without a softmax.

    Args:
        layer_class: a class of layers; it holds for its subclasses as well.
        capture: called with the layer, its flat inputs and its flat outputs, all symbolic, while
            the model is traced; returns the weights, `[batch, ..., query, key]`. To take weights
            that the layer returns: `lambda layer, inputs, outputs: outputs[1]`.

    Raises:
        SpecError: this is no class of layers, or `capture` cannot be called.
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise SpecError(f"register_attention takes a class of Keras layers, got {layer_class!r}.")
    if not callable(capture):
        raise SpecError(
            "register_attention takes a function of (layer, inputs, outputs) that returns the "
            f"weights, got {capture!r}."
        )
    _registered[layer_class] = capture


class _Softmax(NamedTuple):
    """Weights that add up to one along some axes."""

    tensor: Any
    keys: frozenset[int]


def attention_weights(
    graph: Any, calls: Sequence[LayerCall], inputs: Sequence[Any]
) -> dict[CallKey, Any]:
    """Returns the weights of every call of a layer that applies some.

    Args:
        graph: the graph that the calls were traced in.
        calls: the layer calls in the order in which they begin.
        inputs: the model's inputs.

    Returns:
        Layer call -> weights, see `key_axes` for which axis is which.
    """
    operations = graph.get_operations()
    softmaxes: dict[CallKey, list[_Softmax]] = {}
    by_key = {(c.path, c.index): c for c in calls}
    for position, op in enumerate(operations):
        made = _softmax(op)
        owner = made and _owner(calls, graph, position)
        if made and owner:
            softmaxes.setdefault((owner.path, owner.index), []).append(made)
    values = _Values(graph, inputs)
    found = {}
    for key, candidates in softmaxes.items():
        weights = _weights(by_key[key], candidates, values)
        if weights is not None:
            found[key] = weights
    for call in calls:
        capture = next((c for t, c in _registered.items() if isinstance(call.layer, t)), None)
        if capture is not None and all(getattr(t, "graph", None) is graph for t in call.outputs):
            with graph.as_default():
                found[call.path, call.index] = _captured(capture, call)
    return {key: found[key] for key in by_key if key in found}


def applied(weights: Any) -> Any:
    """Returns attention weights as they lie on the way: a copy that is returned lies beside it."""
    while weights.op.type in ("Identity", "IdentityN"):
        weights = weights.op.inputs[weights.value_index]
    return weights


def key_axes(weights: Any) -> tuple[int, ...]:
    """Returns the axes of attention weights that a softmax sums over; empty if unknown."""
    made = _softmax(weights.op) if weights is weights.op.outputs[0] else None
    if made is not None:
        return tuple(sorted(made.keys))
    if weights.op.type not in _PASS | _TIMES:
        return ()
    for link in links(weights.op):
        if link.result is weights and link.operand is not weights:
            before = key_axes(link.operand)
            after = {b for a, b in link.pairs if a in before}
            if before and len(after) == len(before):
                return tuple(sorted(after))
    return ()


def _captured(capture: Capture, call: LayerCall) -> Any:
    weights = capture(call.layer, tuple(call.inputs), tuple(call.outputs))
    if not tf.is_tensor(weights) or (weights.shape.rank or 0) < _MIN_RANK:
        raise InstrumentError(
            f"what register_attention was given for {type(call.layer).__name__} returns "
            f"{weights!r} for layer {call.path!r}; attention weights are a tensor "
            "[batch, ..., query, key]."
        )
    return weights


def _weights(call: LayerCall, candidates: Sequence[_Softmax], values: _Values) -> Any:
    """Returns the one tensor of weights that a layer applies, or None."""
    if isinstance(call.layer, _KERAS_LAYERS):
        return candidates[0].tensor if len(candidates) == 1 else None
    applied = [c for c in candidates if values.weighed_by(c)]
    returned = [t for t in call.outputs if any(comes_from(t, c.tensor) for c in applied)]
    if returned:
        return returned[0]
    return applied[0].tensor if len(applied) == 1 else None


def _owner(calls: Sequence[LayerCall], graph: Any, position: int) -> LayerCall | None:
    """Returns the layer call that an operation's weights belong to."""
    around = [
        c
        for c in calls
        if c.first_op <= position < c.last_op
        and not c.step_of
        and any(getattr(t, "graph", None) is graph for t in c.outputs)
    ]
    layers = [c for c in around if role_of(c.layer) not in _PARTS]
    models = [c for c in around if role_of(c.layer) != "model"]
    found = layers or models
    return found[-1] if found else None


def comes_from(tensor: Any, weights: Any) -> bool:
    """Tells whether a tensor is given weights, in another shape or element type perhaps."""
    for _ in range(_MOST_STEPS):
        if tensor is weights:
            return True
        if getattr(tensor, "op", None) is None or tensor.op.type not in _PASS:
            return False
        tensor = tensor.op.inputs[list(tensor.op.outputs).index(tensor)]
    return False


# -- softmaxes ---------------------------------------------------------------------------------


def _softmax(op: Any) -> _Softmax | None:
    """Returns what an operation makes if that adds up to one: a softmax, written out or not."""
    if op.type == "Softmax":
        rank = op.outputs[0].shape.rank
        made = _Softmax(op.outputs[0], frozenset({rank - 1} if rank else ()))
    elif op.type in _OVER:
        made = _Softmax(op.outputs[0], _normalised(op))
    elif op.type == "Exp":
        made = _Softmax(op.outputs[0], _over_several(op))
    else:
        return None
    return made if made.keys and made.tensor.shape.rank >= _MIN_RANK else None


def _normalised(op: Any) -> frozenset[int]:
    """Returns the axes of `a / sum(a)` where `a` are exponentials, masked perhaps."""
    total = op.inputs[1].op
    while total.type in _GUARDS:
        total = total.inputs[0].op
    above = op.inputs[0]
    if total.type != "Sum" or total.inputs[0] is not above:
        return frozenset()
    made = above.op
    for _ in range(_MOST_STEPS):
        if made.type == "Exp":
            rank = above.shape.rank or 0
            return frozenset(a % rank for a in constant(total.inputs[1]) or () if rank)
        if made.type not in _PASS | _TIMES:
            break
        made = made.inputs[0].op
    return frozenset()


def _over_several(op: Any) -> frozenset[int]:
    """Returns the axes of `exp(x - logsumexp(x))`, Keras's softmax over several axes."""
    difference = op.inputs[0].op
    if difference.type != "Sub":
        return frozenset()
    scores, total = difference.inputs
    made = total.op
    if made.type in ("AddV2", "Add"):
        made = next((t.op for t in made.inputs if t.op.type == "Log"), made)
    if made.type != "Log" or total.shape.rank != scores.shape.rank or not total.shape.rank:
        return frozenset()
    return frozenset(i for i in range(1, total.shape.rank) if total.shape[i] == 1)


# -- what they are applied to ------------------------------------------------------------------


class _Values:
    """Tells whether weights are applied to values: to something computed from the input."""

    def __init__(self, graph: Any, inputs: Sequence[Any]) -> None:
        self._operations = graph.get_operations()
        self._computed = self._influenced(inputs)

    def weighed_by(self, made: _Softmax) -> bool:
        """Follows weights until they are summed up with values along the keys, or lost."""
        own = self._influenced([made.tensor])
        pending = [(made.tensor, made.keys, False)]
        for _ in range(_MOST_STEPS):
            if not pending:
                return False
            tensor, keys, weighed = pending.pop(0)
            for op in tensor.consumers():
                for position, operand in enumerate(op.inputs):
                    if operand is not tensor:
                        continue
                    if self._summed(op, position, keys, weighed, own):
                        return True
                    pending += self._onwards(op, position, keys, weighed, own)
        return False

    def _summed(
        self, op: Any, position: int, keys: frozenset[int], weighed: bool, own: set[int]
    ) -> bool:
        if op.type in _SUMS and weighed and position == 0:
            over, rank = constant(op.inputs[1]), op.inputs[0].shape.rank
            return bool(over) and keys <= {a % rank for a in over or ()}
        if op.type in _PRODUCTS and len(op.inputs) == 2 and not weighed:
            valued = self._are_values(op.inputs[1 - position], own)
            return valued and keys <= set(contracted(op, position))
        return False

    def _onwards(
        self, op: Any, position: int, keys: frozenset[int], weighed: bool, own: set[int]
    ) -> Iterator[tuple[Any, frozenset[int], bool]]:
        """Returns where weights, or weighed values, go on to with their keys."""
        if op.type in _TIMES:
            weighed = weighed or self._are_values(op.inputs[1 - position], own)
        elif op.type in _OVER:
            if position:
                return
        elif op.type not in _PASS | _PRODUCTS | {"Select", "SelectV2"}:
            return
        for link in links(op):
            if link.operand is op.inputs[position]:
                after = frozenset(b for a, b in link.pairs if a in keys)
                if len(after) == len(keys):
                    yield link.result, after, weighed

    def _are_values(self, tensor: Any, own: set[int]) -> bool:
        """Tells values from masks, from weights of the model, and from the softmax itself."""
        if id(tensor) not in self._computed or id(tensor) in own:
            return False
        op = tensor.op
        for _ in range(_MOST_STEPS):
            if op.type == "Cast" and not op.inputs[0].dtype.is_floating:
                return False  # a mask, or lengths
            if op.type == "Sub" and tf.get_static_value(op.inputs[0]) is not None:
                op = op.inputs[1].op  # one minus a mask
            elif op.type in _PASS and op.inputs:
                op = op.inputs[0].op
            else:
                break
        return bool(tensor.dtype.is_floating)

    def _influenced(self, starts: Sequence[Any]) -> set[int]:
        reached = {id(t) for t in starts}
        for op in self._operations:
            if any(id(t) in reached for t in op.inputs):
                reached.update(id(t) for t in op.outputs)
        return reached
