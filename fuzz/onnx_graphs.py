"""Random ONNX graphs, and their gradients against differences of the graph itself.

A graph is drawn node by node with onnx's helpers, in an operator set between 7 and the newest. The
witness is the graph in float64 in onnx's reference evaluator (what that cannot run, or does not
compute as onnxruntime does, has none): its scores at points beside the sample give directional
differences, which are held against the artefact's gradient.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import probegen as pg
from fuzz.drawing import Draw
from fuzz.outcome import DIFFERS, EQUAL, INVALID, Outcome, of_error, signature
from probegen import runtime

Array = npt.NDArray[Any]

#: Operator sets that graphs are drawn in.
_OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
_CLASSES = 3
_BATCHES = (2, 5)
#: Directional differences: the step, directions a sample, and what they may be off by.
_STEP, _DIRECTIONS, _LIMIT = 1e-5, 3, 2e-3
#: By how much the slopes of both sides may be apart, beside the length of the gradient.
_SMOOTH = 1e-4
_UNARY = (
    *("Relu", "Tanh", "Sigmoid", "Softplus", "Softsign", "Abs", "Neg", "Exp", "Elu", "Selu"),
    *("LeakyRelu", "HardSigmoid", "Identity", "Sin", "Cos", "Atan", "Erf", "Floor"),
)
#: What onnx's evaluator computes in float32, whatever it is given.
_COARSE = frozenset({"Erf"})
_SINCE = {"Sin": 7, "Cos": 7, "Atan": 7, "Erf": 9}
#: Numbers that an attribute of a function may have.
_ATTRIBUTES = {
    "Elu": {"alpha": 0.7},
    "LeakyRelu": {"alpha": 0.3},
    "HardSigmoid": {"alpha": 0.4, "beta": 0.3},
}


class Graph:
    """A graph that is being drawn: its nodes, its weights, and what runs it as far as it is.

    Args:
        key: of the case.
    """

    def __init__(self, key: str) -> None:
        self.d = Draw(key)
        self.opset = self.d.one(_OPSETS)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        rank = self.d.one((2, 3, 3, 4, 4))
        self.shape = [self.d.whole(3, 6) for _ in range(rank - 1)]
        self.count = 0

    def name(self) -> str:
        """Returns a new name, sometimes as torch writes them."""
        self.count += 1
        return self.d.one((f"t{self.count}", f"/model/layer.{self.count}/out_{self.count}"))

    def weight(self, array: Any) -> str:
        """Stores an array; as an initializer, or as a node."""
        made = np.asarray(array)
        name = self.name()
        if self.d.maybe(0.2):
            value = numpy_helper.from_array(made, name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=value))
        else:
            self.weights.append(numpy_helper.from_array(made, name))
        return name

    def floats(self, *shape: int) -> str:
        """Stores random numbers."""
        return self.weight(self.d.rng.normal(size=shape).astype(np.float32))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns its output."""
        out = self.name()
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def model(self, end: str) -> onnx.ModelProto:
        """Returns the graph up to a tensor."""
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *self.shape])],
            [helper.make_tensor_value_info(end, TensorProto.FLOAT, None)],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


#: Adds nodes behind a tensor of some sizes (without the batch); returns the new tensor.
Make = Callable[[Graph, str, list[int]], str]


def _function(g: Graph, x: str, shape: list[int]) -> str:
    del shape
    op = g.d.one([op for op in _UNARY if _SINCE.get(op, 0) <= g.opset])
    return g.add(op, x, **_ATTRIBUTES.get(op, {}))


def _arithmetic(g: Graph, x: str, shape: list[int]) -> str:
    other = g.floats(*[g.d.one((1, size)) for size in shape])
    operands = [x, other] if g.d.maybe(0.7) else [other, x]
    op = g.d.one(("Add", "Sub", "Mul", "Max", "Min"))
    if op in ("Max", "Min") and g.opset < 8:  # they broadcast since then
        op = "Add"
    return g.add(op, *operands)


