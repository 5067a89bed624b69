"""The attention weights that layers apply, taken from where they apply them.

Asking a Keras layer for `return_attention_scores=True` changes what it computes: it leaves its
fused path for an explicit one, which treats fully masked rows in another way (a row of zeros
instead of equal weights), so that the prediction changes with it. So nothing is asked for. The
weights are what the call multiplies its values with, whichever path it took; see `weighing`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.errors import InstrumentError, SpecError
from probegen.plan.plan import ATTENTION, CallKey, TensorRef
from probegen.plan.positions import Positions
from probegen.sources.keras.attention_in_loops import Looped
from probegen.sources.keras.inner_tensors import number_in_call
from probegen.sources.keras.layer_calls import LayerCall, as_fed
from probegen.sources.keras.positions import follow_graph
from probegen.sources.keras.roles import role_of
from probegen.sources.keras.softmaxes import key_axes
from probegen.sources.keras.timewise import has_rows, unfolded
from probegen.sources.keras.weighing import applied_weights

#: Layer, its flat inputs, its flat outputs -> the weights.
Capture = Callable[[Any, Sequence[Any], Sequence[Any]], Any]

_MIN_RANK = 2  # batch, key
#: Layers that do a step of what stands around them; weights are named after the layer around.
_PARTS = frozenset({"activation", "dense", "regularisation", "reshaping", "model"})
#: Operations that hand on what they are given, all of it, in another shape or type perhaps.
_SAME = frozenset(
    {"Cast", "CheckNumerics", "ExpandDims", "Identity", "IdentityN", "PreventGradient"}
    | {"Reshape", "Squeeze", "StopGradient", "StridedSlice", "Transpose"}
)
_UNTURNED = _SAME - {"Transpose"}
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


@dataclasses.dataclass(frozen=True)
class Weights:
    """Attention weights that a layer call applies.

    Attributes:
        tensor: the weights as they are given out.
        keys: the axes that the softmax sums over; empty where nobody knows.
        steps: how many axes of time stand behind the batch.
        windows: how many axes behind the batch the model joins with it.
        applied: the weights as they lie on the way to the outputs; None inside a loop.
        applied_keys: the axes of these that are summed over.
        ref: what these are called in every trace; None inside a loop.
    """

    tensor: Any
    keys: tuple[int, ...]
    steps: int = 0
    windows: int = 0
    applied: Any = None
    applied_keys: tuple[int, ...] = ()
    ref: TensorRef | None = None


@dataclasses.dataclass(frozen=True)
class Attention:
    """All attention weights of one trace.

    Attributes:
        weights: layer call -> what it applies, in the order of the softmaxes.
        outside: calls that stand for what no layer is around, each with its weights for an output:
            an operation of a functional model, or some in a model's own call.
    """

    weights: Mapping[CallKey, Sequence[Weights]]
    outside: Sequence[LayerCall]

    def at(self, ref: TensorRef) -> Any:
        """Returns the weights on the way that a reference means, None where there are none."""
        return next((w.applied for w in self.weights.get(ref.key, ()) if w.ref == ref), None)


def attention_of(
    graph: Any,
    calls: Sequence[LayerCall],
    operations: Sequence[LayerCall],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    looped: Sequence[Looped] = (),
    first: int = 0,
    loops: Sequence[range] = (),
) -> Attention:
    """Returns the weights of every call of a layer that applies some.

    Args:
        graph: the graph that the calls were traced in.
        calls: the layer calls in the order in which they begin.
        operations: calls of Keras operations that are no layers, likewise.
        inputs: the model's inputs.
        outputs: the model's outputs.
        looped: weights of each step of loops.
        first: how many operations the graph had before the model.
        loops: where the operations of loops stand, which no weights are counted by.
    """
    made = graph.get_operations()
    of_loops = {made[position] for loop in loops for position in loop}
    places = _Places(graph, calls, operations)
    positions: Positions | None = None
    found: dict[CallKey, list[tuple[int, Weights]]] = {}
    for one in applied_weights(made, inputs, outputs):
        call = places.owner(one.position)
        start, end = (call.first_op, call.last_op) if call.layer_is_around else (first, len(made))
        within = None if call.layer_is_around else ("", 0)
        ref = _ref(call, made[start:end], of_loops, one.tensor, within)
        # What is returned turned round would lie in another order than gradients at the weights.
        given = next((t for t in call.outputs if _is_same(t, one.tensor, _UNTURNED)), one.tensor)
        keys = one.keys if given is one.tensor else key_axes(given)
        weights = _in_steps(graph, call, Weights(given, keys, 0, 0, one.tensor, one.keys, ref))
        if not call.folds:
            positions = positions or follow_graph(graph, [(t, 0, None) for t in inputs], {}, True)
            weights = _in_windows(graph, weights, positions.beside_batch(id(given)))
        found.setdefault((call.path, call.index), []).append((one.position, weights))
    for loop in looped:
        call = places.owner(loop.position)
        weights = Weights(loop.tensor, loop.keys, loop.steps)
        found.setdefault((call.path, call.index), []).append((loop.position, weights))
    weights_of: dict[CallKey, list[Weights]] = {}
    for key, each in found.items():
        in_order = [weights for _, weights in sorted(each, key=lambda pair: pair[0])]
        weights_of[key] = _of_unrolled(graph, places.calls.get(key), in_order)
    for call in calls:
        capture = next((c for t, c in _registered.items() if isinstance(call.layer, t)), None)
        if capture is not None and all(getattr(t, "graph", None) is graph for t in call.outputs):
            with graph.as_default():
                tensor = _captured(capture, call)
                keys = key_axes(tensor)
                ref = _ref(call, made[call.first_op : call.last_op], of_loops, tensor)
                taken = Weights(tensor, keys, 0, 0, tensor, keys, ref)
                weights_of[call.path, call.index] = [_in_steps(graph, call, taken)]
    outside = [c for c in places.outside if (c.path, c.index) in weights_of]
    for call in outside:
        call.outputs = [w.tensor for w in weights_of[call.path, call.index]]
    order = [*calls, *outside]
    return Attention(
        {k: weights_of[k] for c in order if (k := (c.path, c.index)) in weights_of}, outside
    )


def _ref(
    call: LayerCall,
    inside: Sequence[Any],
    of_loops: Collection[Any],
    weights: Any,
    within: CallKey | None = None,
) -> TensorRef | None:
    """Returns what weights are called in every trace, None where a loop makes them.

    Args:
        call: whose they are.
        inside: the operations that they are counted among.
        of_loops: operations that do not count.
        weights: the weights.
        within: what is counted in, where it is not the call.
    """
    if weights.op in of_loops:
        return None
    number = number_in_call([op for op in inside if op not in of_loops], weights.op)
    return TensorRef(call.path, call.index, number, ATTENTION, weights.op.type, within)


def _of_unrolled(graph: Any, call: LayerCall | None, found: list[Weights]) -> list[Weights]:
    """Returns weights that a recurrent layer writes anew for each step as those of all steps."""
    if call is None or not isinstance(call.layer, keras.layers.RNN) or not call.layer.unroll:
        return found
    time = call.inputs[0].shape[1]
    count = len(found) // time
    if count * time != len(found):
        return found
    with graph.as_default():
        stacked = [tf.stack([w.tensor for w in found[i::count]], 1) for i in range(count)]
        return [
            Weights(
                as_fed(call.layer, call.mask, time, tensor), tuple(k + 1 for k in found[i].keys), 1
            )
            for i, tensor in enumerate(stacked)
        ]


def _in_windows(graph: Any, weights: Weights, sizes: Sequence[int]) -> Weights:
    """Returns weights with axes for what their first axis joins with the samples: windows, heads.

    Args:
        graph: the graph.
        weights: the weights.
        sizes: of what is joined; none where the samples are alone.
    """
    tensor, count = weights.tensor, len(sizes)
    if not count or tensor.shape[0] is not None:
        return weights
    with graph.as_default():
        rest = keras.ops.shape(tensor)[1:]
        apart = tf.reshape(tensor, [-1, *sizes, *rest])
    apart.set_shape([None, *sizes, *tensor.shape[1:]])
    keys = tuple(k + count for k in weights.keys)
    return dataclasses.replace(weights, tensor=apart, keys=keys, windows=count)


def _in_steps(graph: Any, call: LayerCall, weights: Weights) -> Weights:
    """Returns weights with an axis for each length that is folded into their batch."""
    if not call.folds or not has_rows(weights.tensor, call.folds):
        return weights
    count = len(call.folds)
    if call.in_steps and any(t is weights.tensor for t in call.outputs):
        apart = weights.tensor
    else:
        with graph.as_default():
            apart = unfolded(weights.tensor, call.folds)
    keys = tuple(k + count for k in weights.keys)
    return dataclasses.replace(weights, tensor=apart, keys=keys, steps=weights.steps + count)


def _captured(capture: Capture, call: LayerCall) -> Any:
    weights = capture(call.layer, tuple(call.inputs), tuple(call.outputs))
    if not tf.is_tensor(weights) or (weights.shape.rank or 0) < _MIN_RANK:
        raise InstrumentError(
            f"what register_attention was given for {type(call.layer).__name__} returns "
            f"{weights!r} for layer {call.path!r}; attention weights are a tensor "
            "[batch, ..., query, key]."
        )
    return weights


class _Places:
    """Tells which call operations belong to.

    Attributes:
        calls: the calls of layers in this graph.
        outside: the calls that were made for those which no layer is around.
    """

    def __init__(
        self, graph: Any, calls: Sequence[LayerCall], operations: Sequence[LayerCall]
    ) -> None:
        self._graph = graph
        self._calls = [c for c in calls if not c.step_of and self._here(c)]
        self.calls = {(c.path, c.index): c for c in self._calls}
        self._operations = operations
        self._taken = {c.path for c in calls}
        self.outside: list[LayerCall] = []

    def owner(self, position: int) -> LayerCall:
        """Returns the call that an operation's weights belong to, the innermost that says most."""
        around = [c for c in self._calls if c.first_op <= position < c.last_op]
        layers = [c for c in around if role_of(c.layer) not in _PARTS]
        others = [c for c in around if role_of(c.layer) != "model"]
        found = layers or others
        return found[-1] if found else self._outside(position, around)

    def _outside(self, position: int, models: Sequence[LayerCall]) -> LayerCall:
        """Returns a call that stands for an operation in a model's own graph or call."""
        around = [c for c in self._operations if c.first_op <= position < c.last_op]
        same = [c for c in self.outside if around and c.layer is around[-1].layer]
        name = around[-1].path if around else "softmax"
        prefix = f"{models[-1].path}/" if models else ""
        path, number = f"{prefix}{name}", 1
        if same and same[-1].first_op == around[-1].first_op:
            return same[-1]
        index = len(same)
        while not same and path in self._taken:
            path, number = f"{prefix}{name}_{number}", number + 1
        path = same[0].path if same else path
        self._taken.add(path)
        call = LayerCall(
            around[-1].layer if around else None,
            path,
            index,
            around[-1].first_op if around else position,
            around[-1].last_op if around else position + 1,
            folds=models[-1].folds if models else (),
        )
        call.layer_is_around = False
        self.outside.append(call)
        return call

    def _here(self, call: LayerCall) -> bool:
        return any(getattr(t, "graph", None) is self._graph for t in call.outputs)


