"""One harness for all gradient rules: a case is one node, its inputs and what to expect.

A `Case` holds float64 arrays. `check(case)` builds a model with that one node, differentiates
it, and compares every gradient with each oracle the case names:

- central finite differences of the forward node in float64 (`numeric=True`, the default),
- an obviously correct twin in numpy (`twin=`),
- TensorFlow's tape through an equal TensorFlow function (`tensorflow=`).

The model is built four times: static shapes, an open batch axis and all axes open, in
float64 (onnxruntime, or onnx's reference evaluator where that has no float64 kernel), and an
open batch axis in float32, which must run in onnxruntime. Each passes `onnx.checker` with
`full_check=True`, and every value a rule wrote must have the type and the sizes it claimed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

from probegen.graph.autodiff import Rule, gradients
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import shape_of

Array = np.ndarray
Oracle = Callable[..., Sequence[Any]]

#: Axes of an input that are open: position of the input -> axis -> symbolic name.
Open = Mapping[int, Mapping[int, str]]

IR_VERSION = 10

#: Relative and absolute tolerance of comparisons in float32.
SINGLE = (2e-4, 2e-5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One use of one operator.

    Attributes:
        op: the operator.
        inputs: float arrays as float64 (they take the element type of the run), others as
            they are (float32 included); None leaves an optional input out.
        attributes: of the node.
        constants: positions of inputs that are initializers; all others are graph inputs.
        wrt: positions of the inputs whose gradient is asked for; all floating graph inputs
            by default.
        opset: of the model.
        outputs: number of outputs the node has.
        seeds: positions of the outputs that a gradient comes in through.
        ranks: position of an output -> its rank, where shape inference finds none; its type
            is that of the first input then.
        batch: open axes in the open-batch runs. By default axis 0 of the first graph input
            and of every other graph input of equal rank and equal first size; an empty
            mapping leaves these runs out.
        open_all: False leaves out the run in which no size is known.
        numeric: compare with finite differences; off for cases at a kink or a tie.
        twin: `(dys, *inputs)` -> gradients in the order of `wrt`; `dys` has one entry a seed.
        tensorflow: `(*inputs)` -> the outputs at `seeds` (a tensor or a list), in TensorFlow.
        double: False where the operator has no float64: all runs are in float32 then.
        single: False leaves out the float32 run in onnxruntime; say why in the table.
        rtol, atol: of the comparisons with `twin` and `tensorflow`, where these are in float64.
        name: shown by pytest beside the operator.
    """

    op: str
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    constants: Container[int] = ()
    wrt: Sequence[int] | None = None
    opset: int = 18
    outputs: int = 1
    seeds: Sequence[int] = (0,)
    ranks: Mapping[int, int] = dataclasses.field(default_factory=dict)
    batch: Open | None = None
    open_all: bool = True
    numeric: bool = True
    twin: Oracle | None = None
    tensorflow: Oracle | None = None
    double: bool = True
    single: bool = True
    rtol: float = 1e-9
    atol: float = 1e-11
    name: str = ""

    def __str__(self) -> str:
        sizes = "x".join(
            "-" if x is None else "[" + ",".join(map(str, x.shape)) + "]" for x in self.inputs
        )
        return f"{self.op}-{self.name or sizes}-opset{self.opset}"

    @property
    def graph_inputs(self) -> list[int]:
        """Positions of the inputs that are graph inputs."""
        return [i for i, x in enumerate(self.inputs) if x is not None and i not in self.constants]

    @property
    def wanted(self) -> list[int]:
        """Positions of the inputs whose gradient is asked for."""
        if self.wrt is not None:
            return list(self.wrt)
        return [i for i in self.graph_inputs if self.inputs[i].dtype.kind == "f"]

    def open_batch(self) -> Open:
        """Returns the open axes of the open-batch runs."""
        if self.batch is not None:
            return self.batch
        positions = [i for i in self.graph_inputs if self.inputs[i].ndim]
        if not positions:
            return {}
        first = self.inputs[positions[0]]
        return {
            i: {0: "batch"}
            for i in positions
            if self.inputs[i].ndim == first.ndim and len(self.inputs[i]) == len(first)
        }

    def open_everything(self) -> Open:
        """Returns all axes of all graph inputs, each under a name of its own."""
        return {
            i: {axis: f"size_{i}_{axis}" for axis in range(self.inputs[i].ndim)}
            for i in self.graph_inputs
        }


