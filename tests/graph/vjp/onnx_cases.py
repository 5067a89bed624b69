"""The published cases of ONNX's operators (its backend node tests) as a corpus for the rules.

A case is a model of one operator, or of what the operator's specification takes it apart into,
with inputs. All floating types of it become float64. The vector-Jacobian product of a random
cotangent, by our rules, is held against central differences of the case itself in onnx's
reference evaluator: at every element of every floating input, or at some and along random
directions where there are many. The gradient is evaluated by onnxruntime where it has the
kernels and by the reference evaluator where it has not. Where the operator's specification knows
no float64, the gradient is evaluated in float32 with looser bounds.

The case goes through the reader of ONNX files first, as a stranger's file does: what has no rule
and is a function in ONNX's specification is taken apart there.

Inputs that are no floating numbers (indices, axes, sizes) become constants, as a model in
service has them. Each case is tried once more with them left open; the outcome says whether that
goes too.

Published inputs often have ties and zeros, at which a slope is not defined. Inputs are
therefore moved by about a thousandth before anything is computed. Inputs that are not finite
(masks of -inf) stay as they are and are asked no gradient; of what is cast, 0 stands for them.

Where the reference evaluator lacks an operator, or has another opinion than onnxruntime (it
reads some sizes of Resize otherwise), the differences are those of onnxruntime; the outcome says
so.

Every case has an outcome: its gradients agree, with the largest relative distance; they differ;
a rule refuses, with the reason; or it is not applicable, with the reason. Run
`python -m tests.graph.vjp.onnx_cases` for the whole table.
"""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import fnmatch
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_pool_common
from onnx_ir.passes.common import RemoveUnusedNodesPass

from probegen.errors import ProbegenError, Refusal, UnsupportedOpsError
from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.vjp import BLOCKING, RULES
from probegen.sources.onnx.reading import read_onnx
from sweep.markdown import put_between

Array = npt.NDArray[Any]

AGREES = "agrees"
DIFFERS = "differs"
REFUSED = "refused"
NOT_APPLICABLE = "not applicable"
FAILS = "fails"

FLOATS = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    }
)

#: Operator -> inputs that are floating numbers and yet settings, not values: sizes and places.
SETTINGS: Mapping[str, frozenset[int]] = {
    "Resize": frozenset({1, 2}),
    "Upsample": frozenset({1}),
    "Dropout": frozenset({1}),
    "MaxRoiPool": frozenset({1}),
    "NonMaxSuppression": frozenset({3, 4}),
}

#: Elements of an input up to which differences are taken at each; and how many are drawn beyond.
_EACH = 40
_DRAWN = 12
_DIRECTIONS = 3

#: Largest relative distance, in float64 and where the gradient is evaluated in float32.
_TOLERANCE = 1e-5
_SINGLE = 2e-3
#: The same where the case itself is evaluated in float32, and the steps of differences.
_COARSE = 2e-2
_STEPS = (1e-5, 1e-4, 1e-6, 1e-3)
_COARSE_STEPS = (1e-2, 3e-3, 3e-2)

#: Attributes that name an element type.
_TYPES = ("to", "dtype", "stash_type", "softmax_precision")