def _gated(g: Graph, x: str, shape: list[int]) -> str:
    del shape
    return g.add("Mul", x, g.add("Sigmoid", x))


def _matrix(g: Graph, x: str, shape: list[int]) -> str:
    width = g.d.whole(2, 6)
    if len(shape) == 1 and g.d.maybe(0.5):
        turned = g.d.maybe(0.5)
        weights = g.floats(width, shape[0]) if turned else g.floats(shape[0], width)
        scale = {"alpha": 0.5, "beta": 2.0} if g.d.maybe(0.3) else {}
        return g.add("Gemm", x, weights, g.floats(width), transB=int(turned), **scale)
    return g.add("MatMul", x, g.floats(shape[-1], width))


def _convolution(g: Graph, x: str, shape: list[int]) -> str:
    rank, filters = len(shape) - 1, g.d.whole(1, 4)
    kernel = [g.d.whole(1, 3) for _ in range(rank)]
    given: dict[str, Any] = {}
    if g.d.maybe(0.5):
        given["pads"] = [g.d.whole(0, 2) for _ in range(2 * rank)]
    elif g.d.maybe(0.3):
        given["auto_pad"] = g.d.one(("SAME_UPPER", "SAME_LOWER", "VALID"))
    if g.d.maybe(0.4):
        given["strides"] = [g.d.whole(1, 3) for _ in range(rank)]
    elif g.d.maybe(0.4) and "auto_pad" not in given:
        given["dilations"] = [g.d.whole(1, 2) for _ in range(rank)]
    bias = [g.floats(filters)] if g.d.maybe(0.6) else []
    if g.d.maybe(0.25):
        given.pop("auto_pad", None)
        return g.add("ConvTranspose", x, g.floats(shape[0], filters, *kernel), *bias, **given)
    if g.d.maybe(0.2):
        bias = []
        weights = g.floats(shape[0], 1, *kernel)
        return g.add("Conv", x, weights, group=shape[0], **given)
    return g.add("Conv", x, g.floats(filters, shape[0], *kernel), *bias, **given)


def _pooling(g: Graph, x: str, shape: list[int]) -> str:
    rank, op = len(shape) - 1, g.d.one(("MaxPool", "AveragePool"))
    if g.d.maybe(0.2):
        return g.add(f"Global{op}", x)
    given: dict[str, Any] = {"kernel_shape": [g.d.whole(1, 3) for _ in range(rank)]}
    if g.d.maybe(0.5):
        given["strides"] = [g.d.whole(1, 3) for _ in range(rank)]
    if g.d.maybe(0.4):
        given["pads"] = [g.d.whole(0, k - 1) for k in given["kernel_shape"]] * 2
    if g.d.maybe(0.3) and g.opset >= 10 and op == "MaxPool":
        given["ceil_mode"] = 1
    if op == "AveragePool" and g.d.maybe(0.4):
        given["count_include_pad"] = 1
    return g.add(op, x, **given)


def _reduced(g: Graph, x: str, shape: list[int]) -> str:
    op = g.d.one(
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")
    )
    axes = [g.d.whole(1, len(shape))]
    kept = int(len(shape) == 1 or g.d.maybe(0.5))
    as_input = g.opset >= (13 if op == "ReduceSum" else 18)
    if as_input:
        return g.add(op, x, g.weight(np.array(axes, np.int64)), keepdims=kept)
    return g.add(op, x, axes=axes, keepdims=kept)