@dataclasses.dataclass
class Differentiated:
    """A model with its gradient.

    Attributes:
        model: inputs of the source plus one `dy/<output>` a seed; outputs of the source plus
            one `d/<input>` for each input that a gradient reaches.
        written: operators of the nodes the rules wrote, in order.
        nodes: those nodes.
        missing: the asked inputs that no gradient reaches.
        claims: name -> element type and sizes a rule claimed for what it wrote.
    """

    model: onnx.ModelProto
    written: list[str]
    nodes: list[ir.Node]
    missing: list[str]
    claims: dict[str, tuple[ir.DataType | None, tuple[Any, ...] | None]]


def check(
    case: Case,
    rules: Mapping[str, Rule] | None = None,
    blocking: Container[str] | None = None,
) -> None:
    """Compares the gradients of `case` with all its oracles, in all its runs."""
    tables = {"rules": rules, "blocking": blocking}
    rng = np.random.default_rng(7)
    element = np.float64 if case.double else np.float32
    forward = one_node(case, element)
    outputs = run(forward, feeds_of(case, element))
    dys = {f"y{s}": rng.uniform(0.5, 1.5, outputs[f"y{s}"].shape) for s in case.seeds}
    dys = {k: np.asarray(v * rng.choice([-1.0, 1.0], np.shape(v))) for k, v in dys.items()}

    runs: list[tuple[str, Open]] = [("static", {})]
    if case.open_batch():
        runs.append(("open batch", case.open_batch()))
    if case.open_all:
        runs.append(("all open", case.open_everything()))
    found = {
        label: _gradients_in_run(case, element, open_axes, dys, **tables)
        for label, open_axes in runs
    }
    reference = found["static"]
    for label, arrays in found.items():
        tolerance = (1e-12, 1e-13) if case.double else SINGLE
        _compare(case, (label, "the static run"), arrays, reference, tolerance)
    if case.single:
        single = _gradients_in_run(case, np.float32, case.open_batch(), dys, **tables)
        _compare(case, ("float32", "the static run"), single, reference, SINGLE)
    for oracle, expected, tolerance in _oracles(case, forward, dys):
        _compare(case, ("static", oracle), reference, expected, tolerance)


def differentiate(
    model: onnx.ModelProto,
    wrt: Sequence[str],
    of: Sequence[str],
    *,
    rules: Mapping[str, Rule] | None = None,
    blocking: Container[str] | None = None,
    expose: bool = False,
) -> Differentiated:
    """Appends the gradient of `of` with respect to `wrt` to a model and checks the result.

    Args:
        model: the forward model, of any number of nodes.
        wrt: names of the values whose gradient is wanted.
        of: names of graph outputs; each gets a graph input `dy/<name>` as its seed.
        rules: table in place of the package's.
        blocking: in place of the package's.
        expose: make everything the rules wrote a graph output, to hold it against its claim.
    """
    if rules is None or blocking is None:
        from probegen.graph import vjp

        rules = vjp.RULES if rules is None else rules
        blocking = vjp.BLOCKING if blocking is None else blocking
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    parsed = ir.from_proto(model)
    graph = parsed.graph
    values = named_values(graph)
    builder = Builder(graph, opset=parsed.opset_imports[""])
    seeds = {}
    for name in of:
        seed = ir.Value(name=f"dy/{name}", type=values[name].type, shape=values[name].shape)
        graph.inputs.append(seed)
        seeds[values[name]] = seed
    sources = [values[name] for name in wrt]
    found = gradients(builder, seeds, sources, rules, blocking)
    nodes = list(builder.nodes)
    missing = []
    for source, gradient in zip(sources, found, strict=True):
        if gradient is None:
            missing.append(source.name)
            continue
        output = builder.op("Identity", gradient, shape=source, dtype=source.dtype)
        output.name = f"d/{source.name}"
        graph.outputs.append(output)
    builder.attach()
    claims = {v.name: (v.dtype, shape_of(v)) for n in nodes for v in n.outputs}
    if expose:
        known = (v for n in nodes for v in n.outputs if v.dtype is not None)
        graph.outputs.extend(v for v in known if v.shape is not None)
    proto = ir.to_proto(parsed)
    onnx.checker.check_model(proto, full_check=True)
    return Differentiated(proto, [n.op_type for n in nodes], nodes, missing, claims)


def written(case: Case, open_axes: Open | None = None, element: type = np.float32) -> list[str]:
    """Returns the operators a rule writes for `case`; open batch unless told otherwise."""
    axes = case.open_batch() if open_axes is None else open_axes
    model = one_node(case, element, axes)
    wrt = [f"x{i}" for i in case.wanted]
    return differentiate(model, wrt, [f"y{s}" for s in case.seeds]).written


