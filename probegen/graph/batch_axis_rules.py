"""What single operators do to the axis that samples lie along: see `batch_axes`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.axis_factors import (
    SAMPLES,
    Axis,
    Factors,
    product_of_axes,
    regrouped,
)
from probegen.graph.core.queries import BROADCASTING, RECURRENT, is_float
from probegen.graph.core.values import (
    Dim,
    attribute,
    constant_of,
    shape_of,
    whole_numbers,
)

_POOLING_ALL = frozenset({"GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"})
_CHANNELS_SECOND = _POOLING_ALL | frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "MaxPool", "AveragePool", "LpPool"}
    | {"DepthToSpace", "SpaceToDepth", "GridSample"}
)
_SAME_RANK = frozenset({"Slice", "Pad", "Resize", "Upsample", "CenterCropPad", "DFT"})
_BROADCASTING = BROADCASTING | {"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Expand"}
_REDUCING = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"}
    | {"ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin"}
)
#: A slice that ends there or behind goes to the end of an axis: converters write various numbers.
_FAR = 10**6


@dataclasses.dataclass
class Step:
    """A node, one of its results, and what is known around them.

    Attributes:
        node: the node.
        place: which of its results.
        given: the factors of its operands.
        shape: of the result.
        size: of the batch.
        outer: the node of the graph itself that it is, or in whose branch or body it stands.
        joins: whether it makes numbers of several samples.
    """

    node: ir.Node
    place: int
    given: list[Factors | None]
    shape: tuple[Dim, ...]
    size: Dim
    outer: ir.Node
    joins: bool = False

    @property
    def first(self) -> Factors | None:
        """The factors of the first operand."""
        return self.given[0] if self.given else None

    def read(self, *axes: Axis) -> bool:
        """Notes that numbers along axes are put together; tells whether samples lie along them."""
        found = any(SAMPLES in axis for axis in axes)
        self.joins |= found
        return found

    def counts(self) -> bool:
        """Tells whether samples are read that hold numbers of their own, not masks.

        Or that are counted one after the other: how many were before tells one from the next.
        """
        one_by_one = self.node.op_type == "CumSum"
        pairs = zip(self.node.inputs, self.given, strict=True)
        return any(
            v is not None and has_samples(f) and (one_by_one or _counts(v)) for v, f in pairs
        )


#: Returns the factors of a result, None where they are not known.
_Rule = Callable[[Step], Factors | None]


def has_samples(factors: Factors | None) -> bool:
    """Tells whether samples lie along some axis, alone or joined."""
    return any(SAMPLES in f for f in factors or ())


def _counts(value: ir.Value) -> bool:
    """Tells whether a value holds numbers of its own, and none made of whole ones, or of masks."""
    node = value.producer()
    before = node.inputs[0] if node is not None and node.op_type == "Cast" else None
    return is_float(value) and (before is None or _counts(before))


def by_rule(step: Step) -> Factors | None:
    """Returns the factors of a step's result, None where its operator does not tell them."""
    node, found = step.node, None
    rule = _RULES.get(node.op_type) if not node.domain else None
    if rule is not None:
        found = rule(step)
    elif step.first is not None and _alike(_shape(node.inputs[0]), step.shape):
        found = step.first
        step.read(*(found[axis] for axis in _axes_read(node, len(found))))
    return found if found is not None and len(found) == len(step.shape) else None


def _shape(value: ir.Value | None) -> tuple[Dim, ...] | None:
    return None if value is None else shape_of(value)


def _alike(source: tuple[Dim, ...] | None, result: tuple[Dim, ...]) -> bool:
    """Tells whether two shapes may be the same: of one rank, no numbers that differ."""
    if source is None or len(source) != len(result):
        return False
    pairs = zip(source, result, strict=True)
    return all(a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in pairs)


def _axes_read(node: ir.Node, rank: int) -> Sequence[int]:
    """Returns the axes that an operator whose result is as large as its operand works along."""
    works_along = None if node.domain or not rank else _READ.get(node.op_type)
    return () if works_along is None else works_along(node, rank)