def in_one_order(weights: Weights) -> bool:
    """Tells whether weights that are given out hold their numbers in the order of those applied."""
    tensor = weights.tensor
    for _ in range(_MOST_STEPS):
        if tensor is weights.applied:
            return True
        op = tensor.op
        if op.type not in _UNTURNED:
            return False
        tensor = op.inputs[0]
    return False


def is_given_by(tensor: Any, weights: Weights) -> bool:
    """Tells whether a tensor is the weights that are applied, in another shape perhaps."""
    return weights.applied is not None and _is_same(tensor, weights.applied)


def _is_same(tensor: Any, weights: Any, by: Collection[str] = _SAME) -> bool:
    """Tells whether a tensor holds all of some weights, in another shape or type perhaps.

    Args:
        tensor: a tensor.
        weights: the weights.
        by: the operations that may lie between.
    """
    for _ in range(_MOST_STEPS):
        if tensor is weights:
            return True
        op = getattr(tensor, "op", None)
        if op is None or op.type not in by:
            return False
        before = op.inputs[list(op.outputs).index(tensor) if op.type == "IdentityN" else 0]
        if op.type == "StridedSlice" and _sizes(before) != _sizes(tensor):
            return False
        tensor = before
    return False


def _sizes(tensor: Any) -> list[int]:
    """Returns the sizes of a tensor but for those that are 1, in some order; open ones as -1."""
    return sorted(-1 if n is None else n for n in tensor.shape if n != 1)
