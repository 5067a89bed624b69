"""What attributions of a graph should be: differences of the graph itself, and plain numpy.

Scores are those of the graph in float64: in onnxruntime where it has all its operators in that
type, else in onnx's reference evaluator where that computes the same and is fast enough. Else they
are those of onnxruntime in float32, by larger steps and with less precision. Nothing of probegen's
own references is used.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import probegen as pg
from fuzz import twins
from fuzz.onnx_case import OnnxCase, Output, pruned
from fuzz.onnx_drawing import named, session_of
from fuzz.scoring import Gradient
from fuzz.twins_by_rules import RULES
from fuzz.wide_operators import OPERATORS

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]

#: What is added to a tensor inside of the graph.
_SHIFT = "added_to_a_tensor"
#: Steps of differences in float64 and in float32, and by how much the slopes of both sides may be
#: apart where there is no kink between, beside the slopes themselves.
_STEPS, _SMOOTH = {True: 1e-5, False: 5e-3}, {True: 1e-4, False: 2e-2}
#: How near slopes over a step and half of it have to be. Where a function is odd, as is a
#: normalisation around 0, both sides of a step agree however much it bends there.
_FINE = {True: 1e-4, False: 5e-3}
#: What counts as a slope, where all are less.
_LEAST = 1e-2
#: Rounding of a score in float64 and float32, and how far above it slopes have to be.
_ROUNDING, _ABOVE_ROUNDING = {True: 4e-16, False: 2e-7}, 100
#: Directions in which a row is moved as a whole, to tell whether it lies at a kink.
_DIRECTIONS = 3
_BOTH_SIDES = 2
#: A slope that is none.
_ZERO = 1e-7
#: A step that float32 does not see, and how well the score's change has to follow it.
_TINY, _FOLLOWS = 1e-9, 1e-2
#: The part of the range of the graph's type in which explanations are known.
_MOST_OF_RANGE = 0.1
#: Maxima over windows, of whose kernels some lose NaN.
_LOSE_NAN = frozenset({"MaxPool", "GlobalMaxPool"})
#: Elements of a sample that are moved one by one, and samples in one run.
_MOST, _ROWS = 130, 3000
#: How near both sides have to be before the evaluator is trusted.
_NEAR = {"float64": 1e-7, "float32": 1e-4, "float16": 1e-4}
#: What onnx's evaluator computes in float32, whatever it is given, and what it takes long for.
_NOT_THERE = frozenset({"Erf", "Gelu", "ConvTranspose", "Resize", "LRN"})
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclasses.dataclass(frozen=True)
class Known:
    """What an attribution should be.

    Attributes:
        array: NaN where it is not known.
        wide: whether the scores behind it were computed in float64.
    """

    array: Array
    wide: bool


@dataclasses.dataclass(frozen=True)
class _Scores:
    """What computes a tensor of a graph for changed inputs.

    Attributes:
        run: feeds -> the tensor, in float64.
        wide: whether it is computed in float64.
    """

    run: Callable[[Feed], Array]
    wide: bool


class OnnxWitness:
    """The untouched graph of a case.

    Args:
        case: the case.
    """

    def __init__(self, case: OnnxCase) -> None:
        self.case = case
        self._predicted = [value.name for value in case.model.graph.output]
        self._session = session_of(case.model)
        #: The axis of the classes by output, where positions make that a question.
        self.class_axes: dict[str, int] = {}
        self._scores: dict[tuple[str, str | None], _Scores] = {}

    def predictions(self, feed: Feed) -> list[Array]:
        """Returns what the graph predicts."""
        found: list[Array] = self._session.run(self._predicted, dict(feed))
        return found

    def tensor(self, name: str, feed: Feed) -> Array:
        """Returns a tensor of the graph."""
        return np.asarray(self._by_runtime(name, None).run(feed))

    def beyond_range(self, feed: Feed) -> Array:
        """Tells in which rows the graph has infinities or NaN inside.

        What is right there in a wider type is not in the graph's own, and in that it depends on
        the order of operations.
        """
        return _rows_with(self._inside(feed).values(), feed, lambda x: ~np.isfinite(x))

    def loses_nan(self, feed: Feed) -> Array:
        """Tells in which rows a maximum over windows reads NaN.

        What comes out is for the kernel to say: one of them gives the least of all numbers, one
        NaN, and which of them runs depends on what else is asked of the node.
        """
        read = {n.input[0] for n in self.case.model.graph.node if n.op_type in _LOSE_NAN}
        values = {**feed, **self._inside(feed)} if read else {}
        return _rows_with([v for n, v in values.items() if n in read], feed, np.isnan)

    def _inside(self, feed: Feed) -> dict[str, Any]:
        """Returns everything that the graph computes."""
        names = [output.name for output in self._insides.get_outputs()]
        return dict(zip(names, self._insides.run(names, dict(feed)), strict=True))

    @functools.cached_property
    def _insides(self) -> Any:
        """A session that gives everything that the graph computes."""
        whole = onnx.ModelProto()
        whole.CopyFrom(self.case.model)
        made = [name for node in whole.graph.node for name in node.output if name]
        del whole.graph.output[:]
        whole.graph.output.extend(named(name) for name in made)
        return session_of(whole)

    def policy(self) -> str:
        """Returns what is computed in, the coarsest of it."""
        kinds = {_kind_of(self.case.model)}
        for node in self.case.model.graph.node:
            if node.op_type == "Cast":
                kinds |= {attribute.i for attribute in node.attribute}
        if kinds & {TensorProto.FLOAT16, TensorProto.BFLOAT16}:
            return "float16"
        return "float32" if TensorProto.FLOAT in kinds else "float64"

    def attribution(
        self,
        probe: Any,
        feed: Feed,
        explained: str,
        channel: int | None,
        asked: Mapping[str, Array],
    ) -> Known | None:
        """Returns what a probe gives of an input or an inner tensor, None where it is not known.

        Of a saliency it is the magnitude of each channel. NaN is what is not known of it.

        Args:
            probe: the probe.
            feed: the inputs.
            explained: the name of the input, or of a tensor inside.
            channel: its axis of channels, if it has one.
            asked: what a request asks for: `target`, `region`.
        """
        if getattr(probe, "per_token", None) is not None or type(probe) in RULES:
            return None  # of rectifiers with gradients of their own differences tell nothing
        output = self._output(probe)
        if output is None:
            return None
        scored = output.scores if probe.logits else output.name
        if probe.of is not None:
            made = self.of_path(probe.of)
            if made is None or not isinstance(probe.target, int):
                return None
            scored = made
        chosen = self._picks(probe, output, scored, feed, asked)
        if chosen is None:
            return None
        value = feed[explained] if explained in feed else self.tensor(explained, feed)
        if not np.issubdtype(value.dtype, np.floating):
            return None
        if explained not in feed:  # differences move rows of samples
            first = self.tensor(explained, {name: x[:1] for name, x in feed.items()})
            if (len(first), len(value)) != (1, len(next(iter(feed.values())))):
                return None
        groups = asked.get("groups")
        found = [
            self._of_one(probe, feed, explained, value, scored, pick, channel, groups)
            for pick in chosen
        ]
        arrays = [array for array in found if array is not None]
        if len(arrays) < len(found):
            return None
        array = np.stack(arrays, axis=1) if twins.is_several(probe.target) else arrays[0]
        array[self.beyond_range(feed)] = np.nan
        most = _MOST_OF_RANGE * float(np.finfo(self.policy()).max)
        with np.errstate(invalid="ignore"):  # single elements may be infinite in that type
            array[(np.abs(array.reshape(len(array), -1)) > most).any(axis=1)] = np.nan
        scores = self._of(scored, None if explained in feed else explained, feed)
        if scores.wide:
            array[self._rounded_apart(scores, scored, explained, feed)] = np.nan
        return Known(array, scores.wide)

    def _rounded_apart(self, wide: _Scores, scored: str, explained: str, feed: Feed) -> Array:
        """Tells of which rows scores in float64 are others than those of the graph in its type.

        Rounding decides there which of some values is the largest, or what computes in float64
        knows nothing of what these rows have, as of a `clip` that nothing came near to before.
        """
        fed = {n: _widened(x, True) for n, x in feed.items()}
        if explained not in feed:
            fed[_SHIFT] = np.zeros(self.tensor(explained, feed).shape)
        found, right = wide.run(fed), self._by_single(scored, None).run(feed)
        if found.shape != right.shape:
            return np.ones(len(right), bool)
        near = _NEAR[self.policy()]
        same = np.isclose(found, right.astype(np.float64), rtol=near, atol=near, equal_nan=True)
        return np.asarray(~same.reshape(len(same), -1).all(axis=1))

    def of_path(self, path: Any) -> str | None:
        """Returns the tensor that a node of a path makes, where it is in the untouched graph."""
        for node in self.case.model.graph.node:
            if path in (node.output[0].lstrip("/"), node.output[0]):
                return str(node.output[0])
        return None

    def _output(self, probe: Any) -> Output | None:
        at = probe.output if isinstance(probe.output, int) else 0
        name = self._predicted[at]
        return next((o for o in self.case.outputs if o.name == name), None)

    def _picks(
        self, probe: Any, output: Output, scored: str, feed: Feed, asked: Mapping[str, Array]
    ) -> list[Array] | None:
        scores = self.tensor(scored, feed).astype(np.float64)
        if scores.ndim == 2:
            return twins.picks(probe.target, scores, asked.get("target"))
        if probe.of is not None:
            return None
        target, axis = probe.target, output.class_axis % scores.ndim
        if axis != self.class_axes.get(output.name):
            return None  # the graph does not tell it
        if isinstance(target, int):
            target = tuple(target if i == axis else None for i in range(1, scores.ndim))
        if not isinstance(target, tuple) or any(isinstance(entry, str) for entry in target):
            return None
        chosen = np.zeros(scores.shape)
        where = (slice(None), *(slice(None) if i is None else i for i in target))
        chosen[where] = 1
        if probe.region is not None and "region" in asked:
            chosen *= np.expand_dims(asked["region"], axis)
        return [chosen]

    def _of_one(
        self,
        probe: Any,
        feed: Feed,
        explained: str,
        value: Array,
        scored: str,
        pick: Array,
        channel: int | None,
        groups: Array | None,
    ) -> Array | None:
        x = value.astype(np.float64)

        def score(points: Sequence[Array]) -> list[Array]:
            run = self._by_runtime(scored, None).run
            fed = ({**feed, explained: changed.astype(value.dtype)} for changed in points)
            return [_summed(run(one), pick) for one in fed]

        def gradient(points: Sequence[Array]) -> list[Array]:
            return [self._gradient(feed, explained, at, scored, pick) for at in points]

        inputs = [i.name for i in self.case.inputs if i.name not in ("lens", "unused")]
        together = len(inputs) > 1 and getattr(probe, "wrt", "") != explained
        if explained in feed and together and not isinstance(probe, twins.AT_ONE_POINT):
            return None  # other inputs move with it
        if explained not in feed:
            if (
                channel is not None
                and (found := self._map(probe, x, gradient, channel)) is not None
            ):
                return found
            return (
                twins.attribution(probe, x, score, gradient, None)
                if isinstance(probe, twins.AT_ONE_POINT)
                else None
            )
        return twins.attribution(probe, x, score, gradient, channel, groups)

    def _map(self, probe: Any, x: Array, gradient: Gradient, channel: int) -> Array | None:
        kinds = (pg.GradCAM, pg.HiResCAM, pg.LayerCAM)
        if not isinstance(probe, kinds) or probe.upsample:
            return None
        return twins.map_of_layer(probe, x, gradient([x])[0], channel)

    def _gradient(self, feed: Feed, moved: str, at: Array, scored: str, pick: Array) -> Array:
        """Returns differences at a point, element by element; NaN beside kinks and where too many.

        A tensor inside of the graph is moved from what it is: `at` is not looked at.
        """
        inside = moved not in feed
        scores = self._of(scored, moved if inside else None, feed)
        step, rows, size = _STEPS[scores.wide], len(at), int(np.prod(at.shape[1:]))
        found = np.full(at.shape, np.nan)
        if size > _MOST or size == 0:
            return found
        start = np.zeros(at.shape) if inside else at
        name = _SHIFT if inside else moved

        def scored_at(points: Array, times: int) -> Array:
            fed = {n: np.repeat(_widened(x, scores.wide), times, axis=0) for n, x in feed.items()}
            fed[name] = points.astype(np.float64 if scores.wide else np.float32)
            return _summed(scores.run(fed), np.repeat(pick, times, axis=0))

        here = scored_at(start, 1)
        moves = np.eye(size).reshape(size, *at.shape[1:]) * step
        whole = np.random.default_rng(5).normal(size=(_DIRECTIONS, *at.shape[1:]))
        whole *= step / np.sqrt(size)
        per_run = max(1, _ROWS // (4 * size))
        for first in range(0, rows, per_run):
            part = slice(first, first + per_run)
            count = len(start[part])
            ways = [moves, -moves, moves / 2, -moves / 2]
            points = np.concatenate([*ways, whole, -whole])[None] + start[part][:, None]
            fed = {n: x[part] for n, x in feed.items()}
            got = _Rows(scores, fed, name, pick[part]).at(points)
            single, both = np.split(got, [len(ways) * size], axis=1)
            slopes = _slopes(single.reshape(count, -1, size), here[part], step, scores.wide)
            told = _slopes(both.reshape(count, 2, _DIRECTIONS), here[part], step, scores.wide)
            slopes[np.isnan(told).any(axis=1)] = np.nan  # single elements do not tell at a kink
            found[part] = slopes.reshape(count, *at.shape[1:])
        return found

    def _of(self, name: str, inside: str | None, feed: Feed) -> _Scores:
        """Returns what computes a tensor, in float64 where that can be had and trusted."""
        if (name, inside) not in self._scores:
            narrow = self._by_single(name, inside)
            ways = (self._by_wide_runtime, self._by_evaluator)
            wide = (way(name, inside) for way in ways)
            right = (w for w in wide if w is not None and self._agree(w, narrow, inside, feed))
            self._scores[name, inside] = next(right, narrow)
        return self._scores[name, inside]

    def _by_runtime(self, name: str, inside: str | None) -> _Scores:
        key = (f"runtime {name}", inside)
        if key not in self._scores:
            self._scores[key] = _Scores(_runner(_cut(self.case.model, name, inside)), wide=False)
        return self._scores[key]

    def _by_single(self, name: str, inside: str | None) -> _Scores:
        """Returns the scores of a graph in float16 in float32, which differences need."""
        if self.policy() != "float16":
            return self._by_runtime(name, inside)
        return _Scores(_runner(self._in(TensorProto.FLOAT, name, inside)), wide=False)

    def _by_wide_runtime(self, name: str, inside: str | None) -> _Scores | None:
        try:
            return _Scores(_runner(self._in(TensorProto.DOUBLE, name, inside)), wide=True)
        except Exception:  # it lacks an operator in float64
            return None

    def _by_evaluator(self, name: str, inside: str | None) -> _Scores | None:
        nodes = self.case.model.graph.node
        if any(node.op_type in _NOT_THERE for node in nodes):
            return None
        if any(a.name == "clip" for node in nodes for a in node.attribute):
            return None  # it runs recurrent operators as if they had none
        try:
            evaluator = ReferenceEvaluator(
                self._in(TensorProto.DOUBLE, name, inside), new_ops=list(OPERATORS)
            )
        except Exception:  # it lacks an operator, or a type
            return None

        def run(fed: Feed) -> Array:
            with np.errstate(all="ignore"):
                (found,) = evaluator.run([name], dict(fed))
            return np.asarray(found)

        return _Scores(run, wide=True)

    def _in(self, kind: int, name: str, inside: str | None) -> onnx.ModelProto:
        """Returns the graph up to a tensor with all its floating numbers in one type."""
        model = _cut(self.case.model, name, inside)
        _convert(model.graph, kind)
        for function in model.functions:
            _convert_nodes(function.node, kind)
        return model

    def _agree(self, wide: _Scores, narrow: _Scores, inside: str | None, feed: Feed) -> bool:
        """Tells whether scores in float64 are those that onnxruntime has."""
        fed, given = {n: _widened(x, True) for n, x in feed.items()}, dict(feed)
        if inside is not None:
            shape = self.tensor(inside, feed).shape
            fed[_SHIFT], given[_SHIFT] = np.zeros(shape), np.zeros(shape, np.float32)
        try:
            found = wide.run(fed)
        except Exception:  # whatever the evaluator raises
            return False
        right = narrow.run(given).astype(np.float64)
        near = _NEAR[self.policy()]
        same = found.shape == right.shape and found.dtype == np.float64
        if not same or not np.allclose(found, right, rtol=near, atol=near, equal_nan=True):
            return False
        return self._is_wide_inside(wide, fed, found)

    def _is_wide_inside(self, wide: _Scores, fed: dict[str, Array], here: Array) -> bool:
        """Tells whether no operator rounds to float32 on the way: tiny steps change the scores.

        Scores that no step changes do not tell.
        """
        rng = np.random.default_rng(3)
        floating = {n: x for n, x in fed.items() if np.issubdtype(x.dtype, np.floating)}
        ways = {n: rng.normal(size=x.shape) for n, x in floating.items()}

        def change(step: float) -> Array:
            moved = {**fed, **{n: x + step * ways[n] for n, x in floating.items()}}
            return np.asarray((wide.run(moved) - here)[0] / step)

        tiny, usual = change(_TINY), change(_STEPS[True])
        length = np.linalg.norm(usual)
        return bool(length > 0 and np.linalg.norm(tiny - usual) <= _FOLLOWS * (length + _FOLLOWS))


def _rows_with(values: Iterable[Any], feed: Feed, is_so: Callable[[Array], Array]) -> Array:
    """Tells in which rows some element of floating arrays with as many rows is so."""
    rows = len(next(iter(feed.values())))
    found = np.zeros(rows, bool)
    for value in values:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.shape[:1] == (rows,):
            found |= is_so(value.reshape(rows, -1)).any(axis=1)
    return found


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Scores of samples that are each moved in many ways."""

    scores: _Scores
    feed: Feed
    name: str
    pick: Array

    def at(self, points: Array) -> Array:
        """Returns the scores at points `[row, way, ...]`, as `[row, way]`."""
        rows, ways = points.shape[:2]
        wide = self.scores.wide
        fed = {n: np.repeat(_widened(x, wide), ways, axis=0) for n, x in self.feed.items()}
        flat = points.reshape(rows * ways, *points.shape[2:])
        fed[self.name] = flat.astype(np.float64 if wide else np.float32)
        return _summed(self.scores.run(fed), np.repeat(self.pick, ways, axis=0)).reshape(rows, ways)