def _resized(step: Step) -> Factors | None:
    """Returns the factors of the first operand, with other sizes where these have changed."""
    source, before = step.first, _shape(step.node.inputs[0])
    if source is None or before is None or len(source) != len(step.shape):
        return None
    if step.node.op_type == "Slice":
        cuts = _cuts(step.node, len(source))
        if step.read(*(source[i] for i, (a, b) in cuts.items() if a or (b or _FAR) < _FAR)):
            return None
        # Ends that are computed are taken for those of the batch; of two behind each other, of one.
        kept = {
            i
            for i, (start, end) in cuts.items()
            if start == 0 and (SAMPLES in source[i] if end else source[i] == (SAMPLES,))
        }
        kept |= set(range(len(source))) - set(cuts)
    else:
        kept = _untouched(step.node, len(step.shape))
    found = []
    for i, (factors, a, b) in enumerate(zip(source, before, step.shape, strict=True)):
        if i in kept or (a == b and a is not None):
            found.append(factors)
        elif SAMPLES in factors:
            return None
        else:
            found.append((b,))
    return tuple(found)


def _cuts(node: ir.Node, rank: int) -> dict[int, tuple[int | None, int | None]]:
    """Returns the axes that a slice cuts -> its start and its end there, None where unknown."""
    starts, ends = (_entries(v) for v in node.inputs[1:3])
    axes = whole_numbers(node, "", 3)
    if starts is None or (axes is None and len(node.inputs) > 3 and node.inputs[3] is not None):
        return dict.fromkeys(range(rank), (None, None))
    along = range(rank) if axes is None else [axis % rank for axis in axes]
    return dict(zip(along, zip(starts, ends or [None] * len(starts), strict=True), strict=False))


def _entries(value: ir.Value | None) -> list[int | None] | None:
    """Returns the entries of a vector as far as they are known; None where not even their count."""
    constant = constant_of(value)
    if constant is not None:
        return [int(n) for n in constant.reshape(-1)]
    node, shape = (None, None) if value is None else (value.producer(), shape_of(value))
    if node is not None and node.op_type in ("Concat", "Cast"):
        parts = [_entries(v) for v in node.inputs]
        if None not in parts:
            return [n for part in parts for n in part or ()]
    return [None] * shape[0] if shape and isinstance(shape[0], int) else None


def _untouched(node: ir.Node, rank: int) -> set[int]:
    """Returns the axes that an operator leaves alone, as far as its constants say."""
    constants = [constant_of(v) for v in node.inputs]
    every = set(range(rank))
    if node.op_type == "Pad" and len(constants) < 4 and constants[1] is not None:
        pads = constants[1].reshape(2, -1)
        return {i for i in every if pads.shape[1] == rank and not pads[:, i].any()}
    return {0} if node.op_type in ("Resize", "Upsample") else set()


def _tiled(step: Step) -> Factors | None:
    source, times = step.first, constant_of(step.node.inputs[1])
    if source is None or times is None or len(times) != len(source):
        return None if times is not None else _resized(step)
    return tuple(product_of_axes([(int(n),), f]) for n, f in zip(times, source, strict=True))


def _of_maps(step: Step) -> Factors | None:
    node, source = step.node, step.first
    if source is None:
        return None
    if has_samples(source[1:]):
        weight = _shape(node.inputs[1]) if len(node.inputs) > 1 else None
        kernel = attribute(node, "kernel_shape", (weight or ())[2:])
        wide = [n != 1 for n in kernel] or [node.op_type in _POOLING_ALL] * len(source)
        step.read(*(f for f, is_wide in zip(source[2:], wide, strict=False) if is_wide))
        if weight is not None and attribute(node, "group", 1) == 1:
            step.read(source[1])
        return None
    return (source[0], *((d,) for d in step.shape[1:]))