#: Seconds of differences for one input, beyond which fewer directions are taken.
_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: its name.
        op: the operator it is about.
        verdict: one of the five above.
        detail: the reason, or what else is to be said.
        distance: largest relative distance of the gradients where they were compared.
        open: whether it also agrees with integer inputs left open; None where it has none.
    """

    case: str
    op: str
    verdict: str
    detail: str = ""
    distance: float | None = None
    open: bool | None = None


class _NotApplicableError(Exception):
    """A case says nothing about gradients; says why."""


class _EvaluatorError(Exception):
    """An engine cannot evaluate a case; says why."""


class _DiffersError(Exception):
    """Gradients do not agree; says where and by how much."""


# -- the cases -------------------------------------------------------------------------------


def published_cases() -> list[Any]:
    """Returns all cases that onnx publishes for its operators, without what pooling should give.

    Nobody here asks for that, and onnx computes it window by window: four seconds of five.
    """

    def sized(
        padded: Array, shape: Any, kernel: Any, strides: Any, sizes: Any, *_: Any, **__: Any
    ) -> Array:
        del kernel, strides
        return np.zeros([*shape[:2], *sizes], padded.dtype)

    with warnings.catch_warnings(), mock.patch.object(op_pool_common, "pool", sized):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return list(collect_testcases(None))


def operators_of(cases: Iterable[Any]) -> dict[str, str]:
    """Returns case name -> the operator it is about; an expanded case is about the same one."""
    known = {c.name: c.model.graph.node[0].op_type for c in cases if len(c.model.graph.node) == 1}
    found = {}
    for case in cases:
        whole = case.name.partition("_expanded")[0]
        about = next((n.op_type for n in case.model.graph.node if n.op_type in _RARE), None)
        found[case.name] = known.get(whole) or known.get(case.name) or about or "several"
    return found


#: Operators whose cases need others around them.
_RARE = ("If", "Loop", "Scan", "SequenceMap", "Optional", "SequenceInsert", "Cast")


def floating_size(case: Any) -> int:
    """Returns how many floating numbers a case reads; 0 where it says nothing of gradients."""
    if not any(o.type.tensor_type.elem_type in FLOATS for o in case.model.graph.output):
        return 0
    try:
        feeds = _feeds(case)
        return sum(feeds[name].size for name in _floating_inputs(case.model, feeds))
    except _NotApplicableError:
        return 0


def outcome(case: Any, op: str) -> Outcome:
    """Tries one case; whatever happens becomes an outcome."""
    rng = np.random.default_rng(sum(map(ord, case.name)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _tried(case, op, rng)
    except _NotApplicableError as reason:
        return Outcome(case.name, op, NOT_APPLICABLE, str(reason))
    except UnsupportedOpsError as error:
        return Outcome(case.name, op, REFUSED, "; ".join(map(_told, error.refusals)))
    except ProbegenError as error:
        return Outcome(case.name, op, REFUSED, str(error).splitlines()[0])
    except _DiffersError as error:
        return Outcome(case.name, op, DIFFERS, str(error))
    except Exception as error:
        kind = type(error).__name__
        return Outcome(case.name, op, FAILS, f"{kind}: {_first_line(error)}")


def _told(refusal: Refusal) -> str:
    return f"{refusal.op_type}: {refusal.reason}"


def _tried(case: Any, op: str, rng: np.random.Generator) -> Outcome:
    model = _standard(case.model)
    if op in BLOCKING:
        raise _NotApplicableError(f"it passes no gradient: {BLOCKING[op]}")
    published = _feeds(case)
    floating = _floating_inputs(model, published)
    wide, feeds = _in_double(model, published)
    reasons = []
    for forward in _evaluators(wide):
        try:
            return _tried_by(forward, wide, feeds, floating, case.name, op, rng)
        except (_DiffersError, _EvaluatorError) as error:
            reasons.append(f"{forward.name}: {error}")
    raise _DiffersError("; ".join(reasons))


def _tried_by(
    forward: _Evaluator,
    model: onnx.ModelProto,
    published: Mapping[str, Array],
    floating: Sequence[str],
    name: str,
    op: str,
    rng: np.random.Generator,
) -> Outcome:
    feeds, outputs = _moved(forward, published, floating, rng)
    cotangents = {
        n: np.asarray(rng.uniform(0.5, 1.5, np.shape(y)) * rng.choice([-1, 1], np.shape(y)))
        for n, y in outputs.items()
    }
    model = _with_output_sizes(model, outputs)
    settled = _with_constants(model, feeds, floating)
    values = {n: feeds[n] for n in floating}
    found, single = _evaluated(settled, values, cotangents)
    coarse = forward.single or _looks_single(outputs)
    tolerance = _COARSE if coarse else _SINGLE if single else _TOLERANCE
    distance = _distance(forward, feeds, cotangents, found, tolerance, coarse, rng)
    opened = None
    if len(floating) < len(feeds):
        opened = _agrees_open(model, feeds, floating, cotangents, found)
    notes = [forward.note] if forward.note else []
    if single:
        notes.append("evaluated in float32")
    if coarse and not forward.note:
        notes.append("the reference evaluates it in float32")
    return Outcome(name, op, AGREES, "; ".join(notes), distance, opened)


# -- who evaluates the case --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Evaluator:
    """Evaluates a case.

    Attributes:
        name: of the engine.
        run: input name -> array gives output name -> array.
        single: whether it computes in float32.
        note: what an outcome says of it.
    """

    name: str
    run: Callable[[Mapping[str, Array]], dict[str, Array]]
    single: bool = False
    note: str = ""


def _evaluators(model: onnx.ModelProto) -> Iterator[_Evaluator]:
    """Returns the reference evaluator, then onnxruntime in float64 and in float32."""
    names = [o.name for o in model.graph.output]
    reference = _made(lambda: ReferenceEvaluator(model))
    if reference is not None:
        yield _Evaluator("reference", _by(reference, names))
    for narrow in (False, True):
        copied = copy.deepcopy(model)
        if narrow:
            _narrow_graph(copied.graph)
        session = _made(lambda copied=copied: _session(copied))
        if session is not None:
            run = _by(session, names, narrow=narrow)
            yield _Evaluator("onnxruntime", run, narrow, "differences of onnxruntime")


def _made(make: Callable[[], Any]) -> Any:
    """Returns what is made, None where an engine cannot make it."""
    try:
        return make()
    except Exception:
        return None


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _by(
    engine: Any, names: Sequence[str], *, narrow: bool = False
) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = {name: np.asarray(a) for name, a in feeds.items()}
        if narrow:
            given = {k: v.astype(np.float32) if v.dtype == float else v for k, v in given.items()}
        try:
            found = engine.run(None, given)
        except Exception as error:
            raise _EvaluatorError(f"it fails: {_first_line(error)}") from error
        return dict(zip(names, found, strict=True))

    return run


def _looks_single(outputs: Mapping[str, Array]) -> bool:
    """Tells whether outputs in float64 hold what fits float32: something computed in that."""
    values = np.concatenate([np.ravel(y) for y in outputs.values()])
    return bool(np.array_equal(values, values.astype(np.float32)) and values.any())


def _agrees_open(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    floating: Sequence[str],
    cotangents: Mapping[str, Array],
    settled: Mapping[str, Array | None],
) -> bool:
    """Tells whether the gradients are the same where other inputs are left open."""
    try:
        found, _ = _evaluated(model, feeds, cotangents, wrt=floating)
    except ProbegenError:
        return False
    for name, expected in settled.items():
        gradient = found[name]
        if expected is None or gradient is None:
            if expected is not gradient:
                raise _DiffersError(f"{name}: only one of open and constant inputs has a gradient")
        elif not np.allclose(gradient, expected, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise _DiffersError(f"{name}: another gradient with open integer inputs")
    return True


# -- inputs and outputs ------------------------------------------------------------------------


def _feeds(case: Any) -> dict[str, Array]:
    arrays = case.data_sets[0][0]
    names = [i.name for i in case.model.graph.input]
    for name, info in zip(names, case.model.graph.input, strict=True):
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            raise _NotApplicableError(f"{name} is a {str(kind).removesuffix('_type')}, no tensor")
    feeds = {
        name: np.asarray(onnx.numpy_helper.to_array(a) if hasattr(a, "dims") else a)
        for name, a in zip(names, arrays, strict=False)
    }
    if not case.name.startswith("test_cast"):
        return feeds
    return {
        name: a
        if _is_finite(a)
        else np.where(np.isfinite(a.astype(np.float64)), a, a.dtype.type(0))
        for name, a in feeds.items()
    }


def _is_finite(array: Array) -> bool:
    """Tells whether an array holds numbers, none of which is infinite or none at all."""
    return array.dtype.kind in "OUS" or bool(np.isfinite(array.astype(np.float64)).all())


def _floating_inputs(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[str]:
    """Returns the inputs at which a gradient can be asked for.

    Raises:
        _NotApplicableError: there is none.
    """
    kinds = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    settings = {
        name
        for node in model.graph.node
        for position, name in enumerate(node.input)
        if position in SETTINGS.get(node.op_type, ())
    }
    found = [n for n in feeds if kinds[n] in FLOATS and n not in settings]
    if not found:
        raise _NotApplicableError("no input is a floating tensor")
    found = [n for n in found if _is_finite(feeds[n])]
    if not found:
        raise _NotApplicableError("its inputs are not finite")
    if not any(feeds[name].size for name in found):
        raise _NotApplicableError("its floating inputs hold no elements")
    return found


def _floating_outputs(forward: _Evaluator, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the outputs that a cotangent can be given for.

    Raises:
        _NotApplicableError: there is none.
    """
    found = {}
    for name, value in forward.run(feeds).items():
        array = np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None
        wide = array is not None and array.dtype.kind == "f" and array.dtype.itemsize > 2
        if wide and np.isfinite(array).all():
            found[name] = np.asarray(array, np.float64)
    if not found:
        raise _NotApplicableError("no output is a finite floating tensor")
    return found