def _slopes(got: Array, here: Array, step: float, wide: bool) -> Array:
    """Returns slopes, `[row, element]`, NaN where these scores do not tell.

    Args:
        got: scores `[row, way, element]` a step ahead and behind, and maybe half a step.
        here: scores between.
        step: its length.
        wide: whether scores are in float64.
    """
    ahead = (got[:, 0] - here[:, None]) / step
    behind = (here[:, None] - got[:, 1]) / step
    larger = np.maximum(np.abs(ahead), np.abs(behind))
    usual = larger + np.median(larger, axis=1, keepdims=True) + _LEAST
    steady = np.abs(ahead - behind) <= _SMOOTH[wide] * usual
    slopes = (ahead + behind) / 2
    if got.shape[1] > _BOTH_SIDES:
        finer = (got[:, 2] - got[:, 3]) / step
        steady &= np.abs(finer - slopes) <= _FINE[wide] * usual
        slopes = finer
    rounding = _ROUNDING[wide] * (np.abs(here) + 1) / step
    length = np.linalg.norm(slopes, axis=1)
    least = np.maximum(_ABOVE_ROUNDING * rounding, _ZERO)
    steady &= ((length > least) | (rounding < _ZERO))[:, None]
    return np.where(steady, slopes, np.nan)


def _summed(scores: Array, pick: Array) -> Array:
    found = np.asarray(scores, np.float64) * pick
    return np.asarray(found.sum(axis=tuple(range(1, found.ndim))))