def _along(step: Step) -> Factors | None:
    """Returns the factors where an operator changes one axis alone, which an attribute says.

    Batches behind each other, as those that one network sees, are so many times the samples; they
    are not joined yet.
    """
    node, shape = step.node, step.shape
    axis = attribute(node, "axis", -1 if node.op_type == "TopK" else 0) % max(len(shape), 1)
    behind = node.op_type == "Concat"
    sources = [g for g in step.given[: None if behind else 1] if g is not None]
    best = next(filter(has_samples, sources), next(iter(sources), None))
    if best is None or len(best) != len(shape):
        return None
    own: Axis = (shape[axis],)
    if SAMPLES in best[axis]:
        count = len(node.inputs if behind else node.outputs)
        if node.op_type == "TopK" or (not behind and best[axis] == (SAMPLES,)):
            step.read(best[axis])
            return None
        if behind and len(sources) == count and {s[axis] for s in sources} == {best[axis]}:
            own = product_of_axes([(count,), best[axis]])
        elif not behind and best[axis][0] == count and len(best[axis]) > 1:
            own = best[axis][1:]
        else:
            return None
    return tuple(own if i == axis else f for i, f in enumerate(best))


def _broadcasting(step: Step) -> Factors | None:
    """Returns the factors of operands that are aligned from behind; those of samples first."""
    count = 1 if step.node.op_type == "Expand" else len(step.given)
    operands = []
    unknown = False
    for value, factors in list(zip(step.node.inputs, step.given, strict=True))[:count]:
        own = _shape(value)
        if own is None or factors is None:
            unknown = True
        else:
            operands.append((own, factors))
    if unknown and not any(has_samples(factors) for _, factors in operands):
        return None
    found: list[Axis] = []
    for i, size in enumerate(step.shape):
        here = []
        for own, factors in operands:
            at = i - (len(step.shape) - len(own))
            if at >= 0 and (own[at] != 1 or SAMPLES in factors[at]):
                here.append(factors[at])
        with_samples = [f for f in here if SAMPLES in f]
        found.append(next(iter(with_samples or here), (size,)))
    if step.node.op_type == "Expand" and not has_samples(tuple(found)):
        return None  # expanded to the batch, perhaps: the sizes' names tell
    return tuple(found)


def _reshaped(step: Step) -> Factors | None:
    return None if step.first is None else regrouped(step.first, step.shape, step.size)


def _transposed(step: Step) -> Factors | None:
    perm = attribute(step.node, "perm") or list(range(len(step.shape)))[::-1]
    return None if step.first is None else tuple(step.first[p] for p in perm)


def _squeezed(step: Step) -> Factors | None:
    source, axes = step.first, whole_numbers(step.node, "axes", 1)
    if source is None:
        return None
    if axes is None:
        axes = [i for i, d in enumerate(_shape(step.node.inputs[0]) or ()) if d == 1]
    gone = {a % len(source) for a in axes}
    return tuple(f for i, f in enumerate(source) if i not in gone)


def _unsqueezed(step: Step) -> Factors | None:
    source, axes = step.first, whole_numbers(step.node, "axes", 1)
    if source is None or axes is None:
        return None
    new = {a % len(step.shape) for a in axes}
    rest = iter(source)
    return tuple((1,) if i in new else next(rest, ()) for i in range(len(step.shape)))


def _reduced(step: Step) -> Factors | None:
    node, source = step.node, step.first
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
    step.read(*(source[i] for i in gone))
    if len(step.shape) == len(source):
        return tuple((1,) if i in gone else f for i, f in enumerate(source))
    return tuple(f for i, f in enumerate(source) if i not in gone)


def _gathered(step: Step) -> Factors | None:
    data, ids = step.given[:2]
    if data is None or ids is None:
        return None
    axis = attribute(step.node, "axis", 0) % max(len(data), 1)
    if SAMPLES in data[axis]:
        # In a loop it may be the sample of its step.
        if data[axis] == (SAMPLES,) and step.node.graph is step.outer.graph:
            step.read(data[axis])
        return None
    return (*data[:axis], *ids, *data[axis + 1 :])


def _gathered_elements(step: Step) -> Factors | None:
    data, ids = step.given[:2]
    axis = attribute(step.node, "axis", 0) % max(len(step.shape), 1)
    if data is None or len(data) != len(step.shape) or step.read(data[axis]):
        return None
    behind = ids[axis] if ids is not None and len(ids) == len(data) else (step.shape[axis],)
    return tuple(behind if i == axis else f for i, f in enumerate(data))


def _multiplied(step: Step) -> Factors | None:
    a, b = step.given[:2]
    return None if a is None or b is None else _product_of(step, a, b)