def _moved(g: Graph, x: str, shape: list[int]) -> str:
    kind = g.d.whole(0, 4)
    if kind == 0:
        order = [0, *(1 + g.d.rng.permutation(len(shape))).tolist()]
        return g.add("Transpose", x, perm=order)
    if kind == 1:
        return g.add("Flatten", x, axis=1)
    if kind == 2:  # the sizes are computed when it runs, as torch writes them
        sizes = g.add("Shape", x)
        first = g.add("Gather", sizes, g.weight(np.array([0], np.int64)), axis=0)
        rest = g.weight(np.array([int(np.prod(shape))], np.int64))
        return g.add("Reshape", x, g.add("Concat", first, rest, axis=0))
    if kind == 3:
        axis = g.d.whole(1, len(shape))
        size = shape[axis - 1]
        if g.opset < 10:
            return g.add("Slice", x, axes=[axis], starts=[g.d.whole(0, 1)], ends=[size])
        numbers = ([g.d.whole(0, 1)], [2**31 - 1], [axis], [g.d.whole(1, 2)])
        return g.add("Slice", x, *(g.weight(np.array(n, np.int64)) for n in numbers))
    at = g.weight(np.array([0, 1, 0], np.int64))
    return g.add("Gather", x, at, axis=g.d.whole(1, len(shape)))


def _joined(g: Graph, x: str, shape: list[int]) -> str:
    other = g.add(g.d.one(("Tanh", "Relu")), x)
    if g.d.maybe(0.5):
        return g.add("Concat", x, other, axis=g.d.whole(1, len(shape)))
    return g.add(g.d.one(("Add", "Mul", "Sub")), x, other)


def _padded(g: Graph, x: str, shape: list[int]) -> str:
    pads = [0, *(g.d.whole(0, 2) for _ in shape), 0, *(g.d.whole(0, 2) for _ in shape)]
    mode = g.d.one(("constant", "reflect", "edge"))
    if g.opset < 11:
        return g.add("Pad", x, pads=pads, mode=mode)
    return g.add("Pad", x, g.weight(np.array(pads, np.int64)), mode=mode)


def _normalised(g: Graph, x: str, shape: list[int]) -> str:
    kind = g.d.whole(0, 2)
    if kind == 0:
        scale, bias, mean = (g.floats(shape[0]) for _ in range(3))
        spread = g.weight(g.d.rng.uniform(0.5, 2, shape[0]).astype(np.float32))
        return g.add("BatchNormalization", x, scale, bias, mean, spread)
    if kind == 1 and g.opset >= 13:
        return g.add("Softmax", x, axis=g.d.one((-1, 1)))
    if g.opset >= 17:
        return g.add("LayerNormalization", x, g.floats(shape[-1]), g.floats(shape[-1]))
    return g.add("Tanh", x)


def _recurrent(g: Graph, x: str, shape: list[int]) -> str:
    op, units = g.d.one(("LSTM", "GRU", "RNN")), g.d.whole(2, 4)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    way = g.d.one(("forward", "reverse", "bidirectional"))
    count = 2 if way == "bidirectional" else 1
    series = g.add("Transpose", x, perm=[1, 0, 2])
    weights = [g.floats(count, gates * units, width) for width in (shape[1], units)]
    given: dict[str, Any] = {"hidden_size": units, "direction": way}
    if op == "GRU" and g.d.maybe(0.5):
        given["linear_before_reset"] = 1
    bias = [g.floats(count, 2 * gates * units)] if g.d.maybe(0.6) else []
    steps = g.add(op, series, *weights, *bias, **given)  # [time, direction, batch, unit]
    turned = g.add("Transpose", steps, perm=[2, 0, 1, 3])
    return g.add("Reshape", turned, g.weight(np.array([0, shape[0], count * units], np.int64)))


def _branch(g: Graph, x: str, shape: list[int]) -> str:
    """Adds an `If` whose condition is computed, with the tensor captured in both branches."""
    del shape
    if g.opset < 11:
        return g.add("Tanh", x)
    total = g.add("Size", x)
    wanted = g.add("Greater", total, g.weight(np.array(g.d.one((0, 10**6)), np.int64)))
    bodies = {}
    for name, op in (("then_branch", "Tanh"), ("else_branch", "Sigmoid")):
        out = g.name()
        info = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
        bodies[name] = helper.make_graph([helper.make_node(op, [x], [out])], name, [], [info])
    return g.add("If", wanted, **bodies)


