"""A plan: which tensors are taken, what is differentiated, what comes out.

It names everything by layer path, so that it holds for every later trace of the model, and
holds nothing of a framework. All engines work from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import (
    CLASSES,
    REGION_INPUT,
    Manifest,
    OutputSpec,
    TargetSpec,
)
from probegen.methods.axes import Axes, Sizes, behind_batch, channel_axis
from probegen.methods.base import GradientProbe, OfLayers, Sized
from probegen.methods.chains import Attending
from probegen.methods.operations import Operations, T
from probegen.methods.samples import Place, Samples
from probegen.methods.tables import Table
from probegen.methods.tokens import Padded

#: A layer call: path of the layer, and which of its calls.
CallKey = tuple[str, int]
#: A floating tensor made from whole numbers: how it is made, in which layer call, which one there.
Slot = tuple[str, CallKey, int]


#: The whole input as floating numbers: one place, whatever parts of it are cast, where and how
#: often. What the model does to the numbers before a cast (it turns the channels round, takes a
#: column) is then done to the floating ones.
TWIN = "twin"
#: A floating tensor that some operation inside a layer call makes.
MADE = "made"
#: A stored weight, by its name.
WEIGHT = "weight"
#: The attention weights that a layer call applies.
ATTENTION = "attention"
#: What a recurrent layer keeps from step to step, over time.
STATE = "state"
#: What is added to such a state in each step: zeros, at which the gradient is that at the state.
NUDGE = "nudge"
#: What a layer gives that each step of a loop calls, over the steps.
OVER_STEPS = "over_steps"
#: What is added to that in each step: zeros, at which the gradient is that at the layer's output.
STEP_NUDGE = "step_nudge"
#: What stands in for what is explained, in a gradient -> what is explained.
_ADDED_TO = {NUDGE: STATE, STEP_NUDGE: OVER_STEPS}


@dataclasses.dataclass(frozen=True)
class TensorRef:
    """A tensor of the model.

    An input (path None) or an output of a layer call; or, with `made`, a floating tensor that is
    made from the whole numbers of an input, inside a layer call or outside of all (path None).

    Attributes:
        path: the layer.
        call: which of its calls.
        position: which of the inputs or outputs, or the number among what is made there.
        made: `""`, `TWIN`, `MADE`, `WEIGHT`, `ATTENTION`, `STATE`, `NUDGE`, `OVER_STEPS` or
            `STEP_NUDGE`.
        operation: of attention weights that a layer makes inside its call, what operation makes
            them; `position` is the number among its kind there. Of states and nudges, what they
            are called behind the layer's path: `""`, `":1"`, `"/forget_gate"`.
        within: the layer call in which that is counted, where it is not the one that is named:
            `("", 0)` for the whole model.
    """

    path: str | None
    call: int = 0
    position: int = 0
    made: str = ""
    operation: str = ""
    within: CallKey | None = None

    @property
    def key(self) -> CallKey:
        """The layer call it comes out of."""
        return (self.path or "", self.call)

    @property
    def is_input(self) -> bool:
        """Tells whether it is an input of the model as it is fed."""
        return self.path is None and not self.made

    @property
    def is_attention(self) -> bool:
        """Whether it is the attention weights that a layer call applies."""
        return self.made == ATTENTION

    @property
    def is_of_states(self) -> bool:
        """Whether it is a state over time, or what is added to one."""
        return self.made in (STATE, NUDGE)

    @property
    def is_over_steps(self) -> bool:
        """Whether it is what a layer gives in each step of a loop, or what is added to that."""
        return self.made in (OVER_STEPS, STEP_NUDGE)

    @property
    def is_aside(self) -> bool:
        """Whether it is made beside the way to the outputs."""
        return self.made in (STATE, OVER_STEPS)

    @property
    def slot(self) -> Slot:
        """What a tensor with `made` goes by in a trace."""
        return (self.made, self.key, self.position)


@dataclasses.dataclass(frozen=True)
class PlainOutput:
    """An output that needs no gradient: an activation or attention weights.

    Attributes:
        spec: what comes out.
        ref: the layer's output that it is made of.
        probe: what asked for it.
        axes: the axes of that output, before anything is reduced.
        windows: sizes of the axes behind the batch that the model itself joins with it.
    """

    spec: OutputSpec
    ref: TensorRef
    probe: OfLayers
    axes: Axes = ()
    windows: tuple[int, ...] = ()

    @property
    def is_whole_attention(self) -> bool:
        """Whether it is attention weights of which nothing is left out."""
        return self.probe.of_weights and self.spec.axes == self.axes


@dataclasses.dataclass(frozen=True)
class TargetPlan:
    """What is differentiated: an entry of model output `position`, or what `function` returns.

    Attributes:
        spec: which entry.
        position: of which model output.
        function: the callable, where the target is one.
        order: the output's axes with the batch first, and with the classes last where a class is
            chosen at run time, or several are; None where they are so.
        single: whether the output has no batch axis. It gets one in front, before it is ordered.
        axes: a name for each axis of the scores, once they are so arranged.
        sizes: of these axes.
        ref: the layer's output that the scores are, where they are none of the model's.
    """

    spec: TargetSpec
    position: int = 0
    function: Callable[[Any], Any] | None = None
    order: tuple[int, ...] | None = None
    single: bool = False
    axes: Axes = ()
    sizes: Sizes = ()
    ref: TensorRef | None = None

    @property
    def class_axis(self) -> int | None:
        """The axis of the arranged scores that classes lie along; None where there is none."""
        return channel_axis(self.axes)

    def weights(self, feed: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
        """Returns what a request's region weighs arranged scores with; None where there is none.

        Args:
            feed: the inputs, the region among them.
        """
        given = feed.get(REGION_INPUT) if self.spec.region else None
        if given is None:
            return None
        region = np.asarray(given, np.float64)
        return region if self.class_axis is None else np.expand_dims(region, self.class_axis)

    def arranged(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns scores as a target picks from them: batch first."""
        batched = scores[None] if self.single else scores
        return batched if self.order is None else batched.transpose(self.order)

    def restored(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns what is shaped as arranged scores in the form of the output itself."""
        if self.order is not None:
            scores = scores.transpose(np.argsort(self.order))
        return scores[0] if self.single else scores


@dataclasses.dataclass(frozen=True)
class PaddingPlan:
    """What says where an output is padding.

    Attributes:
        ref: the input that tells.
        values: the numbers there that mean padding.
        over: its axes that are none of the output's.
    """

    ref: TensorRef
    values: tuple[float, ...]
    over: tuple[int, ...] = ()

    def padded(self, given: T) -> Padded[T]:
        """Returns the same of an input that is given."""
        return Padded(given, self.values, self.over)


@dataclasses.dataclass(frozen=True)
class GradientOutput:
    """An output made of the gradient at one tensor.

    Attributes:
        spec: what the manifest says of it.
        ref: the tensor that the gradient is taken at.
        probe: what asked for it.
        axes: the tensor's axes.
        inputs: names of the model inputs that the tensor stands for, none for a layer's output
            that was asked for as such.
        called: what the tensor goes by in the names of outputs.
        moves: of a method by scores, the tensors that it changes together, each with its axes.
        number: which one it is of the tensors that the probe explains, from 0.
        beside: outputs that come with it, such as the classes that it explains.
        sized_as: the model input whose sizes the output gets, where it gets those.
        pairs: axis of the output, and axis of that input that it gets the size of.
        padding: of one number a token, what says where it is padding.
    """

    spec: OutputSpec
    ref: TensorRef
    probe: GradientProbe
    axes: Axes = ()
    inputs: tuple[str, ...] = ()
    called: str = ""
    moves: tuple[tuple[TensorRef, Axes], ...] = ()
    number: int = 0
    beside: tuple[OutputSpec, ...] = ()
    sized_as: TensorRef | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    padding: PaddingPlan | None = None

    @property
    def place(self) -> Place:
        """The tensor as methods know it."""
        return Place(self.called, self.axes, self.inputs, self.number)

    @property
    def refs(self) -> tuple[TensorRef, ...]:
        """All tensors that it looks at: the one that is explained, and those that are changed."""
        return tuple(dict.fromkeys((self.ref, self.value, *(ref for ref, _ in self.moves))))

    @property
    def value(self) -> TensorRef:
        """The tensor that is explained: of what is added to one, that one if it is asked."""
        if self.ref.made not in _ADDED_TO or self.probe.gives_gradient:
            return self.ref
        return dataclasses.replace(self.ref, made=_ADDED_TO[self.ref.made])

    @property
    def classes_at(self) -> int:
        """The axis of the classes, where several are explained at once."""
        return behind_batch(self.spec.axes)

    @property
    def axes_of_one(self) -> Axes:
        """The axes of the output for one class."""
        axes, target = self.spec.axes, self.spec.target
        if target is None or not target.several:
            return axes
        return (*axes[: self.classes_at], *axes[self.classes_at + 1 :])

    def beside_of(self, kind: str) -> list[str]:
        """Returns the names of the outputs of a kind that come with it: one or none."""
        return [spec.name for spec in self.beside if spec.kind == kind]

    def sized(self, tensor: Callable[[TensorRef], T]) -> Sized[T] | None:
        """Returns the sizes that the output gets; None where it keeps its own.

        Args:
            tensor: gives an input.
        """
        return None if self.sized_as is None else Sized(tensor(self.sized_as), self.pairs)

    def padded(self, tensor: Callable[[TensorRef], T]) -> Padded[T] | None:
        """Returns what says where it is padding; None where that is not known.

        Args:
            tensor: gives an input.
        """
        return None if self.padding is None else self.padding.padded(tensor(self.padding.ref))

    def padded_by(
        self, feed: Mapping[str, npt.NDArray[Any]], names: Sequence[str]
    ) -> Padded[npt.NDArray[Any]] | None:
        """Returns what says where it is padding, of what is fed.

        Args:
            feed: the inputs by name.
            names: of the model's inputs, in their order.
        """
        return self.padded(lambda ref: np.asarray(feed[names[ref.position]]))

    def sized_by(
        self, feed: Mapping[str, npt.NDArray[Any]], names: Sequence[str]
    ) -> Sized[npt.NDArray[Any]] | None:
        """Returns the sizes that the output gets of what is fed; None where it keeps its own.

        Args:
            feed: the inputs by name.
            names: of the model's inputs, in their order.
        """
        return self.sized(lambda ref: np.asarray(feed[names[ref.position]]))


@dataclasses.dataclass(frozen=True)
class ChainOutput:
    """An output made of tensors of several layers, and perhaps gradients at them.

    These are outputs of the plan as well, by names that are in no manifest.

    Attributes:
        spec: what comes out.
        probe: what asked for it.
        layers: which positions each layer reads.
        keys: the stream whose positions are the keys.
        weights: names of the weights, layer by layer.
        gradients: names of the gradients at these, layer by layer; empty without a target.
        refs: the outputs of the layers.
        beside: outputs that come with it, such as the classes that it explains.
    """

    spec: OutputSpec
    probe: OfLayers
    layers: tuple[Attending, ...]
    keys: int
    weights: tuple[str, ...]
    gradients: tuple[str, ...]
    refs: tuple[TensorRef, ...]

    beside: tuple[OutputSpec, ...] = ()

    def made_of(self, ops: Operations[T], values: Mapping[str, T]) -> dict[str, T]:
        """Returns the output and what comes with it, by name.

        Args:
            ops: the array operations.
            values: the weights and gradients by name, among others.
        """
        weights = [values[name] for name in self.weights]
        gradients = [values[name] for name in self.gradients]
        layers = self.layers
        # Gradients are of the weights as they are applied, which may join samples with frames.
        if gradients and not (self.spec.target is not None and self.spec.target.several):
            gradients = [
                g if ops.rank(g) == ops.rank(w) else ops.reshape_like(g, w)
                for g, w in zip(gradients, weights, strict=True)
            ]
        if self.spec.target is not None and self.spec.target.several:
            # They have an axis of classes or steps, with which weights broadcast.
            places = [behind_batch(layer.axes) for layer in layers]
            gradients = [
                g if ops.rank(g) == ops.rank(w) + 1 else _frames_apart(ops, g, w, at)
                for g, w, at in zip(gradients, weights, places, strict=True)
            ]
            weights = [
                ops.expand_dims(value, (at,)) for value, at in zip(weights, places, strict=True)
            ]
            layers = tuple(
                dataclasses.replace(y, axes=(*y.axes[:at], self.spec.target.axis, *y.axes[at:]))
                for y, at in zip(layers, places, strict=True)
            )
        found = {self.spec.name: self.probe.follow(ops, weights, gradients, layers, self.keys)}
        for spec in self.beside:  # each gradient has it
            found[spec.name] = values[f"{self.gradients[0]}/{CLASSES}"]
        return found


def _frames_apart(ops: Operations[T], gradient: T, weights: T, at: int) -> T:
    """Returns gradients of several classes whose samples and frames have an axis each.

    `[batch * frame, class, query, key]` -> `[batch, class, frame, query, key]`

    Args:
        ops: the array operations.
        gradient: with the class behind what joins samples and frames.
        weights: `[batch, frame, query, key]`.
        at: where the class belongs.
    """
    rank, joined = ops.rank(weights), ops.rank(gradient)
    last = ops.transpose(gradient, [0, *range(2, joined), 1])
    each = ops.max(last, tuple(range(joined - 1)))
    like = ops.add(ops.mul(ops.expand_dims(weights, (rank,)), 0.0), each)
    order = [*range(at), rank, *range(at, rank)]
    return ops.transpose(ops.reshape_like(last, like), order)


@dataclasses.dataclass(frozen=True)
class GradientGroup:
    """All outputs that share one target and one way back to it, and so one backward pass.

    Attributes:
        target: what is differentiated.
        outputs: the outputs.
        table: what the backward pass is made of; None for gradients.
    """

    target: TargetPlan
    outputs: tuple[GradientOutput, ...]
    table: Table | None = None

    @property
    def refs(self) -> tuple[TensorRef, ...]:
        """The tensors that its outputs look at."""
        return tuple(dict.fromkeys(ref for output in self.outputs for ref in output.refs))


def moved_together(group: GradientGroup) -> list[list[GradientOutput]]:
    """Returns the outputs of probes whose tensors move, those together that move together.

    Those are probes with `gradients_at`, or with a table that starts from a baseline.

    All that stands for the inputs that a probe names moves together from point to point, every
    look-up of an input with the others. Layers each move alone: one may lie on the way from
    another, which would move it as well.
    """
    together: dict[tuple[int, TensorRef | None], list[GradientOutput]] = {}
    for output in group.outputs:
        if output.probe.moves_tensors:
            alone = None if output.inputs else output.ref
            together.setdefault((id(output.probe.moves_with), alone), []).append(output)
    return list(together.values())


def samples_of(together: Sequence[GradientOutput]) -> list[Samples]:
    """Returns what each of some outputs, whose tensors move together, makes of the gradients."""
    places = list({o.ref: o.place for o in together}.values())
    found = (o.probe.gradients_at() for o in together)
    return [samples.of(places) for samples in found if samples is not None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything the engines need to know.

    Attributes:
        plain: outputs without gradients.
        groups: outputs with gradients, by target.
        manifest: what the artefact will say of itself, its outputs in order.
        chains: outputs made of some of these.
    """

    plain: tuple[PlainOutput, ...]
    groups: tuple[GradientGroup, ...]
    manifest: Manifest
    chains: tuple[ChainOutput, ...] = ()

    @property
    def refs(self) -> tuple[TensorRef, ...]:
        """The tensors that outputs of all groups look at."""
        return tuple(dict.fromkeys(ref for group in self.groups for ref in group.refs))

    def own_table(self) -> str | None:
        """Says which method has a backward pass of its own, and of what; None where none has."""
        for group in self.groups:
            if group.table is not None:
                return f"pg.{type(group.outputs[0].probe).__name__} {group.table.described()}"
        return None
