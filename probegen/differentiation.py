"""The gradient of a model as a graph of its own: `differentiate`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from probegen._version import __version__
from probegen.artefact import integrity
from probegen.artefact.manifest import OutputSpec, TargetSpec
from probegen.artefact.publishing import (
    aside,
    check_companions,
    check_not_source,
    check_place,
    put,
)
from probegen.artefact.work_folder import follow
from probegen.errors import ExportError, InstrumentError, VerificationError, nearest
from probegen.graph.assemble import DEFAULT_OPSET
from probegen.graph.differentiate import COTANGENT, GRADIENT, differentiated
from probegen.graph.running import session_options
from probegen.graph.writing import write_model
from probegen.methods.input_gradient import InputGradient
from probegen.parity import trials
from probegen.parity.comparison import TOLERANCES
from probegen.parity.differences import STEPS
from probegen.parity.rows import RowsReference
from probegen.parity.slopes import Slopes
from probegen.parity.verdicts import CONFIRMED, OPEN, REFUTED, verdict
from probegen.plan.making import make_plan
from probegen.plan.model_view import ModelView
from probegen.plan.plan import GradientGroup, GradientOutput, Plan, TargetPlan, TensorRef
from probegen.runtime.engines.onnxruntime_faults import disabled_optimizers
from probegen.runtime.inputs import check_inputs
from probegen.sources import open_source
from probegen.sources.base import MovedScores, Source
from probegen.stages import stage, writing

Array = npt.NDArray[Any]

#: Key of what a file says of itself in ONNX' metadata.
METADATA_KEY = "probegen.differentiation"
#: What `of` says for the scores before a last softmax or sigmoid.
LOGITS = "logits"


@dataclasses.dataclass(frozen=True)
class Differentiated:
    """A written vector-Jacobian product.

    Attributes:
        path: where it lies.
        cotangents: input name -> shape, one for each of `of`.
        gradients: output name -> shape, one for each of `wrt`.
        verified: output name -> what differences of the model's outputs say of it:
            `"confirmed"`, or `"open"` where they lie below rounding or on kinks. Empty where it
            was not verified.
    """

    path: Path
    cotangents: Mapping[str, tuple[int | str | None, ...]]
    gradients: Mapping[str, tuple[int | str | None, ...]]
    verified: Mapping[str, str]


def differentiate(
    source: Any,
    path: str | os.PathLike[str],
    of: str | Sequence[str] = LOGITS,
    wrt: str | Sequence[str] = "input",
    *,
    inputs: Any = None,
    opset: int = DEFAULT_OPSET,
    external_data: bool | None = None,
    overwrite: bool = False,
    verify: bool = True,
    samples: Any = None,
) -> Differentiated:
    """Writes the vector-Jacobian product of a model as an ONNX file.

    The file takes the model's inputs and, for each of `of`, one more, `cotangent/<output>`, of
    that output's shape. It gives the model's outputs and, for each name in `wrt`,
    `gradient/<name>` of that tensor's shape: the sum over `of` of the cotangent times the
    Jacobian (reverse mode). A cotangent of ones gives the gradient of the sum of an output; one
    row of the identity gives a row of the Jacobian.

    Args:
        source: an ONNX file (a path, bytes or a model) or a Keras model or its path.
        path: where the file goes, ending in `.onnx`.
        of: names of outputs; or `"logits"` for the scores before the last softmax or sigmoid of
            the only output (the output itself where it has none).
        wrt: names of inputs, or `"input"` for all floating ones; layers or nodes by path; in an
            ONNX model also tensors and weights by their names.
        inputs: as for `compile`.
        opset: the operator set; that of an ONNX source where it is newer.
        external_data: as for `compile`.
        overwrite: replace a data file that belongs to something else.
        verify: compare the outputs with the model's, and the gradients with differences of them
            along several directions, before the file appears.
        samples: inputs to verify on; generated where left out.

    Raises:
        SourceError: it is no model.
        OutputExistsError: the file would replace the model itself, or a data file of something
            else where `overwrite` is not given.
        InstrumentError: `of` or `wrt` name nothing.
        NotDifferentiableError: no gradient flows.
        UnsupportedOpsError: an operator on the way has no gradient; lists each.
        VerificationError: what was written does not agree with the model.
    """
    final = follow(Path(path))
    if final.suffix.lower() != ".onnx":
        raise ExportError(f"a gradient is written as ONNX; {final.name!r} does not end in .onnx.")
    check_not_source(source, path)
    check_place(final, "onnx", overwrite)
    with stage("the model cannot be differentiated", InstrumentError):
        opened = open_source(source, inputs)
        ends = _ends(opened.view, [of] if isinstance(of, str) else list(of))
        tensors = _tensors(opened.view, [wrt] if isinstance(wrt, str) else list(wrt))
        plan = _plan(opened.view, ends, tensors)
    with aside(final) as place:
        with stage("the gradient cannot be written", ExportError), writing(final):
            forward = opened.forward_graph(plan, opset, opened.batch)
            model = differentiated(plan, forward, list(ends), tensors)
            model.producer_name, model.producer_version = "probegen", __version__
            taken = {v.name: v for v in model.graph.inputs}
            cotangents = {
                name: _sizes(taken[name]) for name in (f"{COTANGENT}/{end}" for end in ends)
            }
            made = {v.name: v for v in model.graph.outputs}
            gradients = {
                name: _sizes(made[name]) for name in (f"{GRADIENT}/{tensor}" for tensor in tensors)
            }
            write_model(model, place, external_data)
        check_companions(place, final, overwrite)
        said: dict[str, str] = {}
        if verify:
            said = _verified(place, opened, plan, list(ends), tensors, samples)
        with writing(final):
            about = {"of": list(ends), "wrt": list(tensors), "verified": said}
            model.metadata_props[METADATA_KEY] = json.dumps(about)
            ir.save(model, place)  # external data, if any, stay as they are
            integrity.seal(place)
            put(place, final)
    verified = {f"{GRADIENT}/{name}": told for name, told in said.items()}
    return Differentiated(Path(path), cotangents, gradients, verified)


def _sizes(value: ir.Value) -> tuple[int | str | None, ...]:
    shape = value.shape or ()
    return tuple(d if isinstance(d, int) else d.value for d in shape)


# -- what is differentiated by what ------------------------------------------------------------


def _ends(view: ModelView, names: Sequence[str]) -> dict[str, TargetPlan]:
    """Returns what is differentiated, by the name that its cotangent has.

    Raises:
        InstrumentError: there is no such output, or it holds no floating numbers.
    """
    found = {}
    outputs = list(view.output_names)
    for name in dict.fromkeys(names):
        logits = name == LOGITS and name not in outputs
        if logits and len(outputs) > 1:
            raise InstrumentError(
                f"the model has several outputs {outputs}; say which of them, of={outputs[0]!r}."
            )
        if not logits and name not in outputs:
            raise InstrumentError(
                f"the model has no output {name!r}; of= takes some of {outputs}."
                f"{nearest(name, outputs)}"
            )
        position = 0 if logits else outputs.index(name)
        if not view.output(position).is_float:
            raise InstrumentError(
                f"output {outputs[position]!r} is {view.output(position).dtype}: there is nothing "
                f"to differentiate. {view.made_by(position)}"
            )
        scores = logits and view.has_scores(position)
        spec = TargetSpec("callable", output=outputs[position], logits=scores, name=name)
        found[name] = TargetPlan(spec, position)
    return found


def _tensors(view: ModelView, names: Sequence[str]) -> dict[str, TensorRef]:
    """Returns what is differentiated by, by the name that its gradient has.

    Raises:
        InstrumentError: a name means nothing, or nothing that is floating.
    """
    found: dict[str, TensorRef] = {}
    inputs = list(view.input_names)
    for name in names:
        if name == "input" and name not in inputs:
            floats = [i for i in range(len(inputs)) if view.input(i).is_float]
            found.update({inputs[i]: TensorRef(None, position=i) for i in floats})
            if not floats:
                raise InstrumentError(
                    "no input holds floating numbers; give wrt= a layer, or a tensor by its name."
                )
            continue
        if name in inputs:
            found[name] = TensorRef(None, position=inputs.index(name))
            continue
        named = view.named_tensor(name)
        if named is not None:
            found[name] = named
            continue
        for point in view.select(name, "gradient"):
            found[point.name] = TensorRef(point.path, point.call_index)
    for name, ref in found.items():
        if not view.tensor(ref).is_float:
            raise InstrumentError(
                f"{name!r} is {view.tensor(ref).dtype}, by which nothing can be differentiated; "
                "give wrt= the tensor that its embedding or cast makes of it."
            )
    return found


def _plan(
    view: ModelView, ends: Mapping[str, TargetPlan], tensors: Mapping[str, TensorRef]
) -> Plan:
    """Returns a plan with a group for each end; the first is said to be by all tensors."""
    probe = InputGradient()
    outputs = []
    for name, ref in tensors.items():
        facts = view.tensor(ref)
        described = probe.described(facts.axes)
        spec = OutputSpec(
            f"{GRADIENT}/{name}",
            described.pop("kind"),
            facts.dtype,
            facts.shape,
            facts.axes,
            **described,
        )
        outputs.append(GradientOutput(spec, ref, probe, facts.axes))
    first, *others = ends.values()
    groups = [GradientGroup(first, tuple(outputs)), *(GradientGroup(end, ()) for end in others)]
    return dataclasses.replace(make_plan(view, []), groups=tuple(groups))


# -- verification ------------------------------------------------------------------------------


def _verified(
    place: Path,
    source: Source,
    plan: Plan,
    ends: Sequence[str],
    tensors: Mapping[str, TensorRef],
    samples: Any,
) -> dict[str, str]:
    """Returns what differences say of each gradient.

    Raises:
        VerificationError: they refute one, or outputs differ from the model's.
    """
    rng = np.random.default_rng(0)
    plain = dataclasses.replace(plan, groups=())
    reference = RowsReference(source.reference(plain))
    described = plan.manifest
    if samples is None:
        tried = trials.generated(described, reference, source.name, rng)[0][-2:]
    else:
        feed = check_inputs(samples, described.inputs)
        tried = trials.given(feed, described, reference, source.name)
    moved = source.moved_scores(plan)
    session = onnxruntime.InferenceSession(
        str(place),
        session_options(),
        providers=["CPUExecutionProvider"],
        disabled_optimizers=disabled_optimizers(place),
    )
    said: dict[str, list[str]] = {name: [] for name in tensors}
    for batch, predictions in tried:
        scores, values = moved.at(batch.feed, {})
        axes = [plan.manifest.output(str(g.target.spec.output)).axes for g in plan.groups]
        cotangents = [_drawn(s, a, batch.hard, rng) for s, a in zip(scores, axes, strict=True)]
        fed = {f"{COTANGENT}/{end}": c for end, c in zip(ends, cotangents, strict=True)}
        names = [o.name for o in session.get_outputs()]
        got = dict(zip(names, session.run(None, {**batch.feed, **fed}), strict=True))
        own = reference.arranged({n: got[n] for n in predictions}, batch.size)
        _check_outputs(own, predictions, source.name)
        for name, ref in tensors.items():
            gradient = got[f"{GRADIENT}/{name}"]
            claims = _Claims(moved, batch.feed, ref, values[ref], scores, cotangents)
            said[name].append(claims.judged(gradient.astype(np.float64), rng))
    wrong = [name for name, verdicts in said.items() if REFUTED in verdicts]
    if wrong:
        raise VerificationError(
            f"differences of the outputs of {source.name!r} refute the gradient by "
            f"{', '.join(map(repr, wrong))}; nothing was written. This is a fault of probegen "
            "unless the model jumps between neighbouring inputs: verify=False writes it."
        )
    return {n: CONFIRMED if CONFIRMED in verdicts else OPEN for n, verdicts in said.items()}


def _drawn(
    scores: Array, axes: Sequence[str], hard: Sequence[bool], rng: np.random.Generator
) -> Array:
    """Returns a random cotangent that is 0 in hard samples, where scores have kinks."""
    drawn = rng.standard_normal(scores.shape)
    if "batch" in axes and not all(hard):
        rows = np.moveaxis(drawn, axes.index("batch"), 0)
        rows[np.asarray(hard)] = 0.0
    return drawn.astype(scores.dtype)


def _check_outputs(got: Mapping[str, Array], expected: Mapping[str, Array], model: str) -> None:
    """Refuses outputs that are not the model's own.

    Raises:
        VerificationError: one differs.
    """
    for name, right in expected.items():
        if right.dtype.kind not in "fc":
            same = bool(np.array_equal(got[name], right))
        else:
            limit = TOLERANCES.get(right.dtype.name, 1e-4)
            finite = np.isfinite(right)
            size = float(np.abs(right[finite]).max(initial=0.0))
            off = float(np.abs(got[name][finite] - right[finite]).max(initial=0.0))
            same = off <= limit * max(size, 1e-30)
        if not same:
            raise VerificationError(f"output {name!r} differs from that of {model!r}.")


@dataclasses.dataclass(frozen=True)
class _Claims:
    """The weighted sum of a model's scores, of which a gradient claims how it moves.

    Attributes:
        moved: the untouched model.
        feed: the inputs.
        ref: the tensor that is moved.
        value: the tensor as it is.
        scores: the scores there.
        cotangents: what they are weighed with.
    """

    moved: MovedScores
    feed: Mapping[str, Array]
    ref: TensorRef
    value: Array
    scores: Sequence[Array]
    cotangents: Sequence[Array]

    def judged(self, gradient: Array, rng: np.random.Generator) -> str:
        """Returns what slopes along several directions say: one that refutes decides."""
        start = self._sum(self.scores)
        terms = zip(self.scores, self.cotangents, strict=True)
        size = sum(float(np.abs(s.astype(np.float64) * c).sum()) for s, c in terms)
        noise = np.array([8 * float(np.finfo(self.scores[0].dtype).eps) * size])
        mask = rng.random(gradient.shape) < 0.5
        found = []
        for along in (gradient, gradient * mask, rng.standard_normal(gradient.shape)):
            length = float(np.linalg.norm(along))
            if length == 0 or not np.isfinite(length):
                continue
            direction = along / length
            slopes = [self._slopes(start, direction, step, noise) for step in STEPS]
            found.append(verdict(float((gradient * direction).sum()), slopes, 0))
        return next((v for v in (REFUTED, CONFIRMED) if v in found), OPEN)

    def _slopes(self, start: float, direction: Array, step: float, noise: Array) -> Slopes:
        size = float(np.linalg.norm(self.value.astype(np.float64))) or np.sqrt(self.value.size)
        ahead, behind = (self._at(sign * step * size * direction) for sign in (1.0, -1.0))
        return Slopes(
            np.array([(ahead - start) / (step * size)]),
            np.array([(start - behind) / (step * size)]),
            noise / (step * size),
        )

    def _at(self, shift: Array) -> float:
        return self._sum(self.moved.at(self.feed, {self.ref: shift})[0])

    def _sum(self, scores: Sequence[Array]) -> float:
        pairs = zip(scores, self.cotangents, strict=True)
        return float(sum((s.astype(np.float64) * c).sum() for s, c in pairs))