def _loop(g: Graph, x: str, shape: list[int]) -> str:
    """Adds a `Loop` of a fixed number of turns that carries a tensor."""
    if g.opset < 11:
        return g.add("Relu", x)
    step, bent, out, kept = (g.name() for _ in range(4))
    nodes = [
        helper.make_node("Tanh", ["carried"], [bent]),
        helper.make_node("Add", [bent, x], [out]),
        helper.make_node("Identity", ["going"], [kept]),
    ]
    sizes: list[str | int | None] = ["batch", *shape]
    body = helper.make_graph(
        nodes,
        "body",
        [
            helper.make_tensor_value_info(step, TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, sizes),
        ],
        [
            helper.make_tensor_value_info(kept, TensorProto.BOOL, []),
            helper.make_tensor_value_info(out, TensorProto.FLOAT, sizes),
        ],
    )
    turns = g.weight(np.array(g.d.whole(1, 3), np.int64))
    return g.add("Loop", turns, g.weight(np.array(True)), x, body=body)


_ANY: tuple[Make, ...] = (
    *(_function,) * 3, *(_arithmetic,) * 2, _gated, *(_matrix,) * 2, _reduced, *(_moved,) * 3,
    _joined, _padded, _normalised, _branch, _loop,
)  # fmt: skip
_WINDOWS: tuple[Make, ...] = (*(_convolution,) * 5, *(_pooling,) * 3)


def drawn(key: str) -> tuple[onnx.ModelProto, list[int]]:
    """Returns the graph of a key, whose scores are called `scores`, and its input's sizes.

    A node that onnxruntime does not take there is drawn again.

    Raises:
        ValueError: there is no such graph.
    """
    g = Graph(key)
    at, shape = "x", list(g.shape)
    for _ in range(g.d.whole(2, 6)):
        for _ in range(8):
            before = len(g.nodes), len(g.weights)
            makes = [*_ANY, *(_WINDOWS if len(shape) > 1 else ())]
            makes += [_recurrent] * 3 if len(shape) == 2 else []
            made = g.d.one(makes)(g, at, shape)
            found = _shape_of(g, made)
            if found is not None:
                at, shape = made, found
                break
            del g.nodes[before[0] :], g.weights[before[1] :]
    flat = g.add("Flatten", at, axis=1) if len(shape) > 1 else at
    logits = g.add("Gemm", flat, g.floats(int(np.prod(shape)), _CLASSES), g.floats(_CLASSES))
    last = g.d.one(("Softmax", "Sigmoid", "Identity"))
    axis: dict[str, Any] = {"axis": 1} if last == "Softmax" else {}
    g.nodes.append(helper.make_node(last, [logits], ["scores"], **axis))
    model = g.model("scores")
    model.graph.doc_string = logits
    sizes = model.graph.output[0].type.tensor_type.shape.dim
    sizes.add(dim_param="batch")
    sizes.add(dim_value=_CLASSES)
    onnx.checker.check_model(model)
    return model, g.shape