def _moved(
    forward: _Evaluator,
    feeds: Mapping[str, Array],
    floating: Sequence[str],
    rng: np.random.Generator,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns the inputs a little moved, away from ties, zeros and bounds, and their outputs.

    They stay where they are if the outputs are no numbers however they move. Where moved inputs
    give outputs of other sizes (equal entries are no longer equal), these are what is compared.
    """
    before = _floating_outputs(forward, feeds)
    again = _floating_outputs(forward, feeds)
    if not all(np.array_equal(before[name], again[name]) for name in before):
        raise _NotApplicableError("its output is drawn at random")
    other: tuple[dict[str, Array], dict[str, Array]] | None = None
    for _ in range(20):
        moved = {name: _drifted(x, rng) if name in floating else x for name, x in feeds.items()}
        try:
            after = _floating_outputs(forward, moved)
        except (_NotApplicableError, _EvaluatorError):
            continue
        shapes = [{n: y.shape for n, y in outputs.items()} for outputs in (before, after)]
        if shapes[0] == shapes[1]:
            return moved, after
        other = moved, after
    return other or (dict(feeds), before)


def _with_output_sizes(model: onnx.ModelProto, outputs: Mapping[str, Array]) -> onnx.ModelProto:
    """Returns a model that declares the sizes that its outputs have now."""
    model = copy.deepcopy(model)
    for info in model.graph.output:
        if info.name in outputs:
            kind = info.type.tensor_type.elem_type
            sizes = np.shape(outputs[info.name])
            declared = info.type.tensor_type.shape.dim
            if info.type.tensor_type.HasField("shape") and len(declared) != len(sizes):
                raise _EvaluatorError(f"{info.name} has rank {len(sizes)}, not {len(declared)}")
            info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, kind, sizes))
    return model


def _drifted(x: Array, rng: np.random.Generator) -> Array:
    """Returns an array of which each element has moved by a thousandth, or well off 0."""
    drift = 1e-3 * rng.uniform(0.5, 1.5, x.shape) * rng.choice([-1, 1], x.shape)
    return np.asarray(np.where(x == 0, 50 * drift, x * (1 + drift)))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# -- types -------------------------------------------------------------------------------------


def _standard(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model of standard operators.

    Raises:
        _NotApplicableError: it has none.
    """
    if not any(o.domain == "" for o in model.opset_import):
        raise _NotApplicableError(f"it is of {model.opset_import[0].domain}, which has no rules")
    return model


def _in_double(
    model: onnx.ModelProto, feeds: Mapping[str, Array]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Returns a copy of a model with all floating types as float64, and its inputs."""
    model = copy.deepcopy(model)
    _widen_graph(model.graph)
    kinds = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    double = onnx.TensorProto.DOUBLE
    return model, {
        name: np.asarray(a, np.float64) if kinds[name] == double else a for name, a in feeds.items()
    }


def _widen_graph(graph: onnx.GraphProto) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type in FLOATS:
            info.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.HasField("g"):
                _widen_graph(attribute.g)
            if attribute.name in _TYPES and attribute.i in FLOATS:
                attribute.i = onnx.TensorProto.DOUBLE
        if node.op_type == "Constant":
            _widen_constant(node)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in FLOATS:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _widen_constant(node: onnx.NodeProto) -> None:
    (attribute,) = node.attribute
    if attribute.name in ("value_float", "value_floats"):
        number = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        tensor = onnx.numpy_helper.from_array(np.asarray(number, np.float64))
        attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _with_constants(
    model: onnx.ModelProto, feeds: Mapping[str, Array], floating: Sequence[str]
) -> onnx.ModelProto:
    """Returns a model in which inputs that are no floating numbers are constants."""
    model = copy.deepcopy(model)
    kept = [i for i in model.graph.input if i.name in floating]
    for info in model.graph.input:
        if info.name not in floating and info.name in feeds:
            array = feeds[info.name]
            if array.dtype.kind in "OUS":
                raise _NotApplicableError(f"its input {info.name} holds strings")
            tensor = onnx.numpy_helper.from_array(array, info.name)
            tensor.data_type = info.type.tensor_type.elem_type
            model.graph.initializer.append(tensor)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


# -- gradients ---------------------------------------------------------------------------------


def _evaluated(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    cotangents: Mapping[str, Array],
    wrt: Sequence[str] | None = None,
) -> tuple[dict[str, Array | None], bool]:
    """Returns input name -> gradient, and whether it was evaluated in float32.

    Raises:
        UnsupportedOpsError: a rule is missing or refuses.
    """
    names = list(feeds) if wrt is None else list(wrt)
    inputs = {**feeds, **{f"dy/{name}": dy for name, dy in cotangents.items()}}
    if _is_valid(model):
        made = _differentiated(model, names, cotangents)
        try:
            outputs = _run(made, inputs)
        except _EvaluatorError:  # no engine has all kernels in float64
            pass
        else:
            return {name: outputs.get(f"d/{name}") for name in names}, False
    narrow = copy.deepcopy(model)
    _narrow_graph(narrow.graph)
    made = _differentiated(narrow, names, cotangents)
    outputs = _run(
        made, {k: v.astype(np.float32) if v.dtype == float else v for k, v in inputs.items()}
    )
    return {name: outputs.get(f"d/{name}") for name in names}, True


def _is_valid(model: onnx.ModelProto) -> bool:
    """Tells whether onnx takes a model for one."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def _run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a model in onnxruntime, or in the reference evaluator where kernels are missing."""
    names = [o.name for o in model.graph.output]
    if not names:
        return {}
    given = {i.name for i in model.graph.input}
    used = {name: a for name, a in feeds.items() if name in given}
    try:
        found = _session(model).run(None, used)
    except Exception as error:  # a newer operator set than it knows, or a kernel that it lacks
        try:
            found = ReferenceEvaluator(model).run(None, used)
        except Exception as second:
            told = f"{_first_line(error)}; the reference: {_first_line(second)}"
            raise _EvaluatorError(told) from error
    return dict(zip(names, found, strict=True))


def _narrow_graph(graph: onnx.GraphProto) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    tensors = [a.t for n in graph.node for a in n.attribute if a.HasField("t")]
    for tensor in (*graph.initializer, *tensors):
        if tensor.data_type == onnx.TensorProto.DOUBLE:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _narrow_graph(attribute.g)
            if attribute.name in _TYPES and attribute.i == onnx.TensorProto.DOUBLE:
                attribute.i = onnx.TensorProto.FLOAT


def _differentiated(
    model: onnx.ModelProto, wrt: Sequence[str], of: Iterable[str]
) -> onnx.ModelProto:
    """Returns a model with inputs `dy/<output>` and outputs `d/<input>`, checked by onnx."""
    declared = {o.name: o.shape for o in ir.from_proto(model).graph.outputs}
    parsed = read_onnx(model).model
    graph = parsed.graph
    values = {v.name: v for v in (*graph.inputs, *graph.outputs) if v.name}
    builder = Builder(graph, parsed.opset_imports[""])
    seeds = {}
    for name in of:
        value = values[name]
        if value.shape is None:
            value.shape = declared[name]
        seed = ir.Value(name=f"dy/{name}", type=value.type, shape=value.shape)
        graph.inputs.append(seed)
        seeds[values[name]] = seed
    sources = [values[name] for name in wrt]
    found = gradients(builder, seeds, sources, RULES, BLOCKING)
    del graph.outputs[:]
    for source, gradient in zip(sources, found, strict=True):
        if gradient is not None:
            output = builder.op("Identity", gradient, shape=source, dtype=source.dtype)
            output.name = f"d/{source.name}"
            graph.outputs.append(output)
    builder.attach()
    RemoveUnusedNodesPass()(parsed)
    proto = ir.to_proto(parsed)
    # Of some operators onnx cannot infer the shape with their default attributes.
    onnx.checker.check_model(proto, full_check=_is_valid(model))
    return proto


def _distance(
    forward: _Evaluator,
    feeds: Mapping[str, Array],
    cotangents: Mapping[str, Array],
    found: Mapping[str, Array | None],
    tolerance: float,
    coarse: bool,
    rng: np.random.Generator,
) -> float:
    """Returns the largest relative distance from central differences.

    Raises:
        _DiffersError: it is beyond the tolerance.
    """

    def scalar(changed: Mapping[str, Array]) -> float:
        outputs = forward.run(changed)
        return sum(
            float(np.vdot(dy, np.asarray(outputs[n], np.float64))) for n, dy in cotangents.items()
        )

    worst = 0.0
    for name, gradient in found.items():
        x = feeds[name]
        if gradient is None:
            gradient = np.zeros(x.shape)  # noqa: PLW2901
        if gradient.shape != x.shape:
            raise _DiffersError(
                f"{name}: the gradient has the shape {gradient.shape}, not {x.shape}"
            )
        if not np.isfinite(gradient).all():
            raise _DiffersError(f"{name}: the gradient is not finite")
        directions = list(_directions(x, rng))
        if not directions:
            continue
        along = np.array([float(np.vdot(gradient, d)) for d in directions])
        scale = max(float(np.abs(along).max()), 1e-3)
        distances = []
        for step in _COARSE_STEPS if coarse else _STEPS:
            width = step * max(1, abs(x).max())
            start, taken = time.perf_counter(), []
            for direction in directions:
                taken.append(_difference(scalar, feeds, name, direction, width))
                if time.perf_counter() - start > _SECONDS and len(taken) >= _DIRECTIONS:
                    break
            expected = np.array(taken)
            scale = max(scale, float(np.max(np.abs(expected))))
            distances.append(float(np.max(np.abs(along[: len(taken)] - expected))) / scale)
            if distances[-1] <= tolerance:
                break
        nearest = min(distances)
        if not nearest <= tolerance:
            raise _DiffersError(f"{name}: relative distance {nearest:.2g}")
        worst = max(worst, nearest)
    return worst


def _directions(x: Array, rng: np.random.Generator) -> Iterator[Array]:
    """Returns the directions along which differences are taken: mixed, then single elements."""
    places = list(np.ndindex(*x.shape))
    for _ in range(_DIRECTIONS if places else 0):
        yield rng.standard_normal(x.shape) / np.sqrt(x.size)
    if len(places) > _EACH:
        places = [places[i] for i in rng.choice(len(places), _DRAWN, replace=False)]
    for place in places:
        direction = np.zeros(x.shape)
        direction[place] = 1
        yield direction


def _difference(
    scalar: Callable[[Mapping[str, Array]], float],
    feeds: Mapping[str, Array],
    name: str,
    direction: Array,
    step: float,
) -> float:
    ends = [scalar({**feeds, name: feeds[name] + sign * step * direction}) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


# -- the table ---------------------------------------------------------------------------------


def table(outcomes: Iterable[Outcome]) -> str:
    """Returns a Markdown table: a row an operator, with how many of its cases came to what."""
    by_operator: dict[str, list[Outcome]] = collections.defaultdict(list)
    for one in outcomes:
        by_operator[one.op].append(one)
    lines = [
        "| operator | cases | agree | largest distance | integer inputs open | refused | "
        "not applicable | else |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for op, several in sorted(by_operator.items()):
        of = {v: [o for o in several if o.verdict == v] for v in _VERDICTS}
        distances = [o.distance for o in of[AGREES] if o.distance is not None]
        opened = [o.open for o in of[AGREES] if o.open is not None]
        cells = [
            f"`{op}`",
            str(len(several)),
            str(len(of[AGREES])),
            f"{max(distances):.0e}" if distances else "",
            f"{sum(opened)} of {len(opened)}" if opened else "",
            _reasons(of[REFUSED]),
            _reasons(of[NOT_APPLICABLE]),
            _reasons([*of[DIFFERS], *of[FAILS]]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_coverage(page: Path, outcomes: Sequence[Outcome]) -> None:
    """Puts the table between its two markers of a Markdown page.

    Raises:
        ValueError: the page has no such markers.
    """
    counts = collections.Counter(o.verdict for o in outcomes)
    told = ", ".join(f"{counts[v]} {_WORDS[v]}" for v in _VERDICTS if counts[v])
    made = (
        f"Made by `make corpus` with onnx {onnx.__version__} and onnxruntime "
        f"{onnxruntime.__version__}: of {len(outcomes)} cases {told}."
    )
    put_between(page, START, END, f"{made}\n\n{table(outcomes)}")


#: Where the table stands in its page.
START, END = "<!-- onnx operators: start -->", "<!-- onnx operators: end -->"

_WORDS = {
    AGREES: "agree",
    DIFFERS: "differ",
    REFUSED: "are refused",
    NOT_APPLICABLE: "are not about gradients",
    FAILS: "fail",
}

_VERDICTS = (AGREES, DIFFERS, REFUSED, NOT_APPLICABLE, FAILS)


def _reasons(outcomes: Sequence[Outcome]) -> str:
    counts = collections.Counter(o.detail for o in outcomes)
    return "; ".join(f"{n}: {why}" for why, n in counts.most_common()).replace("|", "/")


def main() -> int:
    """Tries all cases, or those whose name fits a glob; prints the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("only", nargs="*", help="globs of case names or operators")
    parser.add_argument("--coverage", type=Path, help="put the table into this page")
    parser.add_argument("--times", action="store_true", help="print what each case takes")
    arguments = parser.parse_args()
    cases = published_cases()
    about = operators_of(cases)
    outcomes = []
    for case in cases:
        names = (case.name, about[case.name])
        if arguments.only and not any(fnmatch.fnmatch(n, g) for n in names for g in arguments.only):
            continue
        start = time.perf_counter()
        one = outcome(case, about[case.name])
        outcomes.append(one)
        took = f" {time.perf_counter() - start:.2f} s" if arguments.times else ""
        distance = "" if one.distance is None else f" {one.distance:.1e}"
        opened = {None: "", True: " (open too)", False: " (not open)"}[one.open]
        print(
            f"{one.verdict}{distance}{opened}: {one.case} [{one.op}] {one.detail}{took}", flush=True
        )
    print(dict(collections.Counter(o.verdict for o in outcomes)))
    if arguments.coverage:
        write_coverage(arguments.coverage, outcomes)
    return any(o.verdict in (DIFFERS, FAILS) for o in outcomes)


if __name__ == "__main__":
    sys.exit(main())
