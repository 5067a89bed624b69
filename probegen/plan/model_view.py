"""What planning asks of a model, whatever framework it comes from: each source answers."""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import STEPS_OF_DETAIL, Padding
from probegen.artefact.texts import TextSpec
from probegen.errors import SelectionError
from probegen.plan.axes import Axes, attention_axes
from probegen.plan.padding import Fed, legal_values
from probegen.plan.plan import TargetPlan, TensorRef
from probegen.plan.points import ProbePoint, ProbePoints, Shape
from probegen.plan.positions import Reading
from probegen.plan.selectors import select

#: How many layers a message names before it counts the others.
_SHOWN = 5


class Tie(enum.IntEnum):
    """How the values of a tensor hang on those of an input, from loose to tight."""

    INDIRECT = 1  # by comparisons, counts, or operations that are not known
    COMPUTED = 2  # calculated from them, one by one
    PART = 3  # some of them as they are
    WHOLE = 4  # all of them as they are, perhaps in another shape
    SAME = 5  # the input itself, perhaps in another integer type


def counts_up(values: npt.NDArray[Any]) -> bool:
    """Tells whether numbers are those of positions, one after the other: 0, 1, 2, ..."""
    flat = np.ravel(values)
    return flat.size > 1 and bool((np.diff(flat) == 1).all())


@dataclasses.dataclass(frozen=True)
class TensorFacts:
    """What is known of a tensor.

    Attributes:
        shape: its sizes, the batch first.
        dtype: numpy name of the element type.
        axes: a name for each axis, see `plan.axes`.
        is_float: whether a gradient can live on it.
        windows: sizes of the axes behind the batch that the model itself joins with it.
    """

    shape: Shape
    dtype: str
    axes: Axes
    is_float: bool
    windows: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class AttentionWeights:
    """Attention weights that a point applies.

    Attributes:
        point: the point.
        number: which of its weights, from 0.
        count: how many it has.
        tensor: what is known of them.
        keys: the axes that the softmax sums over; empty where nobody knows.
        steps: how many axes of time stand behind the batch: weights of each step of a loop.
        ref: the weights as they lie on the way to the outputs; None where no gradient can be taken
            at them, since they are made inside a loop.
        named: the names of their axes by what these are of; None for those by their places.
    """

    point: ProbePoint
    number: int
    count: int
    tensor: TensorFacts
    keys: Sequence[int]
    steps: int = 0
    ref: TensorRef | None = None
    named: Axes | None = None

    @property
    def name(self) -> str:
        """What they are called: the point, with `:1` where it has several."""
        return f"{self.point.name}:{self.number}" if self.count > 1 else self.point.name

    @property
    def axes(self) -> Axes:
        """A name for each axis: batch, time, head, query, key."""
        if self.named is not None:
            return self.named
        return attention_axes(self.tensor.axes, self.keys, self.steps)

    @property
    def plain_ref(self) -> TensorRef:
        """The weights as they are given out."""
        return TensorRef(self.point.path, self.point.call_index, self.number)


@dataclasses.dataclass(frozen=True)
class StateFacts:
    """What is known of a state of a recurrent layer over time, or of a gate.

    Attributes:
        name: the layer's path and what the state is called behind it: `"lstm:1"`.
        title: what people call it: `"Cell state"`.
        ref: the tensor.
        facts: of it.
        is_gate: whether it is a gate.
    """

    name: str
    title: str
    ref: TensorRef
    facts: TensorFacts
    is_gate: bool = False


