"""A symbolic trace of a model: every layer call and every operation, without any data."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.framework import ops as tf_ops

from probegen.errors import InstrumentError
from probegen.plan.axes import Axes, over_steps_axes
from probegen.plan.plan import CallKey
from probegen.sources.keras.attention import Attention, attention_of
from probegen.sources.keras.capture import Replacements, Watcher, watching
from probegen.sources.keras.dependencies import ancestors
from probegen.sources.keras.first_floats import FirstFloats, follow
from probegen.sources.keras.inner_tensors import InnerTensors
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.layer_calls import LayerCall
from probegen.sources.keras.layouts import Layouts
from probegen.sources.keras.positions import follow_graph
from probegen.sources.keras.randomness import Draw, by_the_batch, drawn, told_to_train
from probegen.sources.keras.recurrence import InnerLoop
from probegen.sources.keras.traced_once import trace_once
from probegen.stages import stage

_SHAPE_OPS = frozenset({"Shape", "ShapeN", "Size", "Rank"})


@dataclasses.dataclass
class Trace:
    """What one call of a source model does, as seen from inside the graph it was traced in.

    Attributes:
        source: the model.
        graph: the graph.
        inputs: the flat input tensors.
        nest: the predictions as the model nests them.
        watched: what was seen of layers, operations and loops.
    """

    source: KerasModel
    graph: Any
    inputs: list[Any]
    nest: Any
    watched: Watcher

    @property
    def calls(self) -> list[LayerCall]:
        """The layer calls, in the order in which they begin."""
        return self.watched.calls

    @property
    def outputs(self) -> list[Any]:
        """The flat predictions."""
        return list(keras.tree.flatten(self.nest))

    def call(self, key: CallKey) -> LayerCall:
        """Returns the call named by path and index."""
        over = self.watched.over_steps.get(key)
        if over is not None and over.call.outputs:
            return over.call
        return next(c for c in (*self.calls, *self.attention.outside) if (c.path, c.index) == key)

    @functools.cached_property
    def attention(self) -> Attention:
        """The attention weights that layer calls apply."""
        return attention_of(
            self.graph, self.calls, self.watched.operations, self.inputs, self.outputs,
            self.watched.looped, loops=self.watched.loops,
        )  # fmt: skip

    @functools.cached_property
    def random(self) -> dict[int, Draw]:
        """Id of a tensor -> where the random numbers come from that its value depends on."""
        return drawn(self.graph, self.draws)

    @functools.cached_property
    def draws(self) -> dict[int, Draw]:
        """Id of a tensor -> draw, for what the graph does not show to be random."""
        trained = told_to_train(self.source.model)
        return {
            id(tensor): Draw(f"{type(call.layer).__name__}(training=True)", layer=call.path)
            for call in self.calls
            if id(call.layer) in trained
            for tensor in call.outputs
        }

    def drawn_by(self, draw: Draw) -> str:
        """Says which operation draws, and in which layer."""
        where = draw.layer or self.layer_of(draw.at)
        operation = draw.operation or "a random seed"
        return f"{operation} in layer {where!r}" if where else f"{operation} in the model's call"

    @functools.cached_property
    def windows(self) -> dict[int, tuple[int, ...]]:
        """Id of a layer's output -> sizes of what its first axis joins with the samples, if any.

        Attention within windows of an image has them there, as has what sees each frame by itself.
        """
        if not any(joins_with_first(op) for op in self.graph.get_operations()):
            return {}
        inputs = [(t, 0, None) for t in self.inputs]
        positions = follow_graph(self.graph, inputs, {}, told_sizes=True)
        made = (t for call in self.calls if not call.folds for t in call.outputs if self.visible(t))
        open_first = (t for t in made if t.shape.rank and t.shape[0] is None)
        found = {id(t): positions.beside_batch(id(t)) for t in open_first}
        return {key: sizes for key, sizes in found.items() if sizes}

    @functools.cached_property
    def _layouts(self) -> Layouts:
        return Layouts(self.graph, self.calls, self.inputs, self.outputs)

    def axes(self, tensor: Any) -> Axes:
        """Returns a name for each axis of a tensor, see `probegen.plan.axes`."""
        return self._axes_over_steps.get(id(tensor)) or self._layouts.of(tensor)

    @functools.cached_property
    def _axes_over_steps(self) -> dict[int, Axes]:
        """Id of what a layer gives over the steps of a loop -> a name for each axis."""
        found, layouts = {}, {id(self.graph): self._layouts}
        made = list(self.watched.over_steps.values())
        for over in (over for over in made if over.call.outputs):
            graph = over.step.outputs[0].graph
            if id(graph) not in layouts:
                steps = [one.step for one in made if one.step.outputs[0].graph is graph]
                layouts[id(graph)] = Layouts(graph, steps)
            for tensor, step in zip(over.call.outputs, over.step.outputs, strict=True):
                own = layouts[id(graph)].of(step)
                found[id(tensor)] = over_steps_axes(own, tensor.shape.rank)
        return found

    def visible(self, tensor: Any) -> bool:
        """Tells whether a tensor lives in this graph and not in a loop's or branch's body."""
        return tf.is_tensor(tensor) and getattr(tensor, "graph", None) is self.graph

    @functools.cached_property
    def layers(self) -> dict[str, str]:
        """Operation name -> path of the innermost layer call that made the operation.

        Operations that were written since, of a target that is a function, no layer has made.
        """
        made = zip(self.graph.get_operations(), self.makers, strict=False)
        return {op.name: path for op, (path, _) in made if path}

    @functools.cached_property
    def makers(self) -> list[CallKey]:
        """The innermost layer call that made each operation, `("", 0)` where none did."""
        keys: list[CallKey] = [("", 0)] * len(self.graph.get_operations())
        for call in self.calls:  # outer calls begin before inner ones, which so overwrite them
            # Positions of a call inside a loop are those of another graph.
            if any(map(self.visible, call.outputs)):
                count = call.last_op - call.first_op
                keys[call.first_op : call.last_op] = [(call.path, call.index)] * count
        return keys

    @functools.cached_property
    def first_floats(self) -> FirstFloats:
        """Where the whole numbers of the inputs become floating."""
        return follow(self.graph.get_operations(), self.inputs, self.makers)

    def layer_of(self, op: Any) -> str:
        """Returns the path of the innermost layer call that made an operation, or `""`."""
        return self.layers.get(op.name, "")


def run_source(
    source: KerasModel,
    flat: Sequence[Any],
    replaced: Replacements | None = None,
    weights: Sequence[tuple[Any, Any]] = (),
    probed: Collection[CallKey] | None = None,
    first_floats: FirstFloats | None = None,
    mark_mask: Callable[[Any], Any] | None = None,
    inner: InnerTensors | None = None,
    states: Mapping[CallKey, Collection[str]] | None = None,
    inner_loop: InnerLoop | None = None,
    gathers: bool = True,
    nudged: Mapping[CallKey, Mapping[str, Callable[[Any], Any]]] | None = None,
    add_nudge: Callable[[Any, Any], Any] = tf.add,
    over_steps: Collection[CallKey] | None = None,
    nudged_steps: Mapping[CallKey, Callable[[Any], Any]] | None = None,
) -> tuple[Any, Watcher]:
    """Calls the source model, watched; must run inside a graph that is being traced.

    The stateless scope keeps what the call would change (recurrent states, losses, seeds) from
    reaching the model.

    Args:
        source: the model.
        flat: its flat inputs.
        replaced: outputs of layer calls that other tensors stand in for.
        weights: pairs of a variable of the model and a tensor to read in its place.
        probed: the layer calls whose outputs are asked for; None for all.
        first_floats: follows the inputs, and exchanges what is made of their whole numbers.
        mark_mask: what masks pass, so that they are found again; None leaves them alone.
        inner: exchanges tensors that layers make inside their calls.
        states: the calls whose states over time are written, and which of these.
        inner_loop: stands in for the loops over time of recurrent layers; None leaves them.
        gathers: whether attention weights of the steps of loops are gathered.
        nudged: the calls to whose hidden states something is added, and what makes what stands in
            for that, by what the states are called.
        add_nudge: adds it.
        over_steps: the calls of layers in the steps of loops that are gathered; None for all.
        nudged_steps: those to whose outputs something is added in each step, and what makes what
            stands in for that.

    Returns:
        The predictions in the nest that the model returns, and what was seen.
    """
    watcher = Watcher(
        source.model,
        replaced,
        probed,
        mark_mask,
        states,
        inner_loop,
        gathers,
        nudged,
        add_nudge,
        over_steps,
        nudged_steps,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(keras.StatelessScope(state_mapping=list(weights)))
        stack.enter_context(watching(watcher))
        for listener in (first_floats, inner):
            if listener is not None:
                stack.enter_context(listener.listening(watcher))
        try:
            outputs = source.call(flat)
        except Exception:
            if watcher.refusal is not None:  # in its own words, not in Keras'
                raise watcher.refusal from None
            raise
    return outputs, watcher


def trace(source: KerasModel) -> Trace:
    """Traces a model symbolically.

    Raises:
        InstrumentError: the model cannot be traced (it needs concrete values, say), or its answer
            for a sample depends on the samples beside it.
    """
    normalises = by_the_batch(source.model)
    if normalises is not None:
        raise InstrumentError(
            f"the model calls {normalises!r} (BatchNormalization) with training=True, so that it "
            "answers by the statistics of whatever samples are fed together, which no artefact can "
            "agree with. Call the layer without training=, or set its trainable to False."
        )
    seen: dict[str, Any] = {}

    def forward(*flat: Any) -> Any:
        nest, watched = run_source(source, flat)
        seen.update(inputs=list(flat), nest=nest, watched=watched)
        return keras.tree.flatten(nest)

    graph = trace_function(forward, source.input_specs, source).graph
    for name, output in zip(source.output_names, keras.tree.flatten(seen["nest"]), strict=True):
        if not tf.is_tensor(output):
            raise InstrumentError(
                f"output {name!r} of {source.model.name!r} is a {type(output).__name__}, not a "
                "tensor; let the model's call return tensors alone."
            )
    return Trace(source, graph, seen["inputs"], seen["nest"], seen["watched"])


def trace_function(function: Callable[..., Any], specs: Sequence[Any], source: KerasModel) -> Any:
    """Returns `function` as a concrete function of tensors described by `specs`.

    Raises:
        InstrumentError: tracing failed.
    """
    with stage(f"the model {source.model.name!r} cannot be traced as a graph", InstrumentError):
        # Keras enters a scope before TensorFlow refuses its name, and would never leave it again.
        scopes = global_state.get_global_attribute("name_scope_stack", [], set_to_default=True)
        entered = list(scopes)
        try:
            return trace_once(function, specs)
        except ValueError as error:
            scopes[:] = entered
            rename = _name_to_change(source, error)
            if rename is not None:
                raise InstrumentError(rename) from error
            raise


def _name_to_change(source: KerasModel, error: Exception) -> str | None:
    """Returns what to do about a layer's name that TensorFlow does not take, None if it is not."""
    name = re.search(r"'(.+)' is not a valid (?:root )?scope name", str(error))
    if name is None:
        return None
    usable = re.sub(r"[^A-Za-z0-9_.-]+", "_", name[1]).lstrip("_") or "layer"
    return (
        f"the layer {name[1]!r} of the model {source.model.name!r} has a name that TensorFlow "
        "takes in no graph (letters, digits and _ . - alone will do): rename the layer, "
        f"layer.name = {usable!r}; its weights stay."
    )


