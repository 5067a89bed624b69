"""Where the whole numbers of an input become floating: look-ups, one-hot rows, casts.

No gradient reaches ids or the bytes of an image. What stands for such an input are the first
floating tensors that are made from its values: the vectors that its ids look up, or the cast of
its pixels. They are found by following the data through the graph, operation by operation, so
that it does not matter whether a Keras layer does it or code of the user's own.

How a tensor hangs on an input is its `Tie`. A mask, a length, a position counted along a mask
hang on the values of the input too, but by way of comparisons: they say where there is something,
not what it is, and are no explanation of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_library

from probegen.plan.model_view import Tie, counts_up
from probegen.plan.plan import MADE, TWIN, CallKey, Slot
from probegen.sources.keras.capture import Watcher
from probegen.sources.keras.comparisons import is_read_as_number
from probegen.sources.keras.exchanging import exchanging
from probegen.sources.keras.rounding_noise import RoundingNoise

_SIZES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
_LIKE_IDENTITY = frozenset(
    {"Identity", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "CheckNumerics"}
)
#: Operations that bring all values of their first input into another shape.
_SHAPING = frozenset(
    {"Reshape", "ExpandDims", "Squeeze", "Transpose", "BroadcastTo", "Tile", "ReverseV2", "Roll"}
    | {"Pad", "PadV2", "MirrorPad"}
)
#: Operations on rows of different lengths -> which input holds what is in the rows. The others say
#: where rows begin; a row stays one sample.
_ROWS_OF = {"RaggedTensorToTensor": 1, "RaggedBincount": 1, "StringNGrams": 0}
_JOINING = frozenset({"ConcatV2", "Pack"})
_SELECTING = frozenset(
    {"Slice", "StridedSlice", "Split", "SplitV", "Unpack", "ResizeNearestNeighbor"}
)
#: Operations that make floating numbers of bytes, and do the same to floating ones.
BLENDING = frozenset({"ResizeBilinear", "ResizeBicubic", "ResizeArea", "ScaleAndTranslate"})
#: Operations that bring a picture to another size.
_RESIZING = BLENDING | {"ResizeNearestNeighbor", "CropAndResize"}
_CHOOSING = frozenset({"Select", "SelectV2"})
#: Look-ups: the first input is the table, the second says which of its entries.
_GATHERING = frozenset({"Gather", "GatherV2", "GatherNd", "ResourceGather", "ResourceGatherNd"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
#: How often each class is among the numbers of a sample.
_COUNTS = frozenset({"DenseBincount"})
_COUNT_WORDS = frozenset(name.lower() for name in _COUNTS)
#: Operations that make floating tensors from the values of integer ones.
_MAKING = frozenset({"Cast", "OneHot"}) | _COUNTS | _CALLS | _GATHERING | BLENDING
#: Integer operations whose result says where or how many, not what.
_COUNTING = frozenset(
    {"Cumsum", "Cumprod", "ArgMax", "ArgMin", "Where", "Unique", "UniqueV2", "TopK", "TopKV2"}
    | {"Range", "Fill", "InvertPermutation", "UniqueWithCounts"}
)
#: Floating operations that calculate each value from its own, so that ids stay ids.
_ELEMENTWISE = frozenset(
    {"Add", "AddV2", "Sub", "Mul", "Div", "RealDiv", "DivNoNan", "FloorDiv", "FloorMod", "Mod"}
    | {"TruncateMod", "TruncateDiv", "Maximum", "Minimum", "ClipByValue", "Neg", "Abs", "Sign"}
    | {"Round", "Rint", "Floor", "Ceil", "Square", "Sqrt", "Pow", "Log", "Log1p", "Exp", "Expm1"}
)
#: Operations that give numbers near to each other the same one.
_BINNING = frozenset({"FloorDiv", "TruncateDiv", "Div", "RightShift", "LowerBound", "UpperBound"})
#: Floating operations behind which numbers near to each other are cut to the same whole one.
_SCALING = frozenset({"Div", "RealDiv", "DivNoNan", "Sqrt", "Pow", "Log", "Log1p", "Exp", "Expm1"})
_ORDERING = frozenset({"Less", "LessEqual", "Greater", "GreaterEqual"})
_COMPARING = _ORDERING | {"Equal", "NotEqual"}
_WIDE = 4  # bytes of an integer type that ids fit into


@dataclasses.dataclass
class FirstFloat:
    """A floating tensor made from the whole numbers of an input.

    Attributes:
        slot: what it is called in every trace of the model.
        tensor: the tensor.
        ties: position of an input -> how the numbers that it is made from hang on that.
        index: the tensor of whole numbers that it is made from.
        apart: the same numbers before they were joined across samples, None where they were not.
        axes: how many of its axes, the first, are those of the numbers.
        word: what makes it: `"lookup"`, `"one_hot"`, `"cast"` or an operation.
        rows: number of entries of the table, where it is looked up along its first axis.
        usable: whether its first axis is the batch, so that it can be explained.
        moved: whether it has lost the order that the numbers have in the input.
        resized: whether it is made of a picture that was brought to another size.
        also: further casts of the same input.
    """

    slot: Slot
    tensor: Any
    ties: Mapping[int, Tie]
    index: Any
    apart: Any
    axes: int
    word: str
    rows: int | None = None
    usable: bool = True
    moved: bool = False
    resized: bool = False
    also: list[Any] = dataclasses.field(default_factory=list)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Its sizes, the batch first."""
        if self.slot[0] == TWIN:
            return tuple(self.index.shape)
        if self.apart is None:
            return tuple(self.tensor.shape)
        return (*self.apart.shape, *self.tensor.shape[self.axes :])

    @property
    def tensors(self) -> list[Any]:
        """The tensors of the trace that it stands for."""
        return [self.tensor, *self.also]

    @property
    def is_lookup(self) -> bool:
        """Tells look-ups of ids from casts of numbers."""
        return self.word != "cast"

    @property
    def tells_whether(self) -> bool:
        """Tells what comparisons of the numbers say, as `x > 0`, from the numbers themselves."""
        index = self.index
        while index.op.type == "Cast" or index.op.type in _LIKE_IDENTITY:
            index = index.op.inputs[0]
        return index.dtype == tf.bool and all(t is Tie.INDIRECT for t in self.ties.values())

    @property
    def counts(self) -> bool:
        """Tells counts of classes among ids from what single ids look up."""
        return self.word in _COUNT_WORDS

    def with_samples_apart(self) -> Any:
        """Writes the tensor with the batch axis first, where samples were joined."""
        if self.apart is None:
            return self.tensor
        rest = tf.shape(self.tensor)[self.axes :]
        shaped = tf.reshape(self.tensor, tf.concat([tf.shape(self.apart), rest], 0))
        shaped.set_shape(self.shape)
        return shaped

    def joined_again(self, shaped: Any) -> Any:
        """Writes what `with_samples_apart` gave, or what stands in for it, as the model had it."""
        if self.apart is None:
            return shaped
        rest = tf.shape(shaped)[self.apart.shape.rank :]
        joined = tf.reshape(shaped, tf.concat([tf.shape(self.index)[: self.axes], rest], 0))
        joined.set_shape(self.tensor.shape)
        return joined


