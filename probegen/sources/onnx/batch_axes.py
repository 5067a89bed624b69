"""Which axis of every tensor the samples lie along, followed from the inputs through the graph.

An axis is a product of factors: its size, or the batch times other sizes where samples were joined
with something else. Windows of an image are joined with the batch (`[batch*windows, query, key]`),
and so are heads: such an axis is not the batch, and a tensor that has one is not `[batch, ...]`.

    [batch, 3, 7, 3, 7, c] -> Transpose -> Reshape -> [batch*9, 49, c]: axis 0 is (batch, 3, 3)
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.queries import RECURRENT, inputs_of
from probegen.graph.core.size_products import factors_of
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of, whole_numbers
from probegen.graph.loops.iteration import is_loop, iteration_of, trip_count
from probegen.graph.passes.before.name_open_sizes import BROADCASTING
from probegen.plan.positions import matched_from_both_ends


class _Batch(enum.Enum):
    """The factor that counts the samples."""

    ONE = "batch"


#: The number of samples, as a factor of an axis.
SAMPLES = _Batch.ONE
Factor = Dim | _Batch
#: The factors of one axis, the slowest first; of none is an axis of size 1.
Axis = tuple[Factor, ...]
#: The axes of a tensor.
Factors = tuple[Axis, ...]

_CHANNELS_SECOND = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool"}
    | {"GlobalAveragePool", "GlobalLpPool", "DepthToSpace", "SpaceToDepth", "GridSample"}
)
_SAME_RANK = frozenset({"Slice", "Pad", "Resize", "Upsample", "Tile", "CenterCropPad", "DFT"})
_BROADCASTING = BROADCASTING | {"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Expand"}
_REDUCING = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"}
    | {"ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin"}
)


class BatchAxes:
    """Follows the batch from the inputs of a graph to all of its tensors."""

    def __init__(self, graph: ir.Graph, axes: Mapping[ir.Value, int | None], size: Dim) -> None:
        """Follows.

        Args:
            graph: with shapes inferred.
            axes: input -> its axis of the batch, None where it has none.
            size: of the batch: a number, a name, or None where nothing is known.
        """
        self._size = size
        self._found: dict[ir.Value, Factors | None] = {}
        self._lost: set[ir.Value] = set()
        for value, axis in axes.items():
            shape = shape_of(value)
            if shape is not None:
                self._found[value] = tuple(
                    (SAMPLES,) if i == axis else (d,) for i, d in enumerate(shape)
                )
        for node in graph:
            self._follow(node)

    def factors(self, value: ir.Value) -> Factors | None:
        """Returns the factors of each axis, None where they are not known."""
        if value in self._found:
            return self._found[value]
        return self._by_sizes(value)

    def axis(self, value: ir.Value) -> int | None:
        """Returns the axis that counts samples and nothing else, None where there is none."""
        found = self.factors(value)
        return (
            None
            if found is None
            else next((i for i, f in enumerate(found) if f == (SAMPLES,)), None)
        )

    def joined(self, value: ir.Value) -> int | None:
        """Returns the axis along which samples are joined with something else, if there is one."""
        found = self.factors(value) or ()
        return next((i for i, f in enumerate(found) if SAMPLES in f and f != (SAMPLES,)), None)

    # -- one node --------------------------------------------------------------------------

    def _by_sizes(self, value: ir.Value) -> Factors | None:
        """Returns what names of sizes tell of a tensor that nothing else is known of."""
        shape = shape_of(value)
        if shape is None:
            return None
        named = isinstance(self._size, str)
        if named and shape.count(self._size) == 1:
            return tuple((SAMPLES,) if d == self._size else (d,) for d in shape)
        settled = value.is_initializer() or constant_of(value) is not None
        if settled or (named and all(isinstance(d, int) for d in shape)):
            return tuple((d,) for d in shape)
        return None

    def _follow_loop(self, node: ir.Node) -> None:
        """Follows through the body of a loop, and to what comes out of it.

        What a state has before the first step it has at each; where that does not tell, as of
        zeros of a computed size, what a step makes of it does.
        """
        iteration = iteration_of(node)
        for state in iteration.states:
            self._enter(state.entering, self.factors(state.initial))
        for sequence in iteration.scan_inputs:
            whole = self.factors(sequence.sequence)
            if whole is not None:
                entry = (*whole[: sequence.axis], *whole[sequence.axis + 1 :])
                self._enter(sequence.entering, entry)
        self._follow_body(iteration.body)
        unknown = [s for s in iteration.states if not self._has_samples(s.entering)]
        told = [s for s in unknown if self._has_samples(s.leaving)]
        for state in told:
            self._enter(state.entering, self.factors(state.leaving))
        if told:
            self._follow_body(iteration.body)
        for state in iteration.states:
            self._enter(state.final, self.factors(state.leaving))
        steps = trip_count(iteration)
        for stack in iteration.scan_outputs:
            each = self.factors(stack.leaving)
            if each is not None:
                self._enter(stack.stacked, (*each[: stack.axis], (steps,), *each[stack.axis :]))

    def _follow_body(self, body: ir.Graph) -> None:
        for inner in body:
            self._follow(inner)

    def _enter(self, value: ir.Value, factors: Factors | None) -> None:
        """Notes the factors of a value, where it has as many axes."""
        shape = shape_of(value)
        if factors is not None and (shape is None or len(shape) == len(factors)):
            self._found[value] = factors

    def _has_samples(self, value: ir.Value) -> bool:
        return any(SAMPLES in f for f in self.factors(value) or ())

    def _follow(self, node: ir.Node) -> None:
        if is_loop(node):
            self._follow_loop(node)
            return
        rule = _RULES.get(node.op_type) if not node.domain else None
        for place, result in enumerate(node.outputs):
            shape = shape_of(result)
            if shape is None or not result.name:
                continue
            if not any(v in self._found for v in inputs_of(node)):
                continue
            found = self._by_rule(node, place, rule, shape)
            if found is not None and sum(SAMPLES in f for f in found) > 1:
                found = None  # samples against samples: no axis is that of the batch
            found = found if found is not None else self._by_sizes(result)
            self._found[result] = found
            self._lost.discard(result)  # of a body that is followed once more
            if found is None and self._loses(node):
                self._lost.add(result)

    def is_lost(self, value: ir.Value) -> bool:
        """Tells whether samples lie along some axis, alone or joined, and nobody can say which."""
        return value in self._lost

    def _loses(self, node: ir.Node) -> bool:
        if any(v in self._lost for v in inputs_of(node)):
            return True
        first = self._found.get(node.inputs[0]) if node.inputs and node.inputs[0] else None
        return node.op_type == "Reshape" and any(SAMPLES in f for f in first or ())

    def _by_rule(
        self, node: ir.Node, place: int, rule: _Rule | None, shape: tuple[Dim, ...]
    ) -> Factors | None:
        given = [None if v is None else self.factors(v) for v in node.inputs]
        if node.op_type == "Reshape" and not node.domain:
            found = None if given[0] is None else regrouped(given[0], shape, self._size)
        elif rule is not None:
            found = rule(node, place, given, shape)
        elif given and given[0] is not None and _alike(_shape(node.inputs[0]), shape):
            found = given[0]
        else:
            found = None
        return found if found is not None and len(found) == len(shape) else None


#: (node, which of its results, the factors of its operands, the shape of the result) -> factors.
_Rule = Callable[[ir.Node, int, list[Factors | None], tuple[Dim, ...]], Factors | None]


def _shape(value: ir.Value | None) -> tuple[Dim, ...] | None:
    return None if value is None else shape_of(value)


def _alike(source: tuple[Dim, ...] | None, result: tuple[Dim, ...]) -> bool:
    """Tells whether two shapes may be the same: of one rank, no numbers that differ."""
    if source is None or len(source) != len(result):
        return False
    pairs = zip(source, result, strict=True)
    return all(a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in pairs)


def _first(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    """Returns the factors of the first operand, with other sizes where these have changed."""
    del place
    source = given[0]
    before = _shape(node.inputs[0])
    if source is None or before is None or len(source) != len(shape):
        return None
    kept = _untouched(node, len(shape))
    found = []
    for i, (factors, a, b) in enumerate(zip(source, before, shape, strict=True)):
        if i in kept or (a == b and a is not None):
            found.append(factors)
        elif SAMPLES in factors:
            return None
        else:
            found.append((b,))
    return tuple(found)


def _untouched(node: ir.Node, rank: int) -> set[int]:
    """Returns the axes that an operator leaves alone, as far as its constants say."""
    constants = [constant_of(v) for v in node.inputs]
    every = set(range(rank))
    if node.op_type == "Slice":
        if len(constants) < 4 or node.inputs[3] is None:
            return every - set(range(0 if constants[1] is None else constants[1].size))
        return set() if constants[3] is None else every - {int(a) % rank for a in constants[3]}
    if node.op_type == "Tile" and constants[1] is not None:
        return {i for i, times in enumerate(constants[1].tolist()) if times == 1}
    if node.op_type == "Pad" and len(constants) < 4 and constants[1] is not None:
        pads = constants[1].reshape(2, -1)
        return {i for i in every if pads.shape[1] == rank and not pads[:, i].any()}
    return {0} if node.op_type in ("Resize", "Upsample") else set()


def _channels_second(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del node, place
    source = given[0]
    if source is None or any(SAMPLES in f for f in source[1:]):
        return None
    return (source[0], *((d,) for d in shape[1:]))


def _along(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    """Returns the factors where an operator changes one axis alone, which an attribute says."""
    del place
    axis = attribute(node, "axis", -1 if node.op_type == "TopK" else 0) % max(len(shape), 1)
    sources = [g for g in given[: None if node.op_type == "Concat" else 1] if g is not None]
    batched = (g for g in sources if any(SAMPLES in f for f in g))
    best = next(batched, next(iter(sources), None))
    if best is None or len(best) != len(shape) or SAMPLES in best[axis]:
        return None
    return tuple((shape[i],) if i == axis else f for i, f in enumerate(best))


def _broadcasting(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    """Returns the factors of operands that are aligned from behind; those of samples first."""
    del place
    count = 1 if node.op_type == "Expand" else len(given)
    operands = []
    unknown = False
    for value, factors in list(zip(node.inputs, given, strict=True))[:count]:
        own = _shape(value)
        if own is None or factors is None:
            unknown = True
        else:
            operands.append((own, factors))
    if unknown and not any(SAMPLES in axis for _, factors in operands for axis in factors):
        return None
    found: list[Axis] = []
    for i, size in enumerate(shape):
        here = []
        for own, factors in operands:
            at = i - (len(shape) - len(own))
            if at >= 0 and (own[at] != 1 or SAMPLES in factors[at]):
                here.append(factors[at])
        with_samples = [f for f in here if SAMPLES in f]
        found.append(next(iter(with_samples or here), (size,)))
    if node.op_type == "Expand" and not any(SAMPLES in f for f in found):
        return None  # expanded to the batch, perhaps: the sizes' names tell
    return tuple(found)


def _transpose(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del place
    perm = attribute(node, "perm") or list(range(len(shape)))[::-1]
    return None if given[0] is None else tuple(given[0][p] for p in perm)


def _squeeze(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del place
    source, axes = given[0], whole_numbers(node, "axes", 1)
    if source is None:
        return None
    if axes is None:
        before = _shape(node.inputs[0])
        axes = [i for i, d in enumerate(before or ()) if d == 1]
    gone = {a % len(source) for a in axes}
    del shape
    return tuple(f for i, f in enumerate(source) if i not in gone)


def _unsqueeze(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del place
    source, axes = given[0], whole_numbers(node, "axes", 1)
    if source is None or axes is None:
        return None
    new = {a % len(shape) for a in axes}
    rest = iter(source)
    return tuple((1,) if i in new else next(rest, ()) for i in range(len(shape)))


def _reduce(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del place
    source = given[0]
    if source is None:
        return None
    if node.op_type in ("ArgMax", "ArgMin"):
        axes: list[int] | None = [attribute(node, "axis", 0)]
    else:
        axes = whole_numbers(node, "axes", 1)
    known = len(node.inputs) < 2 or node.inputs[1] is None or axes is not None
    if not known:
        return None
    every = [] if attribute(node, "noop_with_empty_axes", 0) else list(range(len(source)))
    gone = {a % len(source) for a in (axes or every)}
    if len(shape) == len(source):
        return tuple((1,) if i in gone else f for i, f in enumerate(source))
    return tuple(f for i, f in enumerate(source) if i not in gone)


def _gather(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del place, shape
    data, ids = given[0], given[1]
    if data is None or ids is None:
        return None
    axis = attribute(node, "axis", 0) % max(len(data), 1)
    if SAMPLES in data[axis]:
        return None
    return (*data[:axis], *ids, *data[axis + 1 :])


def _gather_elements(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del place
    data, ids = given[0], given[1]
    axis = attribute(node, "axis", 0) % max(len(shape), 1)
    if data is None or SAMPLES in data[axis] or len(data) != len(shape):
        return None
    behind = ids[axis] if ids is not None and len(ids) == len(shape) else (shape[axis],)
    return tuple(behind if i == axis else f for i, f in enumerate(data))


def _matmul(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del node, place
    return None if given[0] is None or given[1] is None else _product_of(given[0], given[1], shape)


def _product_of(a: Factors, b: Factors, shape: tuple[Dim, ...]) -> Factors | None:
    """Returns the factors of a matrix product."""
    if len(a) < 2 or len(b) < 2:
        return a[:-1] if len(b) == 1 and len(a) >= 2 and SAMPLES not in a[-1] else None
    if SAMPLES in a[-1] or SAMPLES in b[-2]:
        # Summed over the samples: what is left has no batch of its own.
        return tuple((d,) for d in shape) if all(isinstance(d, int) for d in shape) else None
    lead: list[Axis] = []
    for i in range(len(shape) - 2):
        here = [f[j] for f in (a, b) if (j := i - (len(shape) - len(f))) >= 0 and f[j] != (1,)]
        with_samples = [f for f in here if SAMPLES in f]
        lead.append(next(iter(with_samples or here), (1,)))
    return (*lead, a[-2], b[-1])


def _gemm(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del place
    a, b = given[0], given[1]
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    if attribute(node, "transA", 0):
        a = a[::-1]
    if attribute(node, "transB", 0):
        b = b[::-1]
    return _product_of(a, b, shape)


def _einsum(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del place, shape
    terms, arrow, result = str(attribute(node, "equation")).replace(" ", "").partition("->")
    if not arrow or "." in terms:
        return None
    letters: dict[str, Axis] = {}
    for term, factors in zip(terms.split(","), given, strict=True):
        if factors is None or len(term) != len(factors):
            return None
        for letter, axis in zip(term, factors, strict=True):
            if letter not in letters or SAMPLES in axis or letters[letter] == (1,):
                letters[letter] = axis
    return tuple(letters[letter] for letter in result)


def _recurrent(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    source = given[0]
    if source is None or len(source) != 3:
        return None
    batch_first = attribute(node, "layout", 0) == 1
    time, batch = (source[1], source[0]) if batch_first else (source[0], source[1])
    directions, units = ((shape[-2],) if batch_first else (shape[-3],)), (shape[-1],)
    if place == 0:
        return (batch, time, directions, units) if batch_first else (time, directions, batch, units)
    return (batch, directions, units) if batch_first else (directions, batch, units)


def _flatten(
    node: ir.Node, place: int, given: list[Factors | None], shape: tuple[Dim, ...]
) -> Factors | None:
    del place
    source = given[0]
    if source is None or len(shape) != 2:
        return None
    axis = attribute(node, "axis", 1)
    axis = axis + len(source) if axis < 0 else axis
    return (_product(source[:axis]), _product(source[axis:]))


def _product(axes: Sequence[Axis]) -> Axis:
    found = tuple(f for axis in axes for f in axis if f != 1)
    return found or (1,)


def regrouped(source: Factors, shape: Sequence[Dim], batch: Dim = None) -> Factors | None:
    """Returns the factors of the axes of a tensor that was reshaped, None where it cannot be told.

    Sizes are matched from the front and from behind; one axis in the middle gets what is left.

    Args:
        source: of the tensor before.
        shape: afterwards.
        batch: the number of samples, where it is known.
    """
    left = [f for axis in source for f in axis if f != 1]
    found, places = matched_from_both_ends(
        shape, lambda size, backwards: _take(left, size, backwards, batch)
    )
    if len(places) == 1:
        found[places[0]] = tuple(left) or (1,)
        left = []
    elif places:
        return _in_whole_axes(source, shape)
    if SAMPLES in left:
        return None
    return tuple(f for f in found if f is not None)


def _in_whole_axes(source: Factors, shape: Sequence[Dim]) -> Factors | None:
    """Returns the factors where axes were joined and none was cut, if one way alone does that."""
    whole = [axis for axis in source if axis != (1,)]
    groups = list(_in_groups(whole, shape))
    if len(groups) != 1:
        groups = list(_in_groups([(f,) for axis in whole for f in axis], shape))
    return tuple(groups[0]) if len(groups) == 1 else None


def _in_groups(axes: Sequence[Axis], sizes: Sequence[Dim]) -> Iterator[list[Axis]]:
    """Yields the ways of joining axes, cutting none: open sizes take one or more."""
    if not sizes:
        if not axes:
            yield []
        return
    if sizes[0] == 1:
        yield from ([(1,), *rest] for rest in _in_groups(axes, sizes[1:]))
        return
    for count in range(1, len(axes) + 1):
        group = tuple(f for axis in axes[:count] for f in axis)
        numbers = [f for f in group if isinstance(f, int)]
        whole = len(numbers) == len(group)
        if isinstance(sizes[0], int) and not (whole and math.prod(numbers) == sizes[0]):
            continue
        for rest in _in_groups(axes[count:], sizes[1:]):
            yield [group, *rest]


def _take(left: list[Factor], size: Dim, backwards: bool, batch: Dim) -> Axis | None:
    """Takes the factors of one size away from an end; None where they do not make it up."""
    end = -1 if backwards else 0
    if size == 1:
        alone = batch == 1 and not backwards and left[:1] == [SAMPLES]
        return (left.pop(0),) if alone else (1,)
    if not isinstance(size, int):
        return None if size is None else _take_product(left, size, backwards, batch)
    taken: list[Factor] = []
    rest, kept = size, list(left)
    while rest > 1 and kept:
        factor = kept.pop(end)
        if factor is SAMPLES:
            if not isinstance(batch, int) or rest % batch:
                return None
            taken.append(SAMPLES)
            rest //= batch
            continue
        if not isinstance(factor, int):
            factor = rest  # an open size that this file was traced at
        if factor % rest == 0 and factor != rest:
            kept.insert(len(kept) if backwards else 0, factor // rest)
            factor = rest
        following = kept[end] if kept else None
        if rest % factor == 0:
            taken.append(factor)
            rest //= factor
        elif isinstance(following, int):
            kept[end] = following * factor  # sizes that were regrouped: 6, 4 -> 8, 3
        else:
            return None
    if rest > 1:
        return None
    left[:] = kept
    return tuple(reversed(taken)) if backwards else tuple(taken)


def _take_product(left: list[Factor], size: str, backwards: bool, batch: Dim) -> Axis | None:
    """Takes the factors of an open size away from an end; None where they do not make it up."""
    end = -1 if backwards else 0
    number, names = factors_of(size)
    taken: list[Factor] = []
    kept = list(left)
    while names or number > 1:
        factor = kept.pop(end) if kept else None
        if isinstance(factor, int):
            own = math.gcd(factor, number)
            if own == 1:
                return None
            if own < factor:  # cut: what is left of it stays
                kept.insert(len(kept) if backwards else 0, factor // own)
            number //= own
            taken.append(own)
            continue
        held, more = factors_of(str(batch if factor is SAMPLES else factor))
        if factor is None or (factor is SAMPLES and batch is None) or number % held:
            return None
        if not more <= names:
            return None
        number, names = number // held, names - more
        taken.append(factor)
    left[:] = kept
    return tuple(reversed(taken)) if backwards else tuple(taken)


_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(_CHANNELS_SECOND, _channels_second),
    **dict.fromkeys(_SAME_RANK, _first),
    **dict.fromkeys(_BROADCASTING, _broadcasting),
    **dict.fromkeys(RECURRENT, _recurrent),
    **dict.fromkeys(("Concat", "Split", "TopK"), _along),
    **dict.fromkeys(_REDUCING, _reduce),
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Flatten": _flatten,
}