@dataclasses.dataclass(frozen=True)
class Start:
    """A first floating tensor on the way of an input of whole numbers.

    Attributes:
        ref: the tensor.
        label: what an explanation of it is called where an input has several.
        ties: position of an input -> how the numbers that it is made from hang on that.
        is_lookup: whether ids look it up; otherwise numbers are cast.
        rows: number of legal ids, where that is known.
        masks: whether it says which positions count, and nothing else.
        usable: whether its first axis is the batch.
        moved: whether it has lost the order that the numbers have in the input.
        resized: whether it is made of a picture that was brought to another size.
        counts: whether it says how often each class is among the ids of a sample.
    """

    ref: TensorRef
    label: str
    ties: Mapping[int, Tie]
    is_lookup: bool
    rows: int | None
    masks: bool
    usable: bool
    moved: bool
    counts: bool = False
    resized: bool = False

    def with_ties(self, more: Mapping[int, Tie]) -> Start:
        """Returns a copy that hangs on the inputs as tightly as either."""
        ties = dict(self.ties)
        for position, tie in more.items():
            ties[position] = max(tie, ties.get(position, tie))
        return dataclasses.replace(self, ties=ties)

    def carries(self, position: int) -> bool:
        """Tells whether it stands for what an input says, rather than for where it says it."""
        return self.ties.get(position, Tie.INDIRECT) >= Tie.COMPUTED and not self.masks