class FirstFloats:
    """Follows the inputs of a model through the operations of one trace.

    Attributes:
        found: what was found, in the order in which it is made.
        tensors: slot -> the tensor at it, where others were to stand in.
        truncated: positions of the floating inputs that are cast to whole numbers as they are.
        binned: positions of the inputs of whole numbers that are sorted into bins.
    """

    def __init__(
        self,
        inputs: Sequence[Any],
        stand_ins: Mapping[Slot, Callable[[Any], Any]] | None = None,
        noise: RoundingNoise | None = None,
    ) -> None:
        """Prepares for one trace.

        Args:
            inputs: the flat inputs, tensors of the graph that is traced.
            stand_ins: what makes the tensor that stands in for the one at a slot.
            noise: what all these tensors are moved by, and those that are made of coarser inputs.
        """
        self.found: list[FirstFloat] = []
        self.tensors: dict[Slot, Any] = {}
        self.truncated: set[int] = set()
        self.binned: set[int] = set()
        self._compared: list[tuple[int, Any]] = []
        self._stand_ins = stand_ins or {}
        self._noise = noise
        self._ties: dict[int, dict[int, Tie]] = {
            id(t): {i: Tie.WHOLE if t.dtype.is_floating else Tie.SAME} for i, t in enumerate(inputs)
        }
        self._apart: dict[int, Any] = {}
        self._astray: set[int] = set()
        self._reached = set(self._ties)
        self._counts: dict[CallKey, int] = {}
        self._kept: list[Any] = list(inputs)  # ids are those of living objects
        self._inputs = list(inputs)
        self._pure = {id(t) for t in inputs if t.dtype.is_integer or t.dtype.is_bool}
        self._moved: set[int] = set()
        self._resized: set[int] = set()
        self._scaled: set[int] = set()
        self._rows: dict[int, str] = {}

    def ties(self, tensor: Any) -> Mapping[int, Tie]:
        """Returns how a tensor of whole numbers hangs on the inputs."""
        return self._ties.get(id(tensor), {})

    def is_joined(self, tensor: Any) -> bool:
        """Tells whether samples were joined in a tensor of whole numbers."""
        return id(tensor) in self._apart or id(tensor) in self._astray

    def compares(self, position: int) -> bool:
        """Tells whether numbers of an input are compared with stored ones, other than as a mask."""
        return any(
            of == position and is_read_as_number(tensor, lambda t: id(t) in self._reached)
            for of, tensor in self._compared
        )

    def touch(self, tensor: Any) -> Any:
        """Notes that a tensor, which is returned, depends on what is fed."""
        self._reached.add(id(tensor))
        self._kept.append(tensor)
        return tensor

    @contextlib.contextmanager
    def listening(self, watcher: Watcher) -> Iterator[None]:
        """Sees every operation that is written into the graph of now, and exchanges tensors."""

        def instead(tensor: Any) -> Any:
            exchange = self.see(tensor.op, watcher.innermost)
            return None if exchange is None else exchange(tensor)

        with exchanging(instead):
            yield

    def _exchanged(self, place: FirstFloat, tensor: Any) -> Any:
        """Returns what stands in for the tensor that a place was found at."""
        if not self._is_exchanged(place.slot) or not place.usable:
            return tensor
        apart = place.with_samples_apart()
        made = self.touch(self._stand_in(place.slot, apart, whole=not place.is_lookup))
        self.tensors[place.slot] = made
        return self._instead(tensor, tf.cast(place.joined_again(made), tensor.dtype))

    def _is_exchanged(self, slot: Slot) -> bool:
        return slot in self._stand_ins or self._noise is not None

    def _stand_in(self, slot: Slot, tensor: Any, *, whole: bool) -> Any:
        """Returns what stands in for the tensor at a slot; tells whether its numbers are whole."""
        moved = tensor
        if self._noise is not None:
            moved = self._noise.added_to(tensor, repr(slot), outwards=whole)
        return self._stand_ins.get(slot, tf.identity)(moved)

    def _from_twins(self, index: Any, tensor: Any) -> Any:
        """Returns the cast of some numbers of inputs, made anew from the inputs' floating twins."""
        slots = [(TWIN, ("", 0), position) for position in self.ties(index)]
        if not any(self._is_exchanged(slot) for slot in slots):
            return tensor
        if tensor.op.type in BLENDING:
            again = _again(tensor.op, lambda t: self._floating(t, tensor.dtype))[0]
        else:
            again = self._floating(index, tensor.dtype)
        return self._instead(tensor, tf.cast(again, tensor.dtype))

    def _floating(self, numbers: Any, dtype: Any) -> Any:
        """Returns whole numbers as floating ones, those of inputs from their twins."""
        if id(numbers) not in self._pure:
            return tf.cast(numbers, dtype)
        position = next((i for i, t in enumerate(self._inputs) if t is numbers), None)
        if position is None:
            op = numbers.op
            if op.type == "Cast" or op.type in _LIKE_IDENTITY:
                return self._floating(op.inputs[0], dtype)
            return _again(op, lambda t: self._floating(t, dtype))[numbers.value_index]
        slot: Slot = (TWIN, ("", 0), position)
        if not self._is_exchanged(slot):
            return tf.cast(numbers, dtype)
        if slot not in self.tensors:
            made = self._stand_in(slot, tf.cast(numbers, dtype), whole=True)
            self.tensors[slot] = self.touch(made)
        return tf.cast(self.tensors[slot], dtype)

    def _instead(self, before: Any, after: Any) -> Any:
        """Notes of a tensor, which is returned, what is known of the one that it stands in for."""
        if id(before) in self._ties:
            self._ties[id(after)] = self._ties[id(before)]
        for of in (self._astray, self._moved, self._resized, self._scaled):
            if id(before) in of:
                of.add(id(after))
        if id(before) in self._apart:
            self._apart[id(after)] = self._apart[id(before)]
        return self.touch(after)

    # -- one operation ---------------------------------------------------------------------

    def see(self, op: Any, call: CallKey) -> Callable[[Any], Any] | None:
        """Follows one operation, made inside a layer call.

        Returns:
            What exchanges the tensor that it makes, where that is one of those looked for.
        """
        inputs, outputs = list(op.inputs), list(op.outputs)
        if op.type in _SIZES or not outputs:
            return None
        if any(id(t) in self._reached for t in inputs):
            self._reached.update(map(id, outputs))
            self._kept.append(op)
        if not any(id(t) in self._ties for t in inputs):
            return None
        data = self._read(op, inputs)
        ties = self._after(op, data)
        if not ties:
            return None
        whole = all(not t.dtype.is_floating for t in data)
        if op.type == "Cast" and not whole and outputs[0].dtype.is_integer:
            read = self._ties[id(data[0])].items()
            self.truncated.update(position for position, tie in read if tie >= Tie.PART)
        if op.type == "Bucketize" or (op.type in _BINNING and whole):
            read = self._ties[id(data[0])].items()
            self.binned.update(position for position, tie in read if tie >= Tie.COMPUTED)
        self._follow_bins(op, data, outputs)
        self._follow_rows(op, data, outputs)
        self._note_comparison(op, inputs)
        for output in outputs:
            if not (output.dtype.is_floating and whole):
                self._ties[id(output)] = dict(ties)
            elif op.type == "Cast" or op.type in BLENDING:  # they may become whole again
                most = Tie.WHOLE if op.type == "Cast" else Tie.COMPUTED
                self._ties[id(output)] = {i: min(tie, most) for i, tie in ties.items()}
        self._follow_samples(op, data, outputs)
        self._follow_order(op, data, outputs)
        if self._noise is not None and self._noise.widens(op):
            return self._with_noise
        if whole and outputs[0].dtype.is_floating and len(outputs) == 1:
            return self._make(op, inputs, data[0], ties, call)
        return None

    def _with_noise(self, tensor: Any) -> Any:
        """Returns what stands in for what was made of a coarser input."""
        assert self._noise is not None
        return self._instead(tensor, self._noise.added_to(tensor))

    def _read(self, op: Any, inputs: Sequence[Any]) -> list[Any]:
        """Returns those inputs of an operation whose values its result is made from."""
        tied = [t for t in inputs if id(t) in self._ties]
        if op.type in _CHOOSING:
            return [t for t in inputs[1:] if id(t) in self._ties] or tied
        if op.type in _GATHERING or op.type in _SHAPING or op.type in _SELECTING:
            return tied[:1]  # the table or the values, where they are tied, else what selects
        return tied

    def _after(self, op: Any, data: Sequence[Any]) -> dict[int, Tie]:
        """Returns how the result of an operation hangs on the inputs."""
        ties: dict[int, Tie] = {}
        for tensor in data:
            for position, tie in self._ties[id(tensor)].items():
                ties[position] = max(tie, ties.get(position, tie))
        limit = self._limit(op, data)
        return {position: min(tie, limit) for position, tie in ties.items()}

    def _limit(self, op: Any, data: Sequence[Any]) -> Tie:
        """Returns the tightest tie that an operation leaves."""
        first, out = op.inputs[0], op.outputs[0].dtype
        values_read = any(t is v for t in data for v in _values_of(op))
        if op.type in _GATHERING and not values_read:
            looks_up = id(first) not in self._reached
            return (Tie.WHOLE if out.is_floating else Tie.COMPUTED) if looks_up else Tie.INDIRECT
        if op.type in _SHAPING or op.type in _SELECTING or op.type in _GATHERING:
            return _limit_of_move(op) if values_read else Tie.INDIRECT
        if op.type in _CHOOSING and values_read:
            return Tie.INDIRECT  # the condition alone
        return _limit_of_values(op, floating=any(t.dtype.is_floating for t in data))

    def _follow_samples(self, op: Any, data: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Keeps in mind what a tensor looked like before samples were joined in it.

        Of layers between floating tensors it is taken for granted that the batch stays first.
        """
        ties = self._ties.get(id(outputs[0]), {}).values()
        if data[0].dtype.is_floating and all(tie is Tie.INDIRECT for tie in ties):
            return
        before = next((self._apart[id(t)] for t in data if id(t) in self._apart), None)
        if op.type == "Reshape" and before is None and not _keeps_samples(data[0], outputs[0]):
            before = data[0]
        elif op.type == "Reshape" and before is not None and _keeps_samples(before, outputs[0]):
            before = None  # they are apart again, as `IntegerLookup` has them
        mixes = op.type in (*_JOINING, "Transpose") and _first_axis(op) == 0
        rows = _ROWS_OF.get(op.type)
        placed = data if rows is None else [op.inputs[rows]]
        if (
            any(id(t) in self._astray for t in placed)
            or mixes
            or (before is not None and not _keeps_order(op, data[0], outputs[0]))
        ):
            self._astray.update(map(id, outputs))
        elif before is not None:
            self._apart.update((id(t), before) for t in outputs)

    def _follow_order(self, op: Any, data: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Keeps in mind what only moves numbers, and what has lost their order or their size."""
        values_read = any(t is v for t in data for v in _values_of(op))
        if (
            values_read
            and _only_moves(op)
            and all(id(t) in self._pure for t in data)
            and not outputs[0].dtype.is_floating
        ):
            self._pure.update(map(id, outputs))
        if any(id(t) in self._moved for t in data) or _changes_order(op):
            self._moved.update(map(id, outputs))
        if any(id(t) in self._resized for t in data) or op.type in _RESIZING:
            self._resized.update(map(id, outputs))

    def _follow_bins(self, op: Any, data: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Keeps in mind which numbers become fewer where they are cut to whole ones."""
        if outputs[0].dtype.is_floating:
            if any(id(t) in self._scaled for t in data) or self._scales(op):
                self._scaled.update(map(id, outputs))
        elif op.type == "Cast" and id(data[0]) in self._scaled:
            read = self._ties[id(data[0])].items()
            self.binned.update(position for position, tie in read if tie is Tie.COMPUTED)

    def _scales(self, op: Any) -> bool:
        """Tells whether a floating operation brings numbers nearer to each other.

        What is multiplied by a mask stays what it is, and so does what whole numbers multiply.
        """
        if op.type != "Mul":
            return op.type in _SCALING
        factors = [t for t in op.inputs if id(t) not in self._reached]
        values = [tf.get_static_value(t) for t in factors]
        return any(v is None or bool((v != v.round()).any()) for v in values)

    def _note_comparison(self, op: Any, inputs: Sequence[Any]) -> None:
        """Notes whose numbers are compared with stored ones; not with a count of positions."""
        if op.type not in _COMPARING:
            return
        for tensor, other in (inputs, inputs[::-1]):
            counted = op.type in _ORDERING and _counts_up(other)
            if id(other) not in self._reached and not counted:
                read = self._ties.get(id(tensor), {}).items()
                found = [position for position, tie in read if tie >= Tie.COMPUTED]
                self._compared += [(position, op.outputs[0]) for position in found]

    def _follow_rows(self, op: Any, data: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Keeps in mind which whole numbers are rows of zeros and ones, or counts, of ids."""
        if outputs[0].dtype.is_floating:
            return
        if op.type == "OneHot" or op.type in _COUNTS:
            self._rows[id(outputs[0])] = _word(op)
        elif id(data[0]) in self._rows and _keeps_rows(op, data[0], outputs[0]):
            self._rows[id(outputs[0])] = self._rows[id(data[0])]

    def _make(
        self, op: Any, inputs: Sequence[Any], index: Any, ties: Mapping[int, Tie], call: CallKey
    ) -> Callable[[Any], Any] | None:
        """Notes what an operation makes of whole numbers; returns what exchanges it."""
        # What takes entries out of activations, by a length say, looks nothing up.
        aside = inputs[1:2] if op.type in _COUNTS else []  # the number of classes
        fixed = all(
            t is index or id(t) not in self._reached or any(t is a for a in aside) for t in inputs
        )
        if op.type not in _MAKING or not fixed:
            return None
        tensor = op.outputs[0]
        if (op.type == "Cast" or op.type in BLENDING) and id(index) in self._pure:
            for position in ties:
                self._note_twin(position, tensor)
            return functools.partial(self._from_twins, index)
        number = self._counts.get(call, 0)
        self._counts[call] = number + 1
        axes = _axes_of_numbers(op, index)
        apart = self._apart.get(id(index))
        usable = (
            id(index) not in self._astray
            and _begins_with(tensor, index, axes)
            and _first_axis(op) in (0, None)
            and (apart is None or axes == index.shape.rank)
        )
        place = FirstFloat(
            (MADE, call, number),
            tensor,
            ties,
            index,
            apart,
            axes,
            self._rows.get(id(index), _word(op)),
            _rows(op),
            usable,
            id(index) in self._moved,
            id(tensor) in self._resized,
        )
        self.found.append(place)
        return functools.partial(self._exchanged, place)

    def _note_twin(self, position: int, tensor: Any) -> None:
        slot: Slot = (TWIN, ("", 0), position)
        for place in self.found:
            if place.slot == slot:
                place.also.append(tensor)
                return
        whole = self._inputs[position]
        self.found.append(
            FirstFloat(slot, tensor, {position: Tie.SAME}, whole, None, whole.shape.rank, "cast")
        )


def follow(
    operations: Iterable[Any], inputs: Sequence[Any], calls: Sequence[CallKey]
) -> FirstFloats:
    """Follows the inputs through a finished graph.

    Args:
        operations: its operations, in the order in which they were made.
        inputs: the flat inputs.
        calls: for each operation, the innermost layer call that made it.
    """
    flow = FirstFloats(inputs)
    for op, call in zip(operations, calls, strict=True):
        flow.see(op, call)
    return flow


def _values_of(op: Any) -> list[Any]:
    """Returns the inputs of an operation that hold values, where it moves or selects these."""
    if op.type in ("Split", "OneHot"):
        return [op.inputs[1]] if op.type == "Split" else []
    if op.type in _JOINING:
        return list(op.inputs[:-1] if op.type == "ConcatV2" else op.inputs)
    return list(op.inputs[:1])


def _only_moves(op: Any) -> bool:
    """Tells whether an operation moves or selects values and does nothing else to them."""
    if op.type == "Cast":
        before, after = op.inputs[0].dtype, op.outputs[0].dtype
        return not before.is_floating and _limit_of_cast(before, after) is Tie.SAME
    moving = _LIKE_IDENTITY | _SHAPING | _JOINING | _SELECTING | _GATHERING
    return op.type in moving and not op.type.startswith("Resource")


def _changes_order(op: Any) -> bool:
    """Tells whether values may not be where they were, axes of one element aside."""
    if op.type in ("Reshape", "ExpandDims", "Squeeze"):
        return False
    if op.type == "StridedSlice":
        steps = tf.get_static_value(op.inputs[3])
        ahead = steps is not None and bool((steps > 0).all())
        return not (ahead and _same_sizes(op.inputs[0], op.outputs[0]))
    return op.type in _SHAPING or op.type in _JOINING or op.type in _SELECTING


def _again(op: Any, convert: Callable[[Any], Any]) -> Sequence[Any]:
    """Writes an operation once more, on other values; returns its outputs."""
    remaining, arguments = list(op.inputs), {}
    values = {id(t) for t in _values_of(op)}
    groups = []
    for argument in op.op_def.input_arg:
        count = op.get_attr(argument.number_attr) if argument.number_attr else 1
        groups.append((argument, remaining[:count]))
        remaining = remaining[count:]
    of = {a.type_attr for a, tensors in groups if any(id(t) in values for t in tensors)} - {""}
    told = {a.type_attr for a, _ in groups} | {a.number_attr for a, _ in groups}
    for argument, tensors in groups:
        changed = [convert(t) if argument.type_attr in of else t for t in tensors]
        arguments[argument.name] = changed if argument.number_attr else changed[0]
    for attribute in op.op_def.attr:
        if attribute.name not in told:
            arguments[attribute.name] = op.get_attr(attribute.name)
    result = op_def_library.apply_op(op.type, **arguments)
    return list(result) if isinstance(result, list | tuple) else [result]


def _limit_of_move(op: Any) -> Tie:
    """Returns the tightest tie that an operation leaves which moves or selects values."""
    if op.type in _SHAPING:
        return Tie.WHOLE
    if op.type in _SELECTING and _same_sizes(op.inputs[0], op.outputs[0]):
        return Tie.WHOLE
    return Tie.PART


def _limit_of_values(op: Any, floating: bool) -> Tie:
    """Returns the tightest tie that an operation leaves which makes values of values."""
    out = op.outputs[0].dtype
    known = {**dict.fromkeys(_LIKE_IDENTITY, Tie.SAME), "ConcatV2": Tie.WHOLE, "Pack": Tie.WHOLE}
    if op.type == "Cast":
        known["Cast"] = _limit_of_cast(op.inputs[0].dtype, out)
    elif op.type == "OneHot" and out.is_floating:
        known["OneHot"] = Tie.WHOLE
    elif op.type in _CHOOSING and _counts_from_the_end(op):
        known[op.type] = Tie.WHOLE
    if op.type in known:
        return known[op.type]
    followed = (*_ELEMENTWISE, *_CHOOSING, *BLENDING)
    unknown = floating and out.is_floating and op.type not in followed
    where = out == tf.bool or op.type in _COUNTING
    return Tie.INDIRECT if where or unknown else Tie.COMPUTED


def _limit_of_cast(before: Any, after: Any) -> Tie:
    if after == tf.bool and before != tf.bool:
        return Tie.INDIRECT
    if after.is_floating:
        return Tie.SAME
    if before.is_floating:
        return Tie.WHOLE
    kept = before == tf.bool or after.size >= min(before.size, _WIDE)
    return Tie.SAME if kept else Tie.COMPUTED


def _counts_from_the_end(op: Any) -> bool:
    """Tells whether an operation is `where(i < 0, i + n, i)`, which leaves ids what they are."""
    condition, moved, plain = op.inputs
    return (
        condition.op.type == "Less"
        and condition.op.inputs[0] is plain
        and moved.op.type in ("Add", "AddV2")
        and moved.op.inputs[0] is plain
    )


def _same_sizes(before: Any, after: Any) -> bool:
    """Tells whether two tensors are known to have the same sizes but for axes of one element."""
    shapes = [t.shape for t in (before, after)]
    if any(s.rank is None or None in list(s)[1:] for s in shapes):
        return False
    return [d for d in shapes[0] if d != 1] == [d for d in shapes[1] if d != 1]


def _keeps_samples(before: Any, after: Any) -> bool:
    """Tells whether a reshape is known to leave the batch axis alone."""
    shapes = [t.shape for t in (before, after)]
    if any(not s.rank or None in list(s)[1:] for s in shapes):
        return False
    sizes = [tf.TensorShape(s[1:]).num_elements() for s in shapes]
    return bool(shapes[0][0] == shapes[1][0] and sizes[0] == sizes[1])


def _counts_up(tensor: Any) -> bool:
    """Tells whether a tensor counts positions: 0, 1, 2, ..."""
    value = tf.get_static_value(tensor)
    if value is not None:
        return counts_up(value)
    while tensor.op.type in ("Cast", "Reshape", "ExpandDims", "BroadcastTo", *_LIKE_IDENTITY):
        tensor = tensor.op.inputs[0]
    return bool(tensor.op.type == "Range")


def _keeps_rows(op: Any, before: Any, after: Any) -> bool:
    """Tells whether an operation leaves the rows along the last axis as they are."""
    if op.type in ("Reshape", "ExpandDims", "Squeeze"):
        sizes = [t.shape[-1] if t.shape.rank else None for t in (before, after)]
        return None not in sizes and sizes[0] == sizes[1]
    return op.type in _LIKE_IDENTITY or op.type == "Cast"


def _keeps_order(op: Any, before: Any, after: Any) -> bool:
    """Tells whether an operation leaves each value in its place of the order."""
    if op.type in ("Reshape", "ExpandDims", "Squeeze"):
        return True
    return not (op.type in _SHAPING or op.type in _JOINING or op.type in _SELECTING) and (
        _begins_with(after, before)
    )


def _begins_with(tensor: Any, index: Any, axes: int | None = None) -> bool:
    """Tells whether a tensor can begin with the axes of another, or the first `axes` of them."""
    if tensor.shape.rank is None or index.shape.rank is None:
        return False
    wanted = index.shape[: index.shape.rank if axes is None else axes]
    return bool(tensor.shape[: wanted.rank].is_compatible_with(wanted))


def _axes_of_numbers(op: Any, index: Any) -> int:
    """Returns how many of the first axes of a result are those of the numbers it is made from."""
    rank = index.shape.rank or 0
    if op.type in _COUNTS:
        return 1
    return rank - 1 if op.type in ("GatherNd", "ResourceGatherNd") else rank


def _first_axis(op: Any) -> int | None:
    """Returns the axis that an operation works along; None where it has no such thing."""
    axes = {"GatherV2": 2, "ConcatV2": len(op.inputs) - 1, "OneHot": None}
    if op.type == "Pack":
        return int(op.get_attr("axis"))
    if op.type == "Transpose":  # where the first axis goes
        order = tf.get_static_value(op.inputs[1])
        return None if order is not None and order[0] == 0 else 0
    place = axes.get(op.type)
    if place is None:
        return None
    value = tf.get_static_value(op.inputs[place])
    return -1 if value is None else int(value)


def _word(op: Any) -> str:
    if op.type in _GATHERING:
        return "lookup"
    if op.type in BLENDING:
        return "cast"
    return {"OneHot": "one_hot", "Cast": "cast"}.get(op.type, str(op.type).lower())


def _rows(op: Any) -> int | None:
    """Returns the number of entries of a table that is looked up along its first axis."""
    if op.type not in ("Gather", "GatherV2", "ResourceGather") or _first_axis(op) not in (0, None):
        return None
    if op.type == "ResourceGather":
        return _rows_of_handle(op.inputs[0])
    shape = op.inputs[0].shape
    return shape[0] if shape.rank else None


def _rows_of_handle(handle: Any) -> int | None:
    data = getattr(handle, "_handle_data", None)
    shapes = [s.shape for s in data.shape_and_type] if data is not None else []
    sizes = [d.size for d in shapes[0].dim] if shapes else []
    return sizes[0] if sizes else None
