"""Capture by interpretation: watch the layer calls of a model while it is traced.

`Layer.__call__` is wrapped for the length of a trace, as torch.fx's tracer does for modules.
That reaches layers inside nested models, custom layers and subclassed models alike. Every
layer runs exactly as it does unwatched; at most, an output is exchanged. The wrapper looks for
a watcher in a context variable, so that calls in other threads pass through; it is removed
when the last watcher leaves, whatever was raised.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.layers.preprocessing.data_layer import DataLayer
from tensorflow.python.ops import while_v2

from probegen.errors import InstrumentError
from probegen.plan.plan import CallKey
from probegen.sources.keras import control_flow, exact_slopes, open_sizes
from probegen.sources.keras.attention_in_loops import Looped, weights_in
from probegen.sources.keras.call_numbers import CallNumbers
from probegen.sources.keras.gathering import write_gathering, write_on_trial
from probegen.sources.keras.layer_calls import LayerCall, OverSteps
from probegen.sources.keras.layer_paths import layer_paths, recurrent_layers_around
from probegen.sources.keras.layers_in_loops import StepCalls, in_order
from probegen.sources.keras.logits import pre_activation
from probegen.sources.keras.look_ups import look_up
from probegen.sources.keras.nudges import Nudges, make_nudges, zeros_over_time
from probegen.sources.keras.patching import Patch, Patches, set_to
from probegen.sources.keras.randomness import mark_seed
from probegen.sources.keras.recurrence import HiddenStates, InnerLoop, Recurrence, write_states
from probegen.sources.keras.timewise import Fold, can_fold, has_rows, run_folded, unfolded
from probegen.stages import within_layer

#: Layer call -> position of an output -> what makes the tensor that stands in for it.
Replacements = Mapping[CallKey, Mapping[int, Callable[[Any], Any]]]


class Watcher:
    """Records the calls of a model's layers in the order in which they begin.

    Attributes:
        calls: what was recorded.
        operations: calls of operations of Keras that are no layers.
        looped: attention weights of each step of loops.
        over_steps: what layers that each step of a loop calls give, over time.
        loops: where the operations of loops stand in the graph, those of loops inside included.
        in_loop: whether a loop is being written into the graph.
        refusal: the error of ours that ended the call, if one did: Keras words it anew.
    """

    def __init__(
        self,
        model: Any,
        replaced: Replacements | None = None,
        probed: Collection[CallKey] | None = None,
        mark_mask: Callable[[Any], Any] | None = None,
        states: Mapping[CallKey, Collection[str]] | None = None,
        inner_loop: InnerLoop | None = None,
        gathers: bool = True,
        nudged: Mapping[CallKey, Mapping[str, Callable[[Any], Any]]] | None = None,
        add_nudge: Callable[[Any, Any], Any] = tf.add,
        over_steps: Collection[CallKey] | None = None,
        nudged_steps: Mapping[CallKey, Callable[[Any], Any]] | None = None,
    ) -> None:
        """Prepares for one call of `model`.

        Args:
            model: the model that is about to be called.
            replaced: outputs that other tensors stand in for from there on.
            probed: the calls whose outputs are asked for; None for all.
            mark_mask: what masks pass, so that they are found again; None leaves them alone.
            states: the calls whose states over time are written, and which of these.
            inner_loop: stands in for the loops of recurrent layers; None runs Keras' own.
            gathers: whether attention weights of the steps of loops are gathered.
            nudged: the calls to whose hidden states something is added; see `make_nudges`.
            add_nudge: adds it.
            over_steps: the calls of layers in the steps of loops that are gathered; None for all.
            nudged_steps: those to whose outputs something is added in each step, and what makes
                what stands in for that.
        """
        self.calls: list[LayerCall] = []
        self.operations: list[LayerCall] = []
        self.looped: list[Looped] = []
        self.over_steps: dict[CallKey, OverSteps] = {}
        self.step_nudges: dict[CallKey, Any] = {}
        self.loops: list[range] = []
        self.in_loop = False
        self.refusal: InstrumentError | None = None
        self._model = model
        self._replaced = replaced or {}
        self._probed = probed
        self._mark_mask = mark_mask
        self._states = states or {}
        self._inner_loop = inner_loop
        self._gathers = gathers
        self._nudged = nudged or {}
        self._add_nudge = add_nudge
        self._nudges: Nudges | None = None
        self._wanted_steps = over_steps
        self._nudged_steps = nudged_steps or {}
        self._steps_of: StepCalls | None = None  # of the loop that is being written
        self._numbers = CallNumbers(model)
        self._numbers_before = self._numbers.state()  # the recurrent layer that is under way
        self._recurrent_calls = 0
        self._recurrence: Recurrence | None = None  # that is being written
        self._depth = 0  # how many layer calls are around it
        self._on_trial = False
        self._inner_loops = 0
        self._masks: dict[int, Any] = {}  # marked ones by id
        self._folds: tuple[Fold, ...] = ()
        self._graph = tf.compat.v1.get_default_graph()
        self._paths = layer_paths(model)
        self._steps = recurrent_layers_around(model, self._paths)
        self._stack: list[LayerCall] = []
        self._named: dict[int, Any] = {}  # by id; holds them, so that no id is used again
        self._looping: Any = None

    @property
    def innermost(self) -> CallKey:
        """The layer call that is under way, `("", 0)` outside of all."""
        return (self._stack[-1].path, self._stack[-1].index) if self._stack else ("", 0)

    @property
    def under_way(self) -> list[CallKey]:
        """The layer calls that are under way, the outermost first."""
        return [(call.path, call.index) for call in self._stack]

    def __call__(self, original: Any, layer: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Stands in for `Layer.__call__`; `original` is the real one."""
        if layer is self._model and not self._stack:
            return original(layer, *args, **kwargs)
        if self._mark_mask is not None:
            kwargs = {k: self._mask(v) if k.endswith("mask") else v for k, v in kwargs.items()}
        call = self._begin(layer, args, kwargs)
        self._stack.append(call)
        try:
            outputs = original(layer, *args, **kwargs)
        except Exception as error:
            within_layer(error, call.path)
            raise
        finally:
            self._stack.pop()
        call.last_op = _operations()
        if self._nudges is not None:
            outputs = self._nudges.added(layer, outputs)
        if not call.step_of:
            outputs = self._own(outputs)
            self._mark_masks(outputs)
        key = (call.path, call.index)
        replaced = self._replaced.get(key, {})
        if call.folds and not call.in_loop and (self._probed is None or key in self._probed):
            return self._in_steps(call, outputs, replaced)
        if replaced:
            outputs = _replace(outputs, replaced)
        call.outputs = keras.tree.flatten(outputs)
        return outputs

    def _own(self, outputs: Any) -> Any:
        """Returns outputs that are no tensors of other names: of an input, or of another output.

        A layer may return its own input (Dropout at inference), a model what its last layer
        returned. The gradient at such an output is of what reads it by this name alone.
        """
        flat = keras.tree.flatten(outputs)
        shared = False
        for position, tensor in enumerate(flat):
            if isinstance(tensor, tf.Tensor) and id(tensor) in self._named:
                flat[position] = tf.identity(tensor)
                _keep_attributes(tensor, flat[position])
                shared = True
            self._named[id(flat[position])] = flat[position]
        return keras.tree.pack_sequence_as(outputs, flat) if shared else outputs

    def _mark_masks(self, outputs: Any) -> None:
        """Marks the masks that Keras keeps on the outputs of a layer."""
        if self._mark_mask is not None:
            for tensor in keras.tree.flatten(outputs):
                mask = getattr(tensor, "_keras_mask", None)
                if mask is not None:
                    tensor._keras_mask = self._mask(mask)

    def _mask(self, mask: Any) -> Any:
        """Returns a mask marked, once; others than of true and false are left alone."""
        seen = id(mask) in self._masks
        if seen or not isinstance(mask, tf.Tensor) or mask.dtype.is_floating:
            return mask
        # A mask that is fed is one of a graph around where a path is walked, and counts there too.
        if self._mark_mask is None or tf.compat.v1.get_default_graph() is not self._graph:
            return mask
        marked = self._mark_mask(mask)
        self._masks[id(marked)] = marked
        return marked

    def masking(self, original: Any, layer: Any, inputs: Any) -> Any:
        """Stands in for `Masking.call`, to mark the mask before it is used; else the same."""
        if self._mark_mask is None:
            return original(layer, inputs)
        there = keras.ops.not_equal(inputs, layer.mask_value)
        mask = self._mask(keras.ops.any(there, axis=-1, keepdims=True))
        outputs = keras.ops.where(mask, inputs, 0)
        outputs._keras_mask = keras.ops.squeeze(mask, axis=-1)
        return outputs

    def loop(self, original: Any, layer: Any, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """Notes what a loop over time is given; it is that of Keras, or what stands in for it."""

        if self._looping is not None or not self._stack:  # LSTM's own calls that of RNN
            inner = self._looping not in (None, layer) and not layer.unroll
            self._inner_loops += inner
            try:
                return self._run(original, layer, sequences, *args, **kwargs)[0]
            finally:
                self._inner_loops -= inner
        given = dict(zip(("initial_state", "mask", "training"), args, strict=False)) | kwargs
        state = given["initial_state"]
        if tf.executing_eagerly():  # states of stateful layers are variables, which calls move
            state = keras.tree.map_structure(tf.identity, state)
        found = Recurrence(
            layer,
            self._paths.get(id(layer), layer.name),
            sequences,
            state if keras.tree.is_nested(state) else [state],
            given.get("mask"),
            given.get("training", False),
            self._folds,
        )
        wanted = self._nudged.get(self.innermost)
        if wanted:
            self._nudges = make_nudges(found, wanted, self._add_nudge)
            found.nudges = self._nudges.over_time
        self._looping = layer
        try:
            self._add_to_steps(found)
            with self._writing_loop(), self._writing_steps(found):
                result, hidden_states = self._run(original, layer, sequences, *args, **kwargs)
        finally:
            self._looping = self._nudges = None
        suffixes = self._states.get(self.innermost)
        if suffixes:
            # The cell is no part of the model's call here.
            with set_to(_watcher, None), self._writing_loop():
                write_states(found, suffixes, hidden_states)
        known = self._stack[-1].recurrences
        same = next((one for one in known if one.path == found.path), None)
        (known if same is None else same.beside).append(found)
        return result

    def _add_to_steps(self, loop: Recurrence) -> None:
        """Lets something be added to the outputs of layers in the steps of a loop, if it is asked.

        A step is written on trial for it, which tells the layers and the sizes of their outputs.
        """
        if not self._nudged_steps or tf.executing_eagerly():
            return
        start, self._recurrence = len(self.calls), loop
        self._numbers.restore(self._numbers_before)
        self._on_trial = True
        try:
            with self._numbers.uncounted(), self._writing_loop():
                loop.output_and_states(loop.sequences[:, 0], loop.nest(loop.flat_states))
        finally:
            self._recurrence, self._on_trial = None, False
        called: dict[int, int] = {}
        for call in self.calls[start:]:
            number = called.get(id(call.layer), 0)
            called[id(call.layer)] = number + 1
            stand_in = self._nudged_steps.get((call.path, call.index))
            if stand_in is not None:
                self._nudges = self._nudges or make_nudges(loop, {}, self._add_nudge)
                over_time, rows = zeros_over_time(loop, call.outputs[0], stand_in)
                self._nudges.layers[id(call.layer), number] = rows
                self.step_nudges[call.path, call.index] = over_time

    def _run(
        self, original: Any, layer: Any, *args: Any, **kwargs: Any
    ) -> tuple[Any, HiddenStates | None]:
        """Runs a loop over time; see `InnerLoop`."""
        nudges = self._nudges
        if nudges is not None and nudges.recurrence.layer is layer:
            original = nudges.loop
            if self._inner_loop is not None:
                kwargs["nudges"] = nudges.of_cells
        if self._inner_loop is None:
            return original(layer, *args, **kwargs), None
        return self._inner_loop(original, layer, *args, **kwargs)

    def operate(self, original: Any, operation: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Stands in for `Operation.__call__`, to record the operations between layers."""
        if isinstance(operation, keras.Layer):
            return original(operation, *args, **kwargs)
        call = LayerCall(operation, operation.name, 0, first_op=_operations())
        outputs = original(operation, *args, **kwargs)
        call.last_op = _operations()
        self.operations.append(call)
        return outputs

    def gather(self, original: Any, cond: Any, body: Any, loop_vars: Any, /, **options: Any) -> Any:
        """Stands in for `while_v2.while_loop`, to gather the attention weights of each step."""
        # Loops inside of loops, and those of gradients, are left alone.
        if tf.compat.v1.get_default_graph() is not self._graph:
            with self._writing_loop():
                return original(cond, body, loop_vars, **options)
        position, steps = _operations(), self._steps_of
        in_trial = steps is not None and len(self._stack) > self._depth
        if self._on_trial or in_trial:  # a loop within a step
            return original(cond, body, loop_vars, **options)
        if steps is not None:
            self._numbers.restore(self._numbers_before)  # the first step was written on trial
            self._steps_of = None
            body = steps.noting(body)
        with self._writing_loop():
            weights, taken = [], []
            if self._gathers or (steps is not None and steps.wants_some):
                with self._numbers.uncounted():
                    trial = write_on_trial(original, cond, body, loop_vars, options)
                weights = weights_in(trial) if self._gathers else []
                taken = steps.take() if steps is not None and trial is not None else []
            given = [*(w.taken for w in weights), *taken]
            found, stacks = write_gathering(
                original, self._numbers.not_counting(cond), body, loop_vars, given, **options
            )
            looped = zip(weights, stacks, strict=False)
            self.looped += [self._in_order(w.gathered(position, s)) for w, s in looped]
            if steps is not None:
                self._note_steps(steps.over_steps(stacks[len(weights) :], position))
        return found

    def _in_order(self, weights: Looped) -> Looped:
        """Returns weights of all steps in the order in which a recurrent layer is fed.

        What is folded into their batch has an axis for each length.
        """
        tensor, folds = weights.tensor, self._folds
        if self._recurrence is not None:
            tensor = in_order(self._recurrence, tensor)
        if not folds or not has_rows(tensor, folds):
            return dataclasses.replace(weights, tensor=tensor)
        keys = tuple(k + len(folds) for k in weights.keys)
        steps = weights.steps + len(folds)
        return Looped(weights.position, unfolded(tensor, folds), keys, steps)

    def _note_steps(self, calls: Sequence[OverSteps]) -> None:
        for over in calls:
            self.over_steps[over.call.path, over.call.index] = over

    @contextlib.contextmanager
    def _writing_steps(self, loop: Recurrence) -> Iterator[None]:
        """Notes the layer calls of each step of a recurrent layer's loop.

        Keras writes a first step on trial, and then the loop; or all steps one behind the other.
        Calls are numbered as those of one step.
        """
        here = tf.compat.v1.get_default_graph() is self._graph
        if tf.executing_eagerly() or not here or not isinstance(loop.cell, keras.Layer):
            yield
            return
        steps = StepCalls(self._stack[-1], loop, self.calls, self._wanted_steps)
        start = len(self.calls)
        self._numbers.restore(self._numbers_before)
        self._steps_of = steps
        self._recurrence, self._depth = loop, len(self._stack)
        try:
            yield
        finally:
            unrolled, self._steps_of, self._recurrence = self._steps_of, None, None
        if unrolled is None:
            return
        found = unrolled.unrolled(self.calls[start:])
        self._numbers.restore(self._numbers_before)
        for over in found:
            self._numbers.count(over.step)
        self._note_steps(found)

    @contextlib.contextmanager
    def _writing_loop(self) -> Iterator[None]:
        """Notes the operations of a loop; how it is written differs from trace to trace."""
        if self.in_loop or tf.compat.v1.get_default_graph() is not self._graph:
            yield
            return
        start, self.in_loop = _operations(), True
        try:
            yield
        finally:
            self.in_loop = False
            self.loops.append(range(start, _operations()))

    def recur(self, original: Any, layer: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Stands in for `RNN.call`, to know which steps are masked."""
        bound = inspect.signature(original).bind(layer, *args, **kwargs)
        if self._stack and self._stack[-1].layer is layer:
            masks = [m for m in keras.tree.flatten(bound.arguments.get("mask")) if m is not None]
            self._stack[-1].mask = masks[0] if masks else None
        # For masks of dropout Keras calls stacked cells once before the loop.
        before, self._numbers_before = self._numbers_before, self._numbers.state()
        self._recurrent_calls += 1
        try:
            return original(layer, *args, **kwargs)
        finally:
            self._recurrent_calls -= 1
            self._numbers_before = before

    def over_time(
        self, original: Any, layer: Any, inputs: Any, training: Any = None, mask: Any = None
    ) -> Any:
        """Stands in for `TimeDistributed.call`; `original` is the real one."""
        if not can_fold(layer, inputs):
            return original(layer, inputs, training=training, mask=mask)
        path = self._stack[-1].path if self._stack else layer.name

        def run(fold: Fold, rows: Any, **arguments: Any) -> Any:
            before = self._folds
            self._folds = (*before, fold)
            try:
                return layer.layer.call(rows, **arguments)
            finally:
                self._folds = before

        try:
            return run_folded(layer, run, inputs, training, mask, path)
        except InstrumentError as error:
            self.refusal = error
            raise

    def _in_steps(
        self, call: LayerCall, outputs: Any, replaced: Mapping[int, Callable[[Any], Any]]
    ) -> Any:
        """Lets what is probed have axes for time; what the model reads is made of it again."""
        flat = keras.tree.flatten(outputs)
        call.outputs, call.in_steps = list(flat), True
        for position, rows in enumerate(flat):
            if isinstance(rows, tf.Tensor) and has_rows(rows, call.folds):
                apart = unfolded(rows, call.folds)
                if position in replaced:
                    apart = replaced[position](apart)
                flat[position] = tf.reshape(apart, tf.shape(rows))
                flat[position].set_shape(rows.shape)
                _keep_attributes(rows, flat[position])
                call.outputs[position] = apart
        return keras.tree.pack_sequence_as(outputs, flat)

    def _begin(self, layer: Any, args: Any, kwargs: Any) -> LayerCall:
        path = self._paths.get(id(layer))
        if path is None:
            # Kept where Keras does not track it, say in a closure: named by who called it.
            path = "/".join([*(c.path for c in self._stack[-1:]), layer.name])
            self._paths[id(layer)] = path
        index = self._numbers.next_of(layer, self._stack[-1] if self._stack else None)
        tensors = [t for t in keras.tree.flatten((args, kwargs)) if tf.is_tensor(t)]
        call = LayerCall(
            layer, path, index, first_op=_operations(), inputs=tensors, folds=self._folds
        )
        call.step_of = self._steps.get(id(layer), "")
        call.in_loop = self.in_loop or self._recurrent_calls > 0
        call.in_inner_loop = self._inner_loops > 0
        call.is_cell = self._is_cell(layer)
        call.masks = _masks_given(args, kwargs)
        call.given_state = kwargs.get("initial_state") is not None or (
            isinstance(layer, keras.layers.RNN) and len(args) > 1 and args[1] is not None
        )
        self._named.update((id(t), t) for t in tensors)
        for outer in self._stack:
            if isinstance(outer.layer, keras.layers.RNN):
                call.step_of = outer.path
        if not call.in_loop:  # a cell that the model calls itself
            call.step_of = ""
        self.calls.append(call)
        return call

    def _is_cell(self, layer: Any) -> bool:
        """Tells whether the loop that is being written runs a layer as a cell."""
        if self._recurrence is None:
            return False
        caller = self._stack[-1] if self._stack else None
        stacked = isinstance(getattr(caller, "layer", None), keras.layers.StackedRNNCells)
        in_stack = caller is not None and caller.is_cell and stacked
        return layer is self._recurrence.cell or in_stack


def _masks_given(args: Any, kwargs: Any) -> list[tuple[Any, list[Any]]]:
    """Returns the masks of a layer's arguments, each with the tensors that it masks.

    Those that Keras keeps on tensors, and those that are given by name.
    """
    named = {k: v for k, v in kwargs.items() if k.endswith("mask") and tf.is_tensor(v)}
    rest = {k: v for k, v in kwargs.items() if k not in named}
    data = [t for t in keras.tree.flatten((args, rest)) if tf.is_tensor(t)]
    kept = [(getattr(t, "_keras_mask", None), [t]) for t in data]
    return [*((m, d) for m, d in kept if m is not None), *((m, data) for m in named.values())]


_watcher: contextvars.ContextVar[Watcher | None] = contextvars.ContextVar("watcher", default=None)


def _while_watched(stand_in: Callable[..., Any]) -> Callable[[Any], Any]:
    """Returns what makes a method or function, in whose place `stand_in` runs while one watches.

    Args:
        stand_in: called with the watcher, the original method, and what that was called with.
    """

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            watcher = _watcher.get()
            if watcher is None:
                return original(*args, **kwargs)
            return stand_in(watcher, original, *args, **kwargs)

        return method

    return wrap


@dataclasses.dataclass
class _FedStates:
    """States that loops start from.

    Attributes:
        given: id of a recurrent layer -> its first states, flat.
        final: likewise, where its loop has ended.
    """

    given: Mapping[int, Sequence[Any]]
    final: dict[int, list[Any]] = dataclasses.field(default_factory=dict)


_fed: contextvars.ContextVar[_FedStates | None] = contextvars.ContextVar("fed", default=None)


def is_fed(layer: Any) -> bool:
    """Tells whether a layer starts from fed states, so that its last ones are read."""
    fed = _fed.get()
    return fed is not None and id(layer) in fed.given


def _from_fed_states(loop: Any) -> Any:
    """Returns what runs `RNN.inner_loop`, from other states where a layer is fed some."""

    @functools.wraps(loop)
    def method(self: Any, sequences: Any, initial_state: Any, *args: Any, **kwargs: Any) -> Any:
        fed = _fed.get()
        if fed is None or id(self) not in fed.given:
            return loop(self, sequences, initial_state, *args, **kwargs)
        states = [
            tf.cast(state, own.dtype)
            for state, own in zip(
                fed.given[id(self)], keras.tree.flatten(initial_state), strict=True
            )
        ]
        nest = keras.tree.pack_sequence_as(initial_state, states)
        result = loop(self, sequences, nest, *args, **kwargs)
        fed.final[id(self)] = list(keras.tree.flatten(result[2]))
        return result

    return method


@contextlib.contextmanager
def feeding_states(given: Mapping[int, Sequence[Any]]) -> Iterator[dict[int, list[Any]]]:
    """Lets recurrent layers start from given states inside the `with` block, in this thread.

    Args:
        given: id of a layer -> its first states, flat.

    Yields:
        Likewise the states after the last step, once the layers have run.
    """
    fed = _FedStates(given)
    with _patches.applied(_PATCHES), set_to(_fed, fed):
        yield fed.final


def _wrapped_loop(original: Any) -> Any:
    """Returns a loop that is watched, and starts from fed states where there are some."""
    return _from_fed_states(_while_watched(Watcher.loop)(original))


def _as_eagerly(_: Watcher, __: Any, layer: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Lets a layer that prepares data run as it does eagerly.

    In any graph Keras takes it for a part of a `tf.data` pipeline, and casts whole numbers to
    floating ones first: `Resizing` of bytes then rounds no more.
    """
    return keras.Layer.__call__(layer, *args, **kwargs)


def _looked_up(_: Watcher, original: Any, table: Any, /, *args: Any, **kwargs: Any) -> Any:
    return look_up(original, table, *args, **kwargs)


def _marking(_: Watcher, original: Any, generator: Any, /, *args: Any, **kwargs: Any) -> Any:
    return mark_seed(original(generator, *args, **kwargs))


def _standing_in(stand_in: Any, _: Watcher, /, *args: Any, **kwargs: Any) -> Any:
    return stand_in(*args, **kwargs)


#: Layers that have a loop of their own.
_LOOPS = (keras.layers.RNN, keras.layers.LSTM, keras.layers.GRU)

#: What stands in for functions of Keras and TensorFlow, called with the function itself first.
_STAND_INS = {**open_sizes.STAND_INS, **control_flow.STAND_INS, **exact_slopes.STAND_INS}

_patches = Patches()
#: What stands in for methods of Keras while somebody watches.
_PATCHES: tuple[Patch, ...] = (
    Patch(keras.Layer, "__call__", _while_watched(Watcher.__call__)),
    Patch(keras.Operation, "__call__", _while_watched(Watcher.operate)),
    Patch(DataLayer, "__call__", _while_watched(_as_eagerly)),
    Patch(keras.layers.TimeDistributed, "call", _while_watched(Watcher.over_time)),
    Patch(keras.layers.Masking, "call", _while_watched(Watcher.masking)),
    *(Patch(cls, "inner_loop", _wrapped_loop) for cls in _LOOPS),
    Patch(keras.layers.RNN, "call", _while_watched(Watcher.recur)),
    Patch(while_v2, "while_loop", _while_watched(Watcher.gather)),
    Patch(keras.random.SeedGenerator, "next", _while_watched(_marking)),
    Patch(tf.lookup.StaticHashTable, "lookup", _while_watched(_looked_up)),
    *(
        Patch(cls, name, _while_watched(functools.partial(_standing_in, stand_in)))
        for (cls, name), stand_in in _STAND_INS.items()
    ),
)


def _replace(outputs: Any, replaced: Mapping[int, Callable[[Any], Any]]) -> Any:
    """Returns a nest of outputs with some tensors exchanged.

    Masks stay where they were, and what went into a last softmax or sigmoid is that of the tensor
    before: another probe may explain it.
    """
    flat = keras.tree.flatten(outputs)
    for position, stand_in in replaced.items():
        before = flat[position]
        flat[position] = stand_in(before)
        _keep_attributes(before, flat[position], ("_keras_mask",))
        if hasattr(before, "op") and (logits := pre_activation(before)) is not None:
            flat[position]._keras_logits = logits
    return keras.tree.pack_sequence_as(outputs, flat)


def _keep_attributes(
    before: Any, after: Any, names: Sequence[str] = ("_keras_mask", "_keras_logits")
) -> None:
    """Gives a tensor what Keras keeps on the one that it stands in for."""
    for name in names:
        value = getattr(before, name, None)
        if value is not None:
            setattr(after, name, value)


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[Watcher]:
    """Lets `watcher` see every layer call made in this thread inside the `with` block."""
    with _patches.applied(_PATCHES), set_to(_watcher, watcher):
        yield watcher


def _operations() -> int:
    """Returns how many operations the graph that is being traced has."""
    return 0 if tf.executing_eagerly() else int(tf.compat.v1.get_default_graph().version)