# -- what is differentiated --------------------------------------------------------------------


# -- dependence --------------------------------------------------------------------------------


def joins_with_first(op: Any) -> bool:
    """Tells whether a reshape leaves another number of entries behind the first axis."""
    if op.type != "Reshape" or op.inputs[0].shape[:1].is_fully_defined():
        return False
    before, after = op.inputs[0].shape[1:], op.outputs[0].shape[1:]
    known = before.is_fully_defined() and after.is_fully_defined()
    return bool(known and before.num_elements() != after.num_elements())


def influenced_by(
    tensor: Any, graph: Any, differentiably: bool = False, beside: Iterable[Any] = ()
) -> set[int]:
    """Returns ids of the tensors that depend on the values (not the mere shape) of `tensor`.

    Args:
        tensor: where the influence starts.
        graph: the graph it lives in.
        differentiably: follow only operations that a gradient can pass.
        beside: tensors that are not followed.
    """
    reached, passed = {id(tensor)}, {id(t) for t in beside}
    for op in graph.get_operations():
        if op.type in _SHAPE_OPS or not any(id(t) in reached for t in op.inputs):
            continue
        if differentiably and not passes_gradient(op):
            continue
        reached.update(
            id(t)
            for t in op.outputs
            if id(t) not in passed and (not differentiably or _carries_gradient(t))
        )
    return reached