class ModelView(abc.ABC):
    """One look at a model: its points, and questions about its tensors.

    What is differentiated is handed about as an `end`, which only the view itself reads.

    Attributes:
        model: name and class of the model.
        producer: versions of what the model was read with.
        input_names: the model's inputs, in order.
        output_names: the model's outputs, in order.
        points: the probe points.
        layers: what an index selector counts in.
        carried: input that a recurrent state starts from -> output that says where it ends.
        texts: the texts that inputs are made of, where the model takes some.
    """

    texts: tuple[TextSpec, ...] = ()
    model: Mapping[str, str]
    producer: Mapping[str, str]
    input_names: Sequence[str]
    output_names: Sequence[str]
    points: ProbePoints
    layers: Sequence[Any]
    carried: Mapping[str, str] = MappingProxyType({})

    # -- tensors ---------------------------------------------------------------------------

    @abc.abstractmethod
    def input(self, position: int) -> TensorFacts:
        """Returns what is known of an input."""

    @abc.abstractmethod
    def output(self, position: int) -> TensorFacts:
        """Returns what is known of an output."""

    def check_output(self, position: int) -> None:  # noqa: B027 - most know their sizes
        """Refuses an output of which not even the number of axes is known.

        Raises:
            NotDifferentiableError: it is one; says what makes it.
        """

    @abc.abstractmethod
    def tensor(self, ref: TensorRef) -> TensorFacts:
        """Returns what is known of a tensor; the axes of a cast are those of its input."""

    def map_axes(self, ref: TensorRef) -> Axes:
        """Returns the axes of a tensor that carries maps; see `methods.axes.FRAME`."""
        return self.tensor(ref).axes

    def named_tensor(self, name: str) -> TensorRef | None:
        """Returns the tensor or weight of a name, where tensors have names; else None."""
        del name
        return None

    def output_ref(self, point: ProbePoint, position: int = 0) -> TensorRef:
        """Returns an output of a point as it is given out."""
        return TensorRef(point.path, point.call_index, position)

    def gradient_ref(self, point: ProbePoint) -> TensorRef:
        """Returns what a gradient at the first output of a point is taken at."""
        return TensorRef(point.path, point.call_index)

    def detail_of(self, ref: TensorRef) -> dict[str, str]:
        """Returns what the manifest says of a tensor: of one over the steps of a loop, which."""
        if not ref.is_over_steps:
            return {}
        points = (p for p in self.points if (p.path, p.call_index) == ref.key)
        return {STEPS_OF_DETAIL: next(points).loop}

    @abc.abstractmethod
    def attention(self, point: ProbePoint) -> Sequence[AttentionWeights]:
        """Returns the attention weights at a point that applies some."""

    def states(self, point: ProbePoint) -> Sequence[StateFacts]:
        """Returns the states over time, and the gates, of the recurrent layers at a point."""
        del point
        return ()

    def why_no_gradient_at(self, state: StateFacts) -> str:
        """Says why no gradient can be taken at a state over time; `""` where one can."""
        del state
        return "its source gives states out (pg.States) and differentiates at none"

    @abc.abstractmethod
    def readings(self, weights: Sequence[AttentionWeights]) -> list[Reading]:
        """Returns which positions attention weights read, one by one; numbers count in them."""

    @abc.abstractmethod
    def has_scores(self, position: int) -> bool:
        """Tells whether an output comes out of a softmax or sigmoid, which has scores before it."""

    @property
    @abc.abstractmethod
    def starts(self) -> Sequence[Start]:
        """The first floating tensors that are made from whole numbers of the inputs."""

    @abc.abstractmethod
    def holds_ids(self, position: int) -> bool:
        """Tells whether the numbers of a floating input are cut to whole ones before a look-up."""

    @abc.abstractmethod
    def sorts_into_bins(self, position: int) -> bool:
        """Tells whether the numbers of an input of whole numbers are sorted into bins."""

    @abc.abstractmethod
    def compares(self, position: int) -> bool:
        """Tells whether whole numbers of an input are compared with stored numbers.

        Lengths, which are compared with the count of positions, are not, nor is what only weighs
        something else, as a mask does.
        """

    @abc.abstractmethod
    def paddings(self) -> Mapping[int, Padding]:
        """Returns the positions of inputs -> what says where they are padding, where known."""

    @abc.abstractmethod
    def longest(self) -> Mapping[int, int]:
        """Returns the positions of inputs -> the most steps that they may have, where known."""

    @abc.abstractmethod
    def shortest(self) -> Mapping[int, tuple[int | None, ...]]:
        """Returns the positions of inputs -> the fewest entries of each axis, where known."""

    def fewest_words(self) -> Mapping[int, int]:
        """Returns the positions of inputs of strings -> how many words a text needs, where known.

        That is of the longest text of a batch, which the others are filled up to.
        """
        return {}

    def only_masks(self, position: int) -> bool:
        """Tells whether an input only says which positions count."""
        facts = self.input(position)
        if facts.dtype == "bool" or self.is_called_mask(position):
            return True
        carried = any(start.carries(position) for start in self.starts)
        return not facts.is_float and not carried

    def is_called_mask(self, position: int) -> bool:
        """Tells whether the name of an input says that it holds which positions count."""
        return "mask" in self.input_names[position].lower()

    def fed(self, keys: Sequence[Hashable], constants: Sequence[float]) -> list[Fed]:
        """Returns what is fed, for `plan.padding`.

        Args:
            keys: the tensors of the inputs.
            constants: numbers that the model compares with.
        """
        found = []
        for position, key in enumerate(keys):
            facts, masks = self.input(position), self.only_masks(position)
            lookups = [s for s in self.starts if s.is_lookup and s.carries(position)]
            rows = [s.rows for s in lookups if s.ties[position] >= Tie.WHOLE]
            known = min((r for r in rows if r is not None), default=None)
            free = facts.is_float and not lookups
            values = legal_values(masks, free, known, constants)
            name = self.input_names[position]
            found.append(Fed(key, name, facts.shape, values, masks))
        return found

    @abc.abstractmethod
    def inputs_of(self, ref: TensorRef) -> list[str]:
        """Returns the names of the inputs that a tensor is computed from."""

    @abc.abstractmethod
    def runs_backwards(self, ref: TensorRef) -> bool:
        """Tells whether positions of a tensor stand in the opposite order of an input's."""

    @abc.abstractmethod
    def is_embedding(self, ref: TensorRef) -> bool:
        """Tells whether a tensor comes out of an embedding."""

    @abc.abstractmethod
    def inside_attention(self, point: ProbePoint) -> bool:
        """Tells whether a point makes attention weights, or stands inside an attention layer."""

    # -- what is differentiated ------------------------------------------------------------

    @abc.abstractmethod
    def end(self, target: TargetPlan) -> Any:
        """Returns what a target is taken from.

        Raises:
            InstrumentError: a callable that does not return one number a sample, or none can be
                called here.
        """

    @abc.abstractmethod
    def made_by(self, position: int) -> str:
        """Says in a sentence which operation made an output that holds no floating numbers."""

    @abc.abstractmethod
    def explainable_in_part(self, position: int) -> bool:
        """Tells whether some output can be differentiated by an input."""

    @abc.abstractmethod
    def depends_beside(self, position: int, refs: Sequence[TensorRef], end: Any) -> bool:
        """Tells whether an end depends on an input by other ways than some tensors."""

    @abc.abstractmethod
    def flows(self, ref: TensorRef, end: Any) -> bool:
        """Tells whether a gradient flows from an end back to a tensor."""

    def depends(self, ref: TensorRef, end: Any) -> bool:
        """Tells whether the numbers of an end depend on a floating tensor, in whichever way."""
        return self.flows(ref, end)

    @abc.abstractmethod
    def blocked_at(self, ref: TensorRef, end: Any) -> set[tuple[str, str]]:
        """Returns operations, and their layers, that stop a gradient between the two."""

    @abc.abstractmethod
    def redefined_at(self, ref: TensorRef, end: Any) -> list[str]:
        """Returns layers between the two in which user code has redefined a gradient."""

    @abc.abstractmethod
    def last_on_the_way(self, refs: Sequence[TensorRef], end: Any) -> list[TensorRef]:
        """Returns those of some tensors that a gradient from an end reaches before the others."""

    @abc.abstractmethod
    def holding_scores(self, refs: Sequence[TensorRef], end: Any) -> set[TensorRef]:
        """Returns those of some tensors that are an end itself, moved or resized at most.

        A map of them tells what the model predicts, and not what it looks at.
        """

    def seen_at_one_position(self, refs: Sequence[TensorRef], end: Any) -> set[TensorRef]:
        """Returns those of some tensors of which a target sees one position along some axis.

        The gradient at all their other positions is exactly 0.
        """
        del refs, end
        return set()

    # -- random numbers --------------------------------------------------------------------

    @abc.abstractmethod
    def check_outputs_not_random(self) -> None:
        """Refuses a model whose outputs are drawn at random.

        Raises:
            InstrumentError: one is; says by what.
        """

    @abc.abstractmethod
    def check_not_random(self, points: Sequence[ProbePoint]) -> None:
        """Refuses points whose values are drawn at random.

        Raises:
            InstrumentError: one is; says by what.
        """

    def instead(self, kind: str) -> str:
        """Says in a sentence what to do where nothing can be probed for `kind`; may be empty."""
        del kind
        return ""

    # -- selecting -------------------------------------------------------------------------

    def select(self, selector: Any, kind: str) -> list[ProbePoint]:
        """Returns the selected points that can be probed for `kind`.

        Raises:
            SelectionError: there is none; says why, and which there are.
        """
        chosen = select(self.points, selector, self.layers)
        able = [p for p in chosen if kind in p.probes]
        if able:
            return able
        self.check_not_random(chosen)
        named = ", ".join(f"{p.name!r} ({p.class_name})" for p in chosen[:_SHOWN])
        if len(chosen) > _SHOWN:
            named += f" and {len(chosen) - _SHOWN} more"
        asked = "the function" if callable(selector) else repr(selector)
        reasons = {p.reason: p.name for p in reversed(chosen) if p.reason}
        told = "; ".join(f"{reason} ({name!r})" for reason, name in sorted(reasons.items()))
        others = [p.name for p in self.points if kind in p.probes]
        more = self.instead(kind)
        hint = (
            f" Layers that can: {', '.join(map(repr, others[:_SHOWN]))}."
            if others
            else f" This model has no layer that can be probed for {kind}."
        )
        raise SelectionError(
            f"{asked} matches {named}, none of which can be probed for {kind}"
            + (f": {told}." if told else ".")
            + hint
            + (f" {more}" if more else "")
        )
