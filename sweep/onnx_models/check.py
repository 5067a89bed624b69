"""Compiles one ONNX file with probes, and compares it with the file and with its maker."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import probegen as pg
from probegen import runtime
from probegen.artefact.manifest import GATE_INPUT, NEVER_NEGATIVE
from probegen.errors import InputError, ProbegenError, VerificationError
from probegen.parity.report import DIFFERENCES, SOURCE_MODEL
from probegen.sources import open_source
from sweep.nodes import count_nodes
from sweep.onnx_models.case import MODEL, About, Array, Run, load_runs
from sweep.onnx_models.compare import (
    STEPS_DOUBLE,
    directional,
    entry,
    relative_l2,
    relative_largest,
)
from sweep.onnx_models.outcome import (
    AGREES,
    DIFFERS,
    FAILS,
    NOT_APPLICABLE,
    REFUSED,
    Outcome,
    line,
)
from sweep.onnx_models.precise import Precise

#: What a gradient may be away from torch's float64 one, or from differences of the file; more
#: where torch's own float32 gradient is away from it: so many times as far.
_LIMIT, _TIMES_OWN, _LIMIT_DIFFERENCES = 2e-3, 10.0, 2e-2
#: What a prediction may be away from the original file's in the same runtime.
_PREDICTIONS = 1e-4
#: What one call of the evaluator in float64 may take.
_MOST_SECONDS = 6.0


def check(name: str, folder: Path) -> Outcome:
    """Compiles and compares the file in a folder; whatever happens becomes an outcome."""
    about = About.load(folder)
    start = time.perf_counter()
    try:
        outcome = _compile(name, about, folder)
    except VerificationError as error:
        outcome = Outcome(name, DIFFERS, line(error))
    except ProbegenError as error:
        fault = _fault_of_file(folder / MODEL)
        known = Outcome(name, NOT_APPLICABLE, line(fault)) if fault else None
        outcome = known or Outcome(name, REFUSED, line(error))
    except Exception as error:
        outcome = Outcome(name, FAILS, line(f"{type(error).__name__}: {error}"))
    seconds = round(time.perf_counter() - start, 2)
    return dataclasses.replace(outcome, tool=about.tool, seconds=seconds)


def _fault_of_file(path: Path) -> str | None:
    """Returns why onnxruntime itself cannot open a file, None where it can."""
    try:
        _session(path)
    except Exception as error:
        return f"onnxruntime cannot open the file: {error}"
    return None


def _compile(name: str, about: About, folder: Path) -> Outcome:
    source = folder / MODEL
    pg.inspect(str(source))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "explained.onnx"
        runs = [r for r in load_runs(folder) if _runs_on(source, r)]
        if not runs:
            return Outcome(
                name, NOT_APPLICABLE, "onnxruntime cannot run the file on its own samples"
            )
        notes = _artefact(source, about, path, runs)
        plain, explained = count_nodes(path)
        art = runtime.load(path)
        sample = asked_target(source, about)[1]
        figures = [_Figures.of(art, run, about, source, path, sample) for run in runs]
    gradient = max(f.gradient for f in figures)
    predictions = max(f.predictions for f in figures)
    own = max((f.own for f in figures if f.own is not None), default=None)
    against = figures[0].against
    limit = about.limit or max(_LIMIT, _TIMES_OWN * (own or 0))
    if against == _DIFFERENCES:
        limit = _LIMIT_DIFFERENCES
    notes += [note for f in figures for note in f.notes]
    wrong = [note for f in figures for note in f.wrong]
    if gradient > limit:
        wrong.append(f"the gradient is {gradient:.1e} away from {against}")
    if predictions > _PREDICTIONS:
        wrong.append(f"a prediction is {predictions:.1e} away from the original file's")
    return Outcome(
        name,
        DIFFERS if wrong else AGREES,
        line("; ".join(dict.fromkeys(wrong or notes))),
        against=against,
        gradient=gradient,
        own=own,
        predictions=predictions,
        witnessed=witnessed(art.manifest.certificate),
        plain=plain,
        explained=explained,
    )


def witnessed(certificate: Mapping[str, Any] | None) -> tuple[int, int]:
    """Returns how many gradients differences of the file's scores confirmed, and of how many."""
    outputs = (certificate or {}).get("outputs", {}).values()
    told = [str(figures["witness"]) for figures in outputs]
    told = [witness for witness in told if witness != SOURCE_MODEL]
    return sum(DIFFERENCES in witness for witness in told), len(told)