def passes_gradient(op: Any) -> bool:
    """Tells whether TensorFlow has a gradient for an operation."""
    try:
        return tf_ops.get_gradient_function(op) is not None
    except LookupError:
        return False


def blocking_operations(trace: Trace, start: Any, end: Any) -> list[Any]:
    """Returns the operations at which gradients from `end` to `start` stop.

    Empty where `end` does not depend on `start` at all.
    """
    reached = influenced_by(start, trace.graph, differentiably=True)
    dependent = influenced_by(start, trace.graph)
    blocked = []
    for op in sorted(ancestors([end]), key=lambda op: op._id):
        stopped = not any(id(t) in reached for t in op.outputs)
        entered = any(id(t) in reached for t in op.inputs)
        if stopped and entered and any(id(t) in dependent for t in op.outputs):
            blocked.append(op)
    return blocked


def is_differentiable(trace: Trace, start: Any, end: Any) -> bool:
    """Tells whether a gradient flows from `end` back to `start`."""
    return id(end) in influenced_by(start, trace.graph, differentiably=True)


def reached_by_gradient(trace: Trace, ends: Iterable[Any]) -> set[int]:
    """Returns ids of the tensors that a gradient from one of `ends` flows back to."""
    reached = {id(t) for t in ends}
    for op in reversed(trace.graph.get_operations()):
        if any(id(t) in reached for t in op.outputs) and passes_gradient(op):
            reached.update(id(t) for t in op.inputs if _carries_gradient(t))
    return reached