def _shape_of(g: Graph, name: str) -> list[int] | None:
    """Returns the sizes of a tensor without the batch; None where it cannot be computed."""
    try:
        (found,) = _session(g.model(name)).run(None, {"x": np.ones((2, *g.shape), np.float32)})
    except Exception:  # whatever onnxruntime says of a graph that is none
        return None
    fits = found.ndim > 1 and found.shape[0] == 2 and 0 < found.size <= 2000 and found.ndim < 6
    return list(found.shape[1:]) if fits and np.isfinite(found).all() else None


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def attempted(key: str, known: Collection[str] | None = ()) -> Outcome:
    """Returns the outcome of the case of a key."""
    del known
    try:
        model, shape = drawn(key)
        right = _session(model)
        rng = np.random.default_rng(0)
        feeds = [rng.normal(size=(count, *shape)).astype(np.float32) for count in _BATCHES]
        feeds[1][2] = 0.0
        feeds[1][3] = np.round(feeds[1][3])
        expected = [right.run(["scores"], {"x": x})[0] for x in feeds]
    except Exception as error:  # no graph
        return Outcome(key, INVALID, signature(error))
    stage = "compile"
    code = f"from fuzz.onnx_graphs import drawn\n\nmodel, shape = drawn({key!r})\n"
    probes = [pg.InputGradient(target=1), pg.GradientXInput(target=1)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.onnx"
            pg.inspect(model)
            pg.compile(model, probes, path, gate=int(key.rpartition(":")[2]) % 3 > 0)
            stage = "run"
            art = runtime.load(path, threads=1)
            witnessed = 0
            for x, y in zip(feeds, expected, strict=True):
                result = art.run(x)
                scores = np.asarray(result["scores"].array)
                if not np.allclose(scores, y, rtol=1e-4, atol=1e-5):
                    return Outcome(key, DIFFERS, "prediction", code=code)
                off = _off(model, x, np.asarray(result["input_gradient/x"].array))
                witnessed += off is not None
                if off is not None and off > _LIMIT:
                    return Outcome(key, DIFFERS, f"gradient by {off:.1e}", code=code)
                if not np.allclose(
                    np.asarray(result["input_gradient/x"].array) * x,
                    np.asarray(result["gradient_x_input/x"].array),
                    rtol=1e-4,
                    atol=1e-6,
                ):
                    return Outcome(key, DIFFERS, "gradient x input", code=code)
    except Exception as error:
        return of_error(key, error, stage, code=code)
    return Outcome(key, EQUAL, witnessed=witnessed)


@dataclasses.dataclass(frozen=True)
class _Wide:
    """A graph in float64, up to what its last softmax or sigmoid reads."""

    evaluator: ReferenceEvaluator
    name: str

    def score(self, x: Array) -> Array:
        """Returns the score of class 1 of each sample."""
        with np.errstate(all="ignore"):
            (found,) = self.evaluator.run([self.name], {"x": x})
        return np.asarray(np.asarray(found)[:, 1])


def _off(model: onnx.ModelProto, x: Array, gradient: Array) -> float | None:
    """Returns by how much a gradient is off from differences, None where nothing tells.

    Left out are samples at or beside a kink, where the slopes of the two sides are others.
    """
    if any(node.op_type in _COARSE for node in model.graph.node):
        return None
    try:
        wide = _widened(model)
        wide_x = x.astype(np.float64)
        narrow = _session(_up_to(model, wide.name)).run(None, {"x": x})[0][:, 1]
        if not np.allclose(wide.score(wide_x), narrow, rtol=1e-4, atol=1e-4):
            return None  # the evaluator does not compute what onnxruntime does
    except Exception:  # it lacks an operator, or a type
        return None
    rng, worst, here = np.random.default_rng(1), 0.0, wide.score(wide_x)
    for _ in range(_DIRECTIONS):
        way = rng.normal(size=x.shape)
        ahead, behind = (wide.score(wide_x + h * way) for h in (_STEP, -_STEP))
        slopes = [(ahead - here) / _STEP, (here - behind) / _STEP]
        axes = tuple(range(1, x.ndim))
        found = (gradient.astype(np.float64) * way).sum(axis=axes)
        size = np.linalg.norm(gradient.reshape(len(x), -1), axis=1) + np.abs(slopes[0]) + 1e-2
        steady = np.abs(slopes[0] - slopes[1]) < _SMOOTH * size
        worst = max(worst, float((np.abs(found - sum(slopes) / 2) / size * steady).max()))
    return worst


def _up_to(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[-1], cut.graph.output[:]
    cut.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return cut


def _widened(model: onnx.ModelProto) -> _Wide:
    """Returns the graph with all its numbers in float64."""
    name = model.graph.doc_string
    cut = _up_to(model, name)
    _widen(cut.graph)
    return _Wide(ReferenceEvaluator(cut), name)


def _widen(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.HasField("g"):
                _widen(attribute.g)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
