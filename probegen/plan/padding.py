"""Which values of an input mean that there is nothing: padding, told by what a model computes.

A mask is made of an input's own numbers (`ids != 0`) or is fed as an input, and is what attention
adds a large negative number by, what a layer gets as its mask, or what positions are multiplied by.
Numbers of inputs are followed through the graph as functions of one value: each is evaluated on all
candidates, so that it does not matter how a model spells the comparison, nor whether 1 means that
a position counts or that it does not. Sources say what an operation does (`Step`); nothing here
knows a framework.

    ids -> ids != 0 -> 1 - cast -> * -1e9 -> + scores: 0 is padding of `ids`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import Padding

Array = npt.NDArray[Any]

#: What is added to scores is a penalty from here on.
PENALTY = -1e4
#: Values that are tried of ids: no table is larger than that need be.
_MOST_CANDIDATES = 4096
#: More values than these are no padding but a kind of token.
_MOST_VALUES = 4

#: Operations on numbers one by one: name -> the function.
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "same": lambda x: x,
    "truth": lambda x: x != 0,
    "not": lambda x: x == 0,
    "negative": lambda x: -x,
    "abs": np.abs,
    "sign": np.sign,
    "equal": lambda a, b: a == b,
    "different": lambda a, b: a != b,
    "greater": lambda a, b: a > b,
    "at_least": lambda a, b: a >= b,
    "less": lambda a, b: a < b,
    "at_most": lambda a, b: a <= b,
    "and": lambda a, b: (a != 0) & (b != 0),
    "or": lambda a, b: (a != 0) | (b != 0),
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "largest": np.maximum,
    "smallest": np.minimum,
}
SELECT = "select"
#: Kinds of operations that bring vectors of the same positions together, and no more than that.
JOIN = "join"
_ALIGNING = frozenset({JOIN, "add", "subtract", "multiply"})
#: Operations that keep a mask one where a further condition is joined to it: a causal one.
_NARROWING = frozenset({"and", "multiply", "smallest", "add"})


@dataclasses.dataclass(frozen=True)
class Operand:
    """What an operation reads.

    Attributes:
        key: the tensor.
        number: its value, where that is one number that is always the same.
        is_data: whether it holds floating numbers that depend on what is fed.
    """

    key: Hashable
    number: float | None = None
    is_data: bool = False


@dataclasses.dataclass(frozen=True)
class Step:
    """What an operation does to numbers.

    Attributes:
        kind: a name of `_FUNCTIONS`, `"select"` (condition, where true, where false), `"join"` for
            sums of several and for vectors put behind each other, or `""` for the rest.
        operands: what it reads.
        results: the tensors that it makes.
    """

    kind: str
    operands: tuple[Operand, ...]
    results: tuple[Hashable, ...]


@dataclasses.dataclass(frozen=True)
class Fed:
    """An input of the model.

    Attributes:
        key: its tensor.
        name: its name.
        shape: its sizes.
        values: the values that it may have; None for any number.
        is_mask: whether it only says which positions count: it has no padding of its own.
    """

    key: Hashable
    name: str
    shape: tuple[int | None, ...]
    values: Sequence[int] | None = None
    is_mask: bool = False

    @property
    def wide(self) -> list[int | None]:
        """The sizes of the axes that can hold more than one position, channels included."""
        return [d for d in self.shape if d != 1]


def legal_values(
    is_mask: bool, is_float: bool, rows: int | None, constants: Iterable[float]
) -> list[int] | None:
    """Returns the values of an input that are tried; None for any number.

    Args:
        is_mask: whether the input says which positions count.
        is_float: whether it holds floating numbers that are no ids.
        rows: the size of its vocabulary, where known.
        constants: numbers that the model compares with.
    """
    if is_mask:
        return [0, 1]
    if is_float:
        return None
    near = {int(c) + d for c in constants if float(c).is_integer() for d in (-1, 0, 1)}
    if rows is not None:
        return sorted({*range(min(rows, _MOST_CANDIDATES)), *(v for v in near if 0 <= v < rows)})
    return sorted({*range(-1, 64), *(v for v in near if abs(v) < 2**24)})


class PaddingFinder:
    """Follows the numbers of inputs through one graph, and notes where they mask."""

    def __init__(self, inputs: Sequence[Fed], constants: Iterable[float] = ()) -> None:
        """Prepares for one graph.

        Args:
            inputs: what is fed, in order.
            constants: numbers that the model compares with.
        """
        self._inputs = list(inputs)
        others = sorted({float(c) for c in constants})
        around = sorted({c + d for c in (*others, 0.0) for d in (0.0, 1.0)})
        self._candidates = [
            np.asarray(around if fed.values is None else fed.values, np.float64) for fed in inputs
        ]
        #: Tensor -> position of an input -> its value for each candidate of that.
        self._told: dict[Hashable, dict[int, Array]] = {
            fed.key: {i: self._candidates[i]} for i, fed in enumerate(inputs)
        }
        #: Tensor -> the inputs that it is computed from.
        self._from: dict[Hashable, frozenset[int]] = {
            fed.key: frozenset([i]) for i, fed in enumerate(inputs)
        }
        #: Tensor -> the inputs whose positions it has, as long as nothing else came in between.
        self._stream = {f.key: frozenset([i]) for i, f in enumerate(inputs) if not f.is_mask}
        #: Inputs whose positions are the same ones, in pairs.
        self._aligned: set[frozenset[int]] = set()
        #: Position of an input -> which of its candidates mask, and what is masked, in order.
        self._masks: dict[int, list[tuple[Array, frozenset[int]]]] = {}

    def depends(self, key: Hashable) -> bool:
        """Tells whether a tensor is computed from what is fed."""
        return key in self._from

    def is_told(self, key: Hashable) -> bool:
        """Tells whether a tensor is a function of single values."""
        return key in self._told

    def follow(self, step: Step) -> None:
        """Follows one operation."""
        of = frozenset[int]().union(*(self._from.get(o.key, frozenset()) for o in step.operands))
        if not of:
            return
        self._from.update(dict.fromkeys(step.results, of))
        self._follow_stream(step)
        told = self._select(step) if step.kind == SELECT else self._computed(step)
        if told:
            self._told.update(dict.fromkeys(step.results, told))

    def mask(self, mask: Hashable, data: Iterable[Hashable]) -> None:
        """Notes that a layer gets a mask beside what is masked: it counts where it is true."""
        for position, values in self._told.get(mask, {}).items():
            self._note(position, values == 0, data)

    def found(self) -> dict[int, Padding]:
        """Returns the positions of inputs -> what says where they are padding.

        A mask that is fed belongs to the inputs, of its positions, of what it masks first.
        """
        found: dict[int, Padding] = {}
        for position, masks in self._masks.items():
            fed = self._inputs[position]
            own = None if fed.is_mask else self._padding(position, [m for m, _ in masks])
            if own is not None:
                found[position] = own
        for position, masks in self._masks.items():
            if not self._inputs[position].is_mask:
                continue
            for mask, data in masks:
                told = self._padding(position, [mask])
                fitting = [i for i in sorted(data) if i != position and self._fits(position, i)]
                if told is not None and fitting:
                    found.update((i, told) for i in fitting)
                    break
        return found

    # -- one operation ---------------------------------------------------------------------

    def _follow_stream(self, step: Step) -> None:
        """Keeps in mind whose positions tensors have: tokens and their segments have the same."""
        streams = {self._stream[o.key] for o in step.operands if o.key in self._stream}
        whole = frozenset[int]().union(*streams)
        if len(streams) > 1 and step.kind in _ALIGNING:
            self._aligned.update(frozenset((i, j)) for i in whole for j in whole if i != j)
        if len(streams) == 1 or (streams and step.kind in _ALIGNING):
            self._stream.update(dict.fromkeys(step.results, whole))

    def _computed(self, step: Step) -> dict[int, Array]:
        function = _FUNCTIONS.get(step.kind)
        read = [o for o in step.operands if o.key in self._told]
        if function is None or not read:
            return {}
        others = [o for o in step.operands if o.key not in self._told]
        if len(step.operands) == 1:
            return self._each(read[0], function)
        if len(read) == len(step.operands):
            return self._joined(step, function)
        other = others[0]
        if other.number is not None:
            first = step.operands[0] is read[0]
            number = other.number
            return self._each(
                read[0], lambda x: function(x, number) if first else function(number, x)
            )
        if other.is_data:
            self._meet(step.kind, read[0], other)
            return {}
        return dict(self._told[read[0].key]) if step.kind in _NARROWING else {}

    def _each(self, operand: Operand, function: Callable[[Array], Any]) -> dict[int, Array]:
        with np.errstate(all="ignore"):
            return {
                i: np.asarray(function(values), np.float64)
                for i, values in self._told[operand.key].items()
            }

    def _joined(self, step: Step, function: Callable[..., Any]) -> dict[int, Array]:
        """Returns what an operation makes of tensors that are all told."""
        a, b = (self._told[o.key] for o in step.operands[:2])
        if set(a) == set(b) and len(a) == 1:
            with np.errstate(all="ignore"):
                return {i: np.asarray(function(a[i], b[i]), np.float64) for i in a}
        return {**b, **a} if step.kind in _NARROWING else {}

    def _select(self, step: Step) -> dict[int, Array]:
        condition, yes, no = step.operands
        conditions = self._told.get(condition.key, {})
        if yes.number is not None and no.number is not None:
            a, b = yes.number, no.number
            return {i: np.where(c != 0, a, b) for i, c in conditions.items()}
        for number, other, chosen in ((yes.number, no, True), (no.number, yes, False)):
            if number is not None and (number <= PENALTY or number == 0) and other.is_data:
                for i, values in conditions.items():
                    self._note(i, (values != 0) == chosen, [other.key])
        # `where(ids < 0, ids + n, ids)` counts from the end.
        plain = self._told.get(no.key, {})
        return dict(plain) if plain and set(plain) == set(conditions) else {}

    def _meet(self, kind: str, told: Operand, data: Operand) -> None:
        """Notes what is told where it meets the numbers that it masks."""
        for position, values in self._told[told.key].items():
            levels = np.unique(values)
            if len(levels) != 2:
                continue
            if kind == "add" and levels[0] <= PENALTY < levels[1]:
                self._note(position, values <= PENALTY, [data.key])
            if kind == "multiply" and levels[0] == 0:
                self._note(position, values == 0, [data.key])

    def _note(self, position: int, masked: Array, data: Iterable[Hashable]) -> None:
        if masked.any() and not masked.all():
            reached = frozenset[int]().union(*(self._from.get(k, frozenset()) for k in data))
            of = frozenset(i for i in reached if not self._inputs[i].is_mask)
            if any(frozenset((i, j)) not in self._aligned for i in of for j in of if i != j):
                of = frozenset()  # queries and keys, say: whose mask it is cannot be told
            self._masks.setdefault(position, []).append((masked, of))

    # -- what was found --------------------------------------------------------------------

    def _padding(self, position: int, masks: Sequence[Array]) -> Padding | None:
        """Returns the first mask of an input that leaves out a few values; None without one."""
        for masked in masks:
            values = self._candidates[position][masked]
            if 0 < len(values) <= _MOST_VALUES:
                return Padding(self._inputs[position].name, tuple(float(v) for v in values))
        return None

    def _fits(self, mask: int, data: int) -> bool:
        """Tells whether a mask that is fed has the positions of an input."""
        return self._inputs[mask].wide == self._inputs[data].wide[: len(self._inputs[mask].wide)]