def last_on_the_way(trace: Trace, tensors: Collection[int], end: Any) -> set[int]:
    """Returns which of some tensors (ids) a gradient from `end` reaches before any other of them.

    Several where ways to `end` run beside each other.
    """
    reached, behind = {id(end)}, set()
    for op in reversed(trace.graph.get_operations()):
        if not any(id(t) in reached for t in op.outputs) or not passes_gradient(op):
            continue
        ends = [id(t) for t in op.outputs if id(t) in reached]
        passed = any(i in behind or i in tensors for i in ends)
        for tensor in op.inputs:
            if _carries_gradient(tensor):
                reached.add(id(tensor))
                if passed:
                    behind.add(id(tensor))
    return {i for i in tensors if i in reached and i not in behind}


def custom_gradients(trace: Trace, start: Any, end: Any) -> list[Any]:
    """Returns operations between two tensors whose gradient user code has redefined.

    TensorFlow's own uses (swish among them) are exact derivatives, written that way to save
    memory, and do not count.
    """
    between = ancestors([end])
    reached = influenced_by(start, trace.graph)
    return [
        op
        for op in between
        if op.type == "IdentityN"
        and any(id(t) in reached for t in op.inputs)
        and _custom_gradient_module(op) not in ("", "tensorflow")
    ]


def _custom_gradient_module(op: Any) -> str:
    """Returns the top package that defined an operation's own gradient, `""` if it has none."""
    try:
        op.get_attr("_gradient_op_type")
    except ValueError:
        return ""
    pending, seen = [tf_ops.get_gradient_function(op)], set()
    module = "tensorflow"
    while pending:
        function = pending.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        owner = getattr(function, "__module__", None) or ""
        if owner and not owner.startswith("tensorflow."):
            module = owner.split(".")[0]
        for cell in getattr(function, "__closure__", None) or ():
            try:
                content = cell.cell_contents
            except ValueError:
                continue
            if callable(content) and hasattr(content, "__closure__"):
                pending.append(content)
    return module


def _carries_gradient(tensor: Any) -> bool:
    """Tells whether a gradient can live on a tensor, or on what it is a handle of."""
    numbers = tensor.dtype.is_floating or tensor.dtype.is_complex
    return bool(numbers or tensor.dtype in (tf.variant, tf.resource))