def one_node(case: Case, element: type, open_axes: Open | None = None) -> onnx.ModelProto:
    """Returns a model with the case's node: inputs `x0, x1...`, outputs `y0, y1...`."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(case.inputs)]
    while names and not names[-1]:
        names.pop()
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = onnx.helper.make_node(case.op, names, outputs, name=case.op, **case.attributes)
    initializers = [
        onnx.numpy_helper.from_array(_cast(x, element), f"x{i}")
        for i, x in enumerate(case.inputs)
        if x is not None and i not in case.graph_inputs
    ]
    inputs = [_info(case, i, element, open_axes or {}) for i in case.graph_inputs]
    declared = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = onnx.helper.make_graph([node], "one_node", inputs, declared, initializers)
    model = finish(graph, case.opset)
    for position, rank in case.ranks.items():
        found = model.graph.output[position].type.tensor_type
        if not found.elem_type:
            found.elem_type = model.graph.input[0].type.tensor_type.elem_type
        if not found.HasField("shape"):
            found.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(rank))
    return model


def finish(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    """Returns a model of `graph` in which outputs declared without a type have one."""
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=IR_VERSION
    )
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def feeds_of(case: Case, element: type) -> dict[str, Array]:
    """Returns what to feed the case's model with."""
    return {f"x{i}": _cast(case.inputs[i], element) for i in case.graph_inputs}


def seeds_of(model: onnx.ModelProto, dys: Mapping[str, Array]) -> dict[str, Array]:
    """Returns what to feed the seeds of a differentiated model with, typed as they are."""
    types = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    return {
        f"dy/{name}": dy.astype(onnx.helper.tensor_dtype_to_np_dtype(types[f"dy/{name}"]))
        for name, dy in dys.items()
    }


def run(
    model: onnx.ModelProto, feeds: Mapping[str, Array], need_kernels: bool = False
) -> dict[str, Array]:
    """Runs a model in onnxruntime, or in onnx's reference where kernels are missing.

    Args:
        model: what to run.
        feeds: input name -> array.
        need_kernels: fail where onnxruntime has no kernel instead of falling back.
    """
    return runner(model, need_kernels)(feeds)


def runner(
    model: onnx.ModelProto, need_kernels: bool = False
) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """Returns a function that runs `model`; see `run`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session: Any = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except NoKernel:
        if need_kernels:
            raise
        session = ReferenceEvaluator(model)
    names = [o.name for o in model.graph.output]
    return lambda feeds: dict(zip(names, session.run(None, dict(feeds)), strict=True))


def finite_differences(
    function: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    feeds: Mapping[str, Array],
    dys: Mapping[str, Array],
    wrt: Sequence[str],
    step: float = 1e-5,
) -> list[Array]:
    """Returns d(sum of outputs * dys) / d(feed) by central differences, for each of `wrt`."""

    def scalar(changed: Mapping[str, Array]) -> float:
        outputs = function(changed)
        return sum(float(np.vdot(dy, outputs[name])) for name, dy in dys.items())

    found = []
    for name in wrt:
        gradient = np.zeros(feeds[name].shape)
        for index in np.ndindex(*feeds[name].shape):
            ends = []
            for sign in (1, -1):
                moved = feeds[name].copy()
                moved[index] += sign * step
                ends.append(scalar({**feeds, name: moved}))
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        found.append(gradient)
    return found


def tape(
    function: Oracle, inputs: Sequence[Array | None], dys: Sequence[Array], wrt: Sequence[int]
) -> list[Array]:
    """Returns the gradients TensorFlow's tape gives for `function` at `inputs`."""
    import tensorflow as tf

    tensors = [None if x is None else tf.constant(x) for x in inputs]
    with tf.GradientTape() as recorder:
        for i in wrt:
            recorder.watch(tensors[i])
        outputs = function(*tensors)
    outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    found = recorder.gradient(
        outputs,
        [tensors[i] for i in wrt],
        output_gradients=[tf.constant(dy, o.dtype) for dy, o in zip(dys, outputs, strict=True)],
        unconnected_gradients="zero",
    )
    return [tf.convert_to_tensor(g).numpy() for g in found]


def tf(path: str) -> Oracle:
    """Returns a TensorFlow function by its path, looked up when it is called."""

    def call(*args: Any, **keywords: Any) -> Any:
        import tensorflow

        function: Any = tensorflow
        for part in path.split("."):
            function = getattr(function, part)
        return function(*args, **keywords)

    return call