def _artefact(source: Path, about: About, path: Path, runs: Sequence[Run]) -> list[str]:
    """Compiles with all probes, or without those that are refused; says which these are."""
    gradient, others = probes(about, asked_target(source, about)[0])
    samples: dict[str, Array] | None = None
    notes = []

    def compiled(asked: Sequence[Any]) -> None:
        pg.compile(
            str(source),
            asked,
            str(path),
            overwrite=True,
            dynamic_batch=not about.fixed,
            samples=samples,
        )

    try:
        compiled([gradient, *others])
    except InputError:
        # A file that runs at the sizes alone that it was traced at: verified on its own inputs.
        samples = _fed(source, runs[0])
        notes.append("verified on its own samples")
    except ProbegenError:
        pass
    else:
        return notes
    # A refusal of the gradient itself is the outcome.
    compiled([gradient])
    kept = [gradient]
    for probe in others:
        try:
            compiled([*kept, probe])
            kept.append(probe)
        except ProbegenError as error:
            notes.append(f"without {type(probe).__name__}: {error}")
    if len(kept) <= len(others):  # what was compiled last is not what is kept
        compiled(kept)
    return notes


def _runs_on(source: Path, run: Run) -> bool:
    """Tells whether the file itself runs: some do at the sizes alone that they were traced at."""
    try:
        _session(source).run(None, _fed(source, run))
    except Exception:
        return False
    return True


def _fed(source: Path, run: Run) -> dict[str, Array]:
    names = [i.name for i in _session(source).get_inputs()]
    return {name: array for name, array in run.inputs.items() if name in names}


def asked_target(source: Path, about: About) -> tuple[Any, int | None]:
    """Returns the target in the form that probes take, and the sample that it means.

    A target of a case without `batched` is an index of the whole output. Where that has a batch
    axis, probes take an index of the others, for every sample.
    """
    if about.batched or not isinstance(about.target, tuple):
        return about.target, None
    view = open_source(str(source)).view
    position = view.output_names.index(about.output) if about.output else 0
    axes = view.output(position).axes
    if "batch" not in axes:
        return about.target or "argmax", None
    at = axes.index("batch")
    return tuple(t for i, t in enumerate(about.target) if i != at) or "argmax", about.target[at]


def probes(about: About, target: Any) -> tuple[Any, list[Any]]:
    """Returns the input gradient of the target, and the other probes of a case.

    The scalar is the output's entry itself, as the reference has it: no pre-activation.
    """
    asked: dict[str, Any] = {"target": target, "output": about.output, "logits": False}
    wrt = list(about.wrt) if len(about.wrt) > 1 else about.wrt[0]
    made: Mapping[str, Callable[[], Any]] = {
        "Saliency": lambda: pg.Saliency(wrt=about.wrt[0], **asked),
        "GradCAM": lambda: pg.GradCAM(**asked),
        "Attention": pg.Attention,
    }
    return pg.InputGradient(wrt=wrt, **asked), [made[p]() for p in about.probes]


_AUTOGRAD = "torch's autograd"
_DIFFERENCES = "directional differences"


@dataclasses.dataclass(frozen=True)
class _Figures:
    """What one run of an artefact gave, compared."""

    predictions: float
    gradient: float
    own: float | None
    against: str
    wrong: Sequence[str]
    notes: Sequence[str]

    @classmethod
    def of(
        cls,
        art: Any,
        run: Run,
        about: About,
        source: Path,
        path: Path,
        sample: int | None = None,
    ) -> _Figures:
        original = _session(source)
        names = [i.name for i in original.get_inputs()]
        given = {name: array for name, array in run.inputs.items() if name in names}
        outputs = [o.name for o in original.get_outputs()]
        expected = dict(zip(outputs, original.run(None, given), strict=True))
        found = art.run(given)
        kinds = {o.name: o.kind for o in art.manifest.outputs}
        arrays = {name: np.asarray(found[name].array) for name in kinds}
        predictions = max(
            (
                relative_largest(arrays[name], value)
                for name, value in expected.items()
                if name in arrays and value.dtype.kind == "f"
            ),
            default=0.0,
        )
        explained = outputs.index(about.output) if about.output else 0

        def score(inputs: Mapping[str, Array]) -> float:
            kept = {name: array for name, array in inputs.items() if name in names}
            return entry(original.run(None, kept)[explained], about.target, about.batched)

        gradients = {n: a for n, a in arrays.items() if kinds[n] == "input_gradient"}
        distance, own = 0.0, None
        against, notes = _AUTOGRAD if run.gradients else _DIFFERENCES, []
        for name in about.wrt:
            array = _of_input(gradients, name, run)
            if sample is not None:
                array = _of_sample(array, _axes_of(art, name), sample)
            if run.gradients:
                wide = run.gradients.get("gradient64", run.gradients["gradient32"])[name]
                apart = relative_l2(array, wide)
                if apart > (about.limit or _LIMIT):
                    apart = min(apart, _artefact_in_double(path, given, name, wide))
                distance = max(distance, apart)
                single = relative_l2(run.gradients["gradient32"][name], wide)
                own = max(own or 0.0, single)
            elif run.inputs[name].dtype.kind == "f":
                apart = directional(score, given, name, array)
                if apart > _LIMIT_DIFFERENCES:
                    apart = _in_double(source, about, given, name, array, apart)
                distance = max(distance, apart)
            else:
                notes.append(f"{name!r} holds integers: its gradient is compared with nothing")
        wrong = list(_wrong_in(art, arrays))
        return cls(predictions, distance, own, against, wrong, notes)