def _product_of(step: Step, a: Factors, b: Factors) -> Factors | None:
    """Returns the factors of a matrix product."""
    if len(a) < 2 or len(b) < 2:
        return a[:-1] if len(b) == 1 and len(a) >= 2 and not step.read(a[-1]) else None
    if step.read(a[-1], b[-2]):
        # What is left has no batch of its own.
        fixed = all(isinstance(d, int) for d in step.shape)
        return tuple((d,) for d in step.shape) if fixed else None
    lead: list[Axis] = []
    for i in range(len(step.shape) - 2):
        aligned = ((f, i - (len(step.shape) - len(f))) for f in (a, b))
        here = [f[j] for f, j in aligned if j >= 0 and f[j] != (1,)]
        with_samples = [f for f in here if SAMPLES in f]
        lead.append(next(iter(with_samples or here), (1,)))
    return (*lead, a[-2], b[-1])


def _gemm(step: Step) -> Factors | None:
    a, b = step.given[:2]
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    if attribute(step.node, "transA", 0):
        a = a[::-1]
    if attribute(step.node, "transB", 0):
        b = b[::-1]
    return _product_of(step, a, b)


def _einsum(step: Step) -> Factors | None:
    equation = str(attribute(step.node, "equation")).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    if not arrow or "." in terms:
        return None
    letters: dict[str, Axis] = {}
    for term, factors in zip(terms.split(","), step.given, strict=True):
        if factors is None or len(term) != len(factors):
            return None
        for letter, axis in zip(term, factors, strict=True):
            if letter not in letters or SAMPLES in axis or letters[letter] == (1,):
                letters[letter] = axis
    step.read(*(axis for letter, axis in letters.items() if letter not in result))
    return tuple(letters[letter] for letter in result)


def _recurrent(step: Step) -> Factors | None:
    source, shape = step.first, step.shape
    if source is None or len(source) != 3:
        return None
    batch_first = attribute(step.node, "layout", 0) == 1
    time, batch = (source[1], source[0]) if batch_first else (source[0], source[1])
    step.read(time)
    directions, units = ((shape[-2],) if batch_first else (shape[-3],)), (shape[-1],)
    if step.place == 0:
        return (batch, time, directions, units) if batch_first else (time, directions, batch, units)
    return (batch, directions, units) if batch_first else (directions, batch, units)


def _flattened(step: Step) -> Factors | None:
    source = step.first
    if source is None or len(step.shape) != 2:
        return None
    axis = attribute(step.node, "axis", 1)
    axis = axis + len(source) if axis < 0 else axis
    return (product_of_axes(source[:axis]), product_of_axes(source[axis:]))


_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(_CHANNELS_SECOND, _of_maps),
    **dict.fromkeys(_SAME_RANK, _resized),
    **dict.fromkeys(_BROADCASTING, _broadcasting),
    **dict.fromkeys(RECURRENT, _recurrent),
    **dict.fromkeys(("Concat", "Split", "TopK"), _along),
    **dict.fromkeys(_REDUCING, _reduced),
    "Einsum": _einsum,
    "Flatten": _flattened,
    "Gather": _gathered,
    "GatherElements": _gathered_elements,
    "Gemm": _gemm,
    "MatMul": _multiplied,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Tile": _tiled,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}


def _one_axis(node: ir.Node, rank: int) -> Sequence[int]:
    return [attribute(node, "axis", -1) % rank]


def _from_axis(node: ir.Node, rank: int) -> Sequence[int]:
    return range(attribute(node, "axis", -1) % rank, rank)


#: What operators of results as large as their operand work along: (node, rank) -> axes.
_READ: Mapping[str, Callable[[ir.Node, int], Sequence[int]]] = {
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), _one_axis),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _from_axis),
    "BatchNormalization": lambda node, rank: (
        (0, *range(2, rank)) if attribute(node, "training_mode", 0) else ()
    ),
    "CumSum": lambda node, rank: [axis % rank for axis in whole_numbers(node, "", 1) or ()],
    "GroupNormalization": lambda _, rank: range(1, rank),
    "InstanceNormalization": lambda _, rank: range(2, rank),
    "MeanVarianceNormalization": lambda node, _: attribute(node, "axes", [0, 2, 3]),
    "ReverseSequence": lambda node, _: [attribute(node, "time_axis", 0)],
}
