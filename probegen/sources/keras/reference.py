"""Reference for artefacts of Keras models: the untouched model, and TensorFlow's gradients.

Predictions come from the model called eagerly, as a user calls it: not watched, not traced, not
in a stateless scope, all of which the artefact has behind it and might be wrong by. What a call
changes in the model (recurrent states, counters, seeds) is put back afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probegen.artefact.manifest import GROUPS_INPUT, PRECISIONS, REGION_INPUT, TARGET_INPUT
from probegen.errors import SourceError, VerificationError
from probegen.methods.base import resized
from probegen.methods.numpy_operations import NumpyOperations
from probegen.plan.plan import CallKey, GradientGroup, GradientOutput, Plan, TensorRef
from probegen.plan.raw_gradients import with_raw_gradients, without_scores
from probegen.sources.base import DirectReference, Noise
from probegen.sources.changed_scores import (
    ScoresAt,
    attribution_by_scores,
    scores_by_moving,
)
from probegen.sources.class_by_class import class_by_class
from probegen.sources.keras.as_traced import run_as_traced
from probegen.sources.keras.attention import in_one_order
from probegen.sources.keras.capture import Watcher, watching
from probegen.sources.keras.first_floats import BLENDING
from probegen.sources.keras.forward import run_forward
from probegen.sources.keras.in_double import in_double, rounding_in_double, with_coarse_sigmoids
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.layer_calls import OverSteps
from probegen.sources.keras.moved_scores import KerasMovedScores
from probegen.sources.keras.precision import FINE, current
from probegen.sources.keras.requests import request_specs
from probegen.sources.keras.rounding_noise import RoundingNoise, coarser_types
from probegen.sources.keras.stepwise import outputs_by_steps, states_by_steps
from probegen.sources.keras.tape import explain_run, refuse_tables
from probegen.sources.keras.traced_once import trace_once
from probegen.sources.keras.unchanged import states_of, unchanged
from probegen.stages import one_line

Array = npt.NDArray[Any]

#: How many times what a computation was seen to round another may round.
_MOST_ROUNDED = 3.0
#: Functions that compute near 1, whatever small number comes out.
_NEAR_ONE = frozenset({"Sigmoid", "Softmax", "LogSoftmax", "Softplus", "Log1p", "Expm1"})
#: Functions that run to 1 and are exact to some roundings of it there, which shows once something
#: takes the 1 away, as in (1 + tanh x) / 2. Near 0 they are exact to a rounding of what comes out.
_TO_ONE = {"Tanh": 4.0, "Erf": 4.0}  # TensorFlow and onnxruntime: 4.8e-7 and 3.6e-7 apart
#: Operations that hand the rounding of their input on.
_HANDS_ON = frozenset(
    {
        "Identity", "Cast", "Reshape", "Transpose", "Squeeze", "ExpandDims", "StridedSlice",
        "Slice", "GatherV2", "ConcatV2", "Pack", "Unpack", "Split", "SplitV", "Tile", "Neg", "Abs",
        "Mean", "Max", "Min", "Sum", "Prod", "Cumsum", "Cumprod", "Relu", "Maximum", "Minimum",
        "SelectV2", "StopGradient", "ReverseV2",
    }
)  # fmt: skip
_SUMS = frozenset({"AddV2", "Add", "Sub"})
_ARITHMETIC = _SUMS | {"Mul", "RealDiv"}
#: What TensorFlow says of a transposed convolution with holes where oneDNN is off.
_HOLES_WITHOUT_ONEDNN = "do not yet support dilation rates larger than 1"


class KerasReference(DirectReference):
    """Answers what the outputs for some inputs should be; see `sources.base.Reference`."""

    gradients_by = "TensorFlow's gradients"
    words: Mapping[str, Sequence[str]] = MappingProxyType({})

    def __init__(self, source: KerasModel, plan: Plan) -> None:
        """Keeps both; the model is traced with the plan once that is asked for."""
        self._source = source
        self._asked = plan
        self.plan, self._raw = with_raw_gradients(plan)
        self._request = request_specs(plan.manifest, source.batch)
        self._request.pop(GROUPS_INPUT, None)  # which methods by scores alone take
        refuse_tables(without_scores(self.plan))

    @functools.cached_property
    def computed_in(self) -> str:
        """The coarsest element type on the way."""
        coarsest = coarsest_dtype(self._source.model)
        if coarsest != "float64":
            return coarsest

        def predicted(*flat: Any) -> Any:
            return self._source.call(flat)

        graph = trace_once(predicted, self._source.input_specs).graph
        return "float32" if any(map(_narrows, graph.get_operations())) else coarsest

    @functools.cached_property
    def _traced(self) -> tuple[Any, Any]:
        """What gives all outputs but those by scores, for any batch and open size, and its run."""
        return self._trace(noisy=False)

    @functools.cached_property
    def _traced_with_noise(self) -> Any:
        """The same, with noise on the first floating tensors."""
        return self._trace(noisy=True)[0]

    def _trace(self, *, noisy: bool) -> tuple[Any, Any]:
        inputs, more = len(self._source.input_specs), len(RoundingNoise.SPECS) if noisy else 0
        by_gradients = without_scores(self.plan)
        runs = []

        def explained(*flat: Any) -> dict[str, Any]:
            noise = RoundingNoise(flat[0], flat[1], flat[2], self._coarser) if noisy else None
            given = flat[more:]
            asked = dict(zip(self._request, given[inputs:], strict=True))
            target, region = asked.get(TARGET_INPUT), asked.get(REGION_INPUT)
            runs.append(run_forward(self._source, by_gradients, given[:inputs], noise=noise))
            return explain_run(self._source, by_gradients, runs[-1], target, region=region)

        specs = [*RoundingNoise.SPECS[:more], *self._source.input_specs, *self._request.values()]
        return trace_once(explained, specs), runs[-1]

    @functools.cached_property
    def _coarser(self) -> frozenset[Any]:
        """Element types of inputs that are coarser than the model computes in."""
        return coarser_types(self._source.input_specs, self.computed_in)

    @functools.cached_property
    def begins_inside(self) -> bool:
        """Tells whether floating numbers begin where noise on what is fed does not reach."""
        types = {spec.dtype for spec in self._source.input_specs}
        if any(not t.is_floating or t in self._coarser for t in types):
            return True
        return any(map(_truncates, self._traced[0].graph.get_operations()))

    @functools.cached_property
    def sizes(self) -> frozenset[int]:
        """Every size that a tensor of the model has."""
        return _sizes(self._traced[0].graph)

    def shares_gradients_with(self, engine: str) -> bool:
        """Tells whether an engine of the runtime runs TensorFlow's gradients."""
        return engine.startswith("TensorFlow")

    def predictions(self, feed: Mapping[str, Array], times: int = 1) -> list[dict[str, Array]]:
        """Returns what the untouched model predicts, called `times` times on the same inputs.

        Its states are put back between the calls, its random generators go on.
        """
        flat = self._source.tensors(feed)
        found = []
        with unchanged(self._source.model) as put_back:
            for _ in range(times):
                found.append(self._predict(flat))
                put_back(seeds=False)
        return found

    def explanations(
        self, feed: Mapping[str, Array], target: Any, noise: Noise | None = None
    ) -> dict[str, Array]:
        """Returns all outputs of the instrumented model, and raw gradients, by TensorFlow.

        Raises:
            VerificationError: TensorFlow cannot compute them.
        """
        moved = noise if self.begins_inside else None
        with unchanged(self._source.model):  # plain variables are written into in a trace as well
            try:
                function = self._traced[0] if moved is None else self._traced_with_noise
                first = [] if moved is None else RoundingNoise.fed(moved)
                found = run_as_traced(function, *first, *self._arguments(feed, target))
            except tf.errors.OpError as error:
                raise VerificationError(
                    f"TensorFlow cannot compute the reference for {self._source.model.name!r} on "
                    f"inputs of the shapes {[list(v.shape) for v in feed.values()]}: "
                    f"{one_line(error)} Other samples may work (samples=, --samples); verify=False "
                    "(--no-verify) leaves the comparison out."
                ) from error
        return {
            **{name: np.asarray(value) for name, value in found.items()},
            **self._states_over_time(feed),
            **self._by_scores(feed, target, self._moving(moved)),
        }

    def _arguments(self, feed: Mapping[str, Array], target: Array | None) -> list[Any]:
        """Returns what the traced functions take: the inputs, then what a request says beside."""
        given = {**feed, TARGET_INPUT: target}
        asked = [tf.convert_to_tensor(given[name], s.dtype) for name, s in self._request.items()]
        return [*self._source.tensors(feed), *asked]

    def without_rounding(self, feed: Mapping[str, Array], target: Array | None) -> dict[str, Array]:
        """Returns outputs in float64; those of a float64 model as near to 0 as rounding lets be."""
        flat = self._arguments(feed, target)
        try:
            with unchanged(self._source.model):
                if self.computed_in == "float64":
                    known, rounding = run_as_traced(self._traced[0], *flat), self._rounding(*flat)
                    return {n: _least(np.asarray(known[n]), rounding[n]) for n in known}
                found = {n: np.asarray(v) for n, v in self._in_double(*flat).items()}
            if any(o.moves for group in self._asked.groups for o in group.outputs):
                found.update(self._by_scores(feed, target, self._moved_in_double))
        except Exception:  # a witness that cannot be heard proves nothing
            return {}
        return found

    def with_coarse_sigmoids(
        self, feed: Mapping[str, Array], target: Array | None
    ) -> dict[str, Array]:
        """Returns outputs with sigmoids that are exact to a rounding of 1; nothing without any."""
        try:
            if self._rounded_near_1 is None:
                return {}
            with unchanged(self._source.model):
                found = self._rounded_near_1(*self._arguments(feed, target))
        except Exception:  # a witness that cannot be heard proves nothing
            return {}
        return {n: np.asarray(v) for n, v in found.items()}

    @functools.cached_property
    def _rounded_near_1(self) -> Any:
        return with_coarse_sigmoids(self._traced[0])

    @functools.cached_property
    def _in_double(self) -> Any:
        return in_double(self._traced[0])

    @functools.cached_property
    def _rounding(self) -> Any:
        return rounding_in_double(self._traced[0])

    @functools.cached_property
    def _moved_in_double(self) -> Any:
        return self._moved.in_double()

    def _states_over_time(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the states that recurrent layers keep, by calling their cells step by step."""
        of_steps = [o for o in self.plan.plain if o.ref.is_over_steps]
        outputs = [o for o in self.plan.plain if o.probe.of_states]
        if not outputs and not of_steps:
            return {}
        with unchanged(self._source.model):
            by_path: dict[str, list[Any]] = {}
            for call in self._watched(feed):
                by_path.setdefault(call.path, []).append(call)
            found = {}
            for o in outputs:
                runs = self._runs(by_path, o.ref.key, o.ref.position)
                made = states_by_steps(runs, o.ref.operation, len(o.axes))
                found[o.spec.name] = made.astype(o.spec.dtype)
            for o in of_steps:
                over, number, of_step = self._place_over_steps(o.ref.key)
                runs = self._runs(by_path, (over.around.path, over.around.index), number)
                layer = over.call.layer
                made = outputs_by_steps(runs, layer, of_step, o.ref.position, len(o.axes))
                payload = o.probe.payload(NumpyOperations(), made, o.axes)
                found[o.spec.name] = np.asarray(payload).astype(o.spec.dtype)
        return found

    def _runs(self, by_path: Mapping[str, list[Any]], key: CallKey, number: int) -> list[Any]:
        """Returns the runs of a loop of the layer call that a plan knows.

        Args:
            by_path: the calls of each layer.
            key: the layer call.
            number: which of the loops in it.
        """
        path, index = key
        # Keras runs calls in an order of its own; they are numbered as they were written.
        calls = sorted(by_path[path], key=lambda call: call.index)
        # A layer around may make several calls of each that the plan knows: one a step.
        each = len(calls) // self._count_of_calls(path)
        loops = [c.recurrences[number] for c in calls[index * each : (index + 1) * each]]
        return [run for loop in loops for run in (loop, *loop.beside)]

    def _place_over_steps(self, key: CallKey) -> tuple[OverSteps, int, int]:
        """Returns a layer call over steps, which loop of the call around it is, and which in one.

        Args:
            key: the layer call.
        """
        calls = self._traced[1].watched.over_steps
        over = calls[key]
        loops = [loop.path for loop in over.around.recurrences]
        return over, loops.index(over.loop.path), over.number

    def _count_of_calls(self, path: str) -> int:
        named = [p for p in self.plan.manifest.points if p.partition("#")[0] == path]
        return max(len(named), 1)

    def _moving(self, noise: Noise | None) -> Any:
        """Returns what moves tensors and looks at the scores, under some noise."""
        if not any(o.moves for group in self._asked.groups for o in group.outputs):
            return None
        return self._moved.at if noise is None else self._moved_with_noise.under(noise)

    def _by_scores(self, feed: Mapping[str, Array], request: Any, run: Any) -> dict[str, Array]:
        """Returns what methods make of scores at changed inputs, by forward passes and numpy."""
        found: dict[str, Array] = {}
        groups = self._asked.groups
        if run is None:
            return found
        scores, tensors = run(feed, {})
        for place, group in enumerate(groups):
            if any(o.moves for o in group.outputs):
                of_seeds = functools.partial(self._of_seeds, feed, place, group, tensors, run)
                found.update(class_by_class(group, scores[place], request, feed, of_seeds))
        return found

    def _of_seeds(
        self,
        feed: Mapping[str, Array],
        place: int,
        group: GradientGroup,
        tensors: Mapping[TensorRef, Array],
        run: Any,
        seeds: Sequence[Array],
    ) -> list[dict[str, Array]]:
        """Returns the attributions by scores of each class."""
        names = self._source.input_names
        inputs = [s for s in self.plan.manifest.inputs if s.name in names]
        at = ScoresAt(scores_by_moving(run, place, tensors), feed, inputs)
        each: list[dict[str, Array]] = [{} for _ in seeds]
        for output in (o for o in group.outputs if o.moves):
            made = attribution_by_scores(output, tensors, at, seeds, feed.get(GROUPS_INPUT))
            for of_class, one in zip(each, made, strict=True):
                of_class[output.spec.name] = self._sized(output, one, feed)
        return each

    def _sized(self, output: GradientOutput, made: Array, feed: Mapping[str, Array]) -> Array:
        """Returns an attribution of one class in the sizes that it is to have."""
        sized = output.sized_by(feed, self._source.input_names)
        result = resized(NumpyOperations(), made.astype(np.float64), sized)
        return np.asarray(result).astype(output.spec.dtype)

    @functools.cached_property
    def _moved(self) -> KerasMovedScores:
        return KerasMovedScores(self._source, self._asked)

    @functools.cached_property
    def _moved_with_noise(self) -> KerasMovedScores:
        return KerasMovedScores(self._source, self._asked, self._coarser)

    def predictions_with(
        self, feed: Mapping[str, Array], weights: Mapping[str, Array]
    ) -> dict[str, Array] | None:
        """Returns what the model predicts with attention weights in the place of its own.

        None where some are not on the way to the prediction in the form in which they are given
        out: those of the steps of a loop, and those of layers that were registered.
        """
        names = tuple(sorted(weights))
        if names not in self._with_weights:
            self._with_weights[names] = self._traced_with(names)
        function = self._with_weights[names]
        if function is None:
            return None
        given = [tf.convert_to_tensor(weights[name]) for name in names]
        found = run_as_traced(function, *self._source.tensors(feed), *given)
        return {
            name: np.asarray(value)
            for name, value in zip(self._source.output_names, found, strict=True)
        }

    def _traced_with(self, names: Sequence[str]) -> Any:
        """Returns the model as a function of its inputs and of weights; None where it is none."""
        count = len(self._source.input_specs)
        outputs = {o.spec.name: o for o in self._asked.plain}
        taken = [outputs[name] for name in names]
        refs: list[TensorRef] = []
        for output in taken:
            own = self._traced[1].attention.weights[output.ref.key][output.ref.position]
            if own.ref is None or not in_one_order(own):
                return None
            refs.append(own.ref)

        def predicted(*flat: Any) -> list[Any]:
            stand_ins = {
                ref: functools.partial(_in_place, given)
                for ref, given in zip(refs, flat[count:], strict=True)
            }
            again = run_forward(self._source, self._asked, flat[:count], stand_ins)
            if set(again.inner) != set(refs):
                raise _NotInPlaceError
            return again.outputs

        specs = [tf.TensorSpec([None] * len(o.axes), o.spec.dtype) for o in taken]
        try:
            return trace_once(predicted, [*self._source.input_specs, *specs])
        except _NotInPlaceError:
            return None

    @functools.cached_property
    def _with_weights(self) -> dict[tuple[str, ...], Any]:
        return {}

    def moved_scores(self) -> KerasMovedScores | None:
        """Returns what moves tensors and looks at the scores; None where it cannot be traced."""
        try:
            return self._moved
        except Exception:  # a witness that cannot be called proves nothing
            return None

    def computed_near(self, name: str) -> float:
        """Returns the size of the numbers that an output's last function computes with.

        1 for a sigmoid, however small the probability; 0 where there is no such function.
        """
        made = self._traced[0].structured_outputs.get(name)  # none of what is made of scores
        return 0.0 if made is None else _computed_near(made, 24)

    def _predict(self, flat: Sequence[Any]) -> dict[str, Array]:
        try:
            nest = self._source.call_untouched(flat)
        except tf.errors.OpError:  # channels first on a processor, say
            nest = self._source.call(flat)
        outputs = keras.tree.flatten(nest)
        return {
            name: np.asarray(keras.ops.convert_to_numpy(value))
            for name, value in zip(self._source.output_names, outputs, strict=True)
        }

    # -- where the model can run -----------------------------------------------------------

    def cause_of(self, error: Exception) -> str:
        """Returns on one line what an exception of the model says.

        Raises:
            SourceError: TensorFlow cannot run the model on any input as it was started.
        """
        said = one_line(error)
        if _HOLES_WITHOUT_ONEDNN in said:
            raise SourceError(
                "TensorFlow cannot run this model on a CPU without oneDNN: it has a transposed "
                "convolution with holes (dilation_rate above 1). Set the environment variable "
                "TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported, or use dilation_rate=1."
            ) from error
        return said

    def cause_of_failure(self, feed: Mapping[str, Array]) -> str | None:
        """Says why the source model cannot run on inputs, None where it can.

        A tensor without elements counts: lengths of zero are for no runtime. So does a window
        that is larger than its input: TensorFlow's CPU kernels then answer with whatever lies in
        memory.

        Raises:
            SourceError: see `cause_of`.
        """
        try:
            calls = self._watched(feed)
        except Exception as error:
            return self.cause_of(error)
        for call in calls:
            for value in call.outputs:
                if tf.is_tensor(value) and 0 in tuple(value.shape):
                    return f"layer {call.path!r} gives the empty shape {tuple(value.shape)}."
            if not _window_fits(call):
                shape = tuple(call.inputs[0].shape)
                return f"the input of layer {call.path!r}, {shape}, is smaller than its window."
        return None

    def _watched(self, feed: Mapping[str, Array]) -> list[Any]:
        watcher = Watcher(self._source.model)
        with unchanged(self._source.model), watching(watcher):
            self._source.call(self._source.tensors(feed))
        return watcher.calls

    def remark(self, feed: Mapping[str, Array]) -> str:
        """Returns how far a model that is asked to compute in float32 is from itself."""
        changes = current()
        if changes is None:
            return ""
        flat = self._source.tensors(feed)
        with unchanged(self._source.model):
            now = self._predict(flat)
            with changes.undone():
                own = self._predict(flat)
        furthest = max(own, key=lambda name: _apart(now[name], own[name]))
        return (
            f"the model computes by {' and '.join(changes.policies)}, and here in {FINE}: its "
            f"predictions {furthest!r} are {_apart(now[furthest], own[furthest]):.1e} apart, as a "
            "part of the largest, on the first samples."
        )

    def where_not_finite(self, feed: Mapping[str, Array]) -> str:
        """Says in sentences where the first value arises that is not finite."""
        for variable in _variables(self._source.model):
            value = np.asarray(keras.ops.convert_to_numpy(variable))
            if value.dtype.kind in "fV":
                bad = int((~np.isfinite(value.astype(np.float64))).sum())
                if bad:
                    return (
                        f"Its weight {getattr(variable, 'path', variable.name)!r} holds {bad} "
                        f"values of {value.size} that are NaN or infinite: load or train it again."
                    )
        try:
            calls = self._watched(feed)
        except Exception as error:
            return f"A run of it to find out where ends in: {one_line(error)}"
        made = [c for c in calls if _bad(c.outputs) and not _bad(c.inputs)]
        inner = [c for c in made if not any(d.path.startswith(f"{c.path}/") for d in made)]
        if inner:
            return f"They first arise in layer {inner[0].path!r}. Its inputs are finite."
        met = next((c for c in calls if _bad(c.inputs)), None)
        if met is not None:
            return f"They first arise in an operation before layer {met.path!r}."
        return "They arise in the gradient, or in an operation behind the last layer."


class _NotInPlaceError(Exception):
    """Weights are not on the way to the prediction in the form in which they are given out."""


def _in_place(given: Any, before: Any) -> Any:
    return tf.cast(tf.reshape(given, tf.shape(before)), before.dtype)


def _window_fits(call: Any) -> bool:
    """Tells whether a convolution or pooling has an input at least as large as its window."""
    family = type(call.layer).__module__.split(".")
    if not {"convolutional", "pooling"} & set(family) or len(call.inputs) != 1:
        return True
    try:
        sizes = call.layer.compute_output_shape(tuple(call.inputs[0].shape))
    except (ValueError, TypeError):
        return False
    return all(n is None or n > 0 for n in keras.tree.flatten(sizes))


def _bad(tensors: Sequence[Any]) -> bool:
    return any(
        tf.is_tensor(t)
        and t.dtype.is_floating
        and not bool(tf.reduce_all(tf.math.is_finite(tf.cast(t, tf.float64))))
        for t in tensors
    )


def _variables(model: Any) -> list[Any]:
    return [*model.variables, *(variable for variable, _ in states_of(model))]


# -- graphs ------------------------------------------------------------------------------------


def _narrows(op: Any) -> bool:
    """Tells whether what was in 64 bits goes on in 32: TensorFlow blends images in these alone."""
    if op.type not in ("Cast", *BLENDING):
        return False
    return bool(op.inputs[0].dtype == tf.float64 and op.outputs[0].dtype == tf.float32)


def _truncates(op: Any) -> bool:
    """Tells whether floating numbers are cut to whole ones, to look something up, say."""
    return bool(
        op.type == "Cast" and op.inputs[0].dtype.is_floating and op.outputs[0].dtype.is_integer
    )


def _sizes(graph: Any) -> frozenset[int]:
    """Returns the sizes of all floating tensors of a graph and of all its inputs."""
    found: set[int] = set()
    for op in graph.get_operations():
        for tensor in op.outputs:
            if tensor.shape.rank and (tensor.dtype.is_floating or op.type == "Placeholder"):
                found.update(n for n in tensor.shape if n is not None)
    return frozenset(found)


def _computed_near(tensor: Any, depth: int) -> float:
    """Returns what `Reference.computed_near` does, at most `depth` operations back.

    What only moves or adds such values hands their rounding on, as 1 - x does.
    """
    op = tensor.op
    inputs = [t for t in op.inputs if t.dtype.is_floating]
    size = 0.0
    if op.type in _NEAR_ONE:
        size = 1.0
    elif depth == 0:
        pass
    elif op.type in _HANDS_ON:
        size = max((_computed_near(t, depth - 1) for t in inputs), default=0.0)
    elif op.type in _ARITHMETIC and len(inputs) == 2:
        constants = [tf.get_static_value(t) for t in inputs]
        known = [float(np.abs(c).max(initial=0.0)) for c in constants if c is not None]
        unknown = [t for t, c in zip(inputs, constants, strict=True) if c is None]
        sizes = [_computed_near(t, depth - 1) for t in unknown]
        if op.type in _SUMS:
            roundings = max((_TO_ONE.get(t.op.type, 1.0) for t in unknown), default=1.0)
            size = max([roundings * max(known, default=0.0), *sizes])
        elif op.type == "Mul":
            size = float(np.prod([*known, *sizes]))
        elif constants[0] is None and known and known[0]:
            size = sizes[0] / known[0]
    return size


def _least(values: Array, rounding: Array) -> Array:
    """Returns numbers as near to 0 as their rounding lets them be; all but floating ones as is."""
    if values.dtype.kind != "f":
        return values
    least: Array = np.sign(values) * np.maximum(np.abs(values) - _MOST_ROUNDED * rounding, 0)
    return least


def _apart(one: Array, other: Array) -> float:
    """Returns how far two arrays are from each other at most, as a part of the largest number."""
    one, other = (np.asarray(a, dtype=np.float64) for a in (one, other))
    return float(np.abs(one - other).max(initial=0.0) / (np.abs(other).max(initial=0.0) or 1.0))


def coarsest_dtype(model: Any) -> str:
    """Returns the coarsest element type that a model's layers compute in."""
    used = {layer.compute_dtype for layer in model._flatten_layers()}
    known = [dtype for dtype in PRECISIONS if dtype in used]
    return known[-1] if known else "float64"