def named_values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Returns all values of a graph by name."""
    values = (*graph.inputs, *graph.initializers.values())
    values += tuple(v for node in graph for v in node.outputs)
    return {v.name: v for v in values if v.name}


def apart(*shape: int, seed: int = 0, gap: float = 0.05) -> Array:
    """Returns float64 values of which no two are nearer than `gap`, and none near 0."""
    count = int(np.prod(shape))
    values = (np.arange(count) - count // 2 + 0.5) * gap
    return np.random.default_rng(seed).permutation(values).reshape(shape)


def uniform(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> Array:
    """Returns uniform float64 values."""
    return np.asarray(np.random.default_rng(seed).uniform(low, high, shape))


def _gradients_in_run(
    case: Case,
    element: type,
    open_axes: Open,
    dys: Mapping[str, Array],
    **tables: Any,
) -> list[Array]:
    wrt = [f"x{i}" for i in case.wanted]
    # One run is as users have it: no value in it is an output, out of the optimiser's reach.
    bare = element is np.float32 and case.double
    made = differentiate(
        one_node(case, element, open_axes), wrt, list(dys), expose=not bare, **tables
    )
    feeds = feeds_of(case, element) | seeds_of(made.model, dys)
    outputs = run(made.model, feeds, need_kernels=element is np.float32)
    _check_claims(made, outputs)
    if made.missing:
        raise AssertionError(f"{case}: no gradient reaches {made.missing}")
    return [outputs[f"d/{name}"] for name in wrt]


def _check_claims(made: Differentiated, outputs: Mapping[str, Array]) -> None:
    """Holds what rules claimed of their values against what came out."""
    for name, (dtype, shape) in made.claims.items():
        if dtype is None:
            raise AssertionError(f"{name} was written without an element type")
        if name not in outputs:
            continue
        array = np.asarray(outputs[name])
        if array.dtype != dtype.numpy():
            raise AssertionError(f"{name} claims {dtype}, is {array.dtype}")
        fits = shape is None or (
            len(shape) == array.ndim
            and all(
                claim == size
                for claim, size in zip(shape, array.shape, strict=True)
                if isinstance(claim, int)
            )
        )
        if not fits:
            raise AssertionError(f"{name} claims the shape {shape}, has {array.shape}")


def _oracles(
    case: Case, forward: onnx.ModelProto, dys: Mapping[str, Array]
) -> list[tuple[str, list[Array], tuple[float, float]]]:
    """Returns name, gradients and (rtol, atol) of each oracle the case names."""
    found: list[tuple[str, list[Array], tuple[float, float]]] = []
    seeds = list(dys.values())
    tolerance = (case.rtol, case.atol) if case.double else SINGLE
    if case.twin is not None:
        found.append(("the twin", list(case.twin(seeds, *case.inputs)), tolerance))
    if case.tensorflow is not None:
        by_tape = tape(case.tensorflow, case.inputs, seeds, case.wanted)
        found.append(("TensorFlow", by_tape, tolerance))
    if case.numeric:
        names = [f"x{i}" for i in case.wanted]
        feeds = feeds_of(case, np.float64)
        differences = finite_differences(runner(forward), feeds, dys, names)
        found.append(("finite differences", differences, (1e-6, 1e-7)))
    if not found:
        raise AssertionError(f"{case} names no oracle")
    return found


def _compare(
    case: Case,
    labels: tuple[str, str],
    found: Sequence[Array],
    expected: Sequence[Array],
    tolerance: tuple[float, float],
) -> None:
    """Compares gradients; `labels` names the run and what it is held against."""
    rtol, atol = tolerance
    for position, a, b in zip(case.wanted, found, expected, strict=True):
        np.testing.assert_allclose(
            a,
            b,
            rtol=rtol,
            atol=atol,
            err_msg=f"{case}: input {position}, {labels[0]} against {labels[1]}",
            strict=False,
        )
        if np.shape(a) != case.inputs[position].shape:
            raise AssertionError(f"{case} ({labels[0]}): the gradient has the shape {np.shape(a)}")


def _cast(array: Array, element: type) -> Array:
    return array.astype(element) if array.dtype == np.float64 else array


def _info(case: Case, position: int, element: type, open_axes: Open) -> onnx.ValueInfoProto:
    array = _cast(case.inputs[position], element)
    sizes: list[int | str] = list(array.shape)
    for axis, name in open_axes.get(position, {}).items():
        sizes[axis] = name
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(f"x{position}", kind, sizes)


def check_rows_apart(case: Case) -> None:
    """Checks that the gradient at each sample of a batch is the one that it has alone."""
    forward = one_node(case, np.float32, case.open_batch())
    made = differentiate(forward, ["x0"], ["y0"]).model
    x = case.inputs[0].astype(np.float32)
    dy = uniform(*run(forward, {"x0": x})["y0"].shape, seed=4).astype(np.float32)
    together = run(made, {"x0": x, "dy/y0": dy})["d/x0"]
    for i in range(len(x)):
        alone = run(made, {"x0": x[i : i + 1], "dy/y0": dy[i : i + 1]})["d/x0"]
        np.testing.assert_allclose(together[i : i + 1], alone, rtol=1e-5, atol=1e-6)