def _widened(x: Array, wide: bool) -> Array:
    return x.astype(np.float64) if wide and np.issubdtype(x.dtype, np.floating) else x


def _runner(model: onnx.ModelProto) -> Callable[[Feed], Array]:
    """Returns what runs a model with one output in onnxruntime."""
    session = session_of(model)
    kinds = {i.name: _numpy_of(i) for i in model.graph.input}

    def run(feed: Feed) -> Array:
        fed = {n: x.astype(kinds[n]) for n, x in feed.items() if n in kinds}
        return np.asarray(session.run(None, fed)[0])

    return run


def _numpy_of(value: onnx.ValueInfoProto) -> Any:
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def _cut(model: onnx.ModelProto, name: str, inside: str | None) -> onnx.ModelProto:
    """Returns a graph up to a tensor, with something added to another on the way."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.output[:]
    cut.graph.output.append(named(name))
    if inside is not None:
        nodes = list(cut.graph.node)
        for at, node in enumerate(nodes):
            if inside in node.output:
                before = f"{inside}/before"
                kind = _kind_of(model)
                cut.graph.input.append(helper.make_tensor_value_info(_SHIFT, kind, None))
                node.output[list(node.output).index(inside)] = before
                shift = [helper.make_node("Add", [before, _SHIFT], [inside])]
                own = _kind_of_tensor(model, inside)
                if own != kind:  # behind a cast
                    like = f"{inside}/shift"
                    shift[0].input[1] = like
                    shift.insert(0, helper.make_node("Cast", [_SHIFT], [like], to=own))
                del cut.graph.node[:]
                cut.graph.node.extend([*nodes[: at + 1], *shift, *nodes[at + 1 :]])
                break
    return pruned(cut)


def _kind_of_tensor(model: onnx.ModelProto, name: str) -> int:
    """Returns the element type of a tensor of a graph; that of the graph where it is not known."""
    for value in onnx.shape_inference.infer_shapes(model).graph.value_info:
        if value.name == name and value.type.tensor_type.elem_type:
            return int(value.type.tensor_type.elem_type)
    return _kind_of(model)


def _kind_of(model: onnx.ModelProto) -> int:
    """Returns the floating type of a graph: that of its first output."""
    return int(model.graph.output[0].type.tensor_type.elem_type)


def _convert(graph: onnx.GraphProto, kind: int) -> None:
    """Gives all floating numbers of a graph one type."""
    for tensor in graph.initializer:
        _convert_tensor(tensor, kind)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _FLOATS:
            value.type.tensor_type.elem_type = kind
    _convert_nodes(graph.node, kind)


def _convert_nodes(nodes: Sequence[onnx.NodeProto], kind: int) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _convert_tensor(attribute.t, kind)
            if attribute.HasField("g"):
                _convert(attribute.g, kind)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _FLOATS:
                attribute.i = kind
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = np.zeros(1, helper.tensor_dtype_to_np_dtype(kind))
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(zero)))


def _convert_tensor(tensor: onnx.TensorProto, kind: int) -> None:
    if tensor.data_type in _FLOATS:
        wanted = helper.tensor_dtype_to_np_dtype(kind)
        array = numpy_helper.to_array(tensor).astype(wanted)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