def _axes_of(art: Any, name: str) -> tuple[str, ...]:
    """Returns the axes of an input."""
    return next(tuple(i.axes) for i in art.manifest.inputs if i.name == name)


def _of_sample(array: Array, axes: Sequence[str], sample: int) -> Array:
    """Returns the gradient of one sample's score: 0 in all others."""
    if "batch" not in axes or len(axes) != array.ndim:
        return array
    at = axes.index("batch")
    own = [i == sample for i in range(array.shape[at])]
    shape = [-1 if i == at else 1 for i in range(array.ndim)]
    return np.asarray(array * np.reshape(own, shape))


def _in_double(
    source: Path, about: About, given: Mapping[str, Array], name: str, array: Array, apart: float
) -> float:
    """Returns the distance from differences in float64, where they take no minutes.

    Those in float32 drown in rounding where an output moves little: a saturated sigmoid.
    """
    try:
        precise = Precise(source)
        output = about.output or precise.names[0]

        def score(inputs: Mapping[str, Array]) -> float:
            return entry(precise.run(inputs)[output], about.target, about.batched)

        start = time.perf_counter()
        score(given)
        if time.perf_counter() - start > _MOST_SECONDS:
            return apart
        return min(apart, directional(score, given, name, array, STEPS_DOUBLE))
    except Exception:  # an operator that onnx's evaluator lacks
        return apart


def _artefact_in_double(path: Path, given: Mapping[str, Array], name: str, wide: Array) -> float:
    """Returns how far the artefact's gradient is from torch's where both compute in float64.

    In float32 two correct engines differ where rounding tips a rectifier or a pooling window.
    """
    try:
        precise = Precise(path)
        fed = {**given, GATE_INPUT: np.array(True)}
        outputs = precise.run({n: a for n, a in fed.items() if n in precise.inputs})
        return relative_l2(outputs[f"input_gradient/{name}"], wide)
    except Exception:  # an operator that onnx's evaluator lacks, or a gradient by another name
        return float("inf")


def _of_input(gradients: Mapping[str, Array], name: str, run: Run) -> Array:
    """Returns the gradient of an input; of an integer one, that of what it looks up."""
    for known, array in gradients.items():
        if known == f"input_gradient/{name}":
            return array
    shapes = {part[name].shape for part in run.gradients.values() if name in part}
    fitting = (
        [a for a in gradients.values() if a.shape in shapes] if shapes else [*gradients.values()]
    )
    if not fitting:
        raise ValueError(f"the artefact has no gradient of {name!r}: {', '.join(gradients)}")
    return fitting[0]


def _wrong_in(art: Any, arrays: Mapping[str, Array]) -> Iterator[str]:
    """Yields what contradicts the meaning of an output: maps below 0, weights that sum to no 1."""
    for output in art.manifest.outputs:
        array = arrays[output.name]
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            yield f"{output.name} holds entries that are no numbers"
        elif output.sign == NEVER_NEGATIVE and array.size and array.min() < 0:
            yield f"{output.name} is negative somewhere"
        elif output.kind == "attention" and array.size:
            sums = array.astype(np.float64).sum(list(output.axes).index("key"))
            # Rows in which everything is masked hold 0.
            if np.minimum(np.abs(sums - 1), np.abs(sums)).max() > 1e-3 or sums.max() < 0.5:
                yield f"{output.name} does not add up to 1 along the keys"


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    if any(node.op_type == "QuantizeLinear" for node in nodes):
        # As it is written: kernels of whole numbers round another way.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
