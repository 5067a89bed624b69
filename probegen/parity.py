"""Artefact against source model: a parity certificate.

Predictions are compared with the source model itself, everything else with TensorFlow's
gradients on it. Predictions, activations and attention have to agree in every element.

Gradients need more thought. Two correct engines round differently, and where that tips a ReLU or
a pooling gate the other way, a patch of the gradient moves; behind a dense layer all of it moves
a little. So gradients are judged by the relative Euclidean distance, tightly at first. Where that
fails, the reference is evaluated once more on inputs that differ by rounding noise: what the
source model's own gradient moves by then is what no artefact can be held to. Direction has to
agree in every sample whatever the noise.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen import runtime
from probegen.errors import InputError, VerificationError
from probegen.instrumentation.model import ProbedModel, instrument_as
from probegen.instrumentation.source import as_source
from probegen.manifest import GRADIENT_KINDS, InputSpec, Manifest, OutputSpec
from probegen.runtime.inputs import check_inputs

Array = npt.NDArray[Any]

#: Largest allowed max |a-b| / max |b|, and |a-b| / |b| of a gradient, by element type: some
#: hundred units in the last place, which sums over thousands of terms in another order come to.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
#: Gradients multiply the rounding of two passes.
GRADIENT_FACTOR = 10.0
#: Rounding noise on the inputs, relative to the largest; what the gradient then moves by counts
#: thrice (an engine rounds in every layer), up to a cap.
NOISE, NOISE_FACTOR, NOISE_CAP = 1e-5, 3.0, 0.1
MIN_COSINE = 0.9

DEFAULT_SAMPLES = 3
#: Sizes of open axes; all others have one size, since lengths of sequences and masks must agree.
#: So has an input that is open along one axis only and not alone: frames of a film beside others.
_OPEN_SIZES = {"height": 64, "width": 48, "depth": 16}
_OPEN_SIZE = 13


@dataclasses.dataclass(frozen=True)
class Parity:
    """How one output of an artefact agrees with the source model.

    Attributes:
        kind: the output's kind.
        max_abs: largest absolute difference over all samples.
        max_rel: `max |a-b| / max |b|` over all samples.
        l2_rel: `|a-b| / |b|` in the Euclidean norm, median over the samples.
        cosine: smallest cosine of a sample's output with the reference.
        limit: what `max_rel` (for gradients `l2_rel`) was allowed.
        passed: whether that holds and, for gradients, the cosine.
    """

    kind: str
    max_abs: float
    max_rel: float
    l2_rel: float
    cosine: float
    limit: float
    passed: bool


@dataclasses.dataclass(frozen=True)
class Report(Mapping[str, Parity]):
    """What `verify` measured: output name -> `Parity`; prints as a table.

    Attributes:
        artefact: the path that was verified.
        against: name of the source model.
        samples: how many samples were compared.
        generated: whether they were generated.
        outputs: the figures.
    """

    artefact: str
    against: str
    samples: int
    generated: bool
    outputs: Mapping[str, Parity]

    def __getitem__(self, name: str) -> Parity:
        return self.outputs[name]

    def __iter__(self) -> Any:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def passed(self) -> bool:
        """Whether every output agrees."""
        return all(p.passed for p in self.outputs.values())

    def to_json(self) -> dict[str, Any]:
        """Returns the report as plain JSON values: the certificate of a manifest."""
        return {
            "against": self.against,
            "samples": self.samples,
            "generated": self.generated,
            "passed": self.passed,
            "outputs": {name: dataclasses.asdict(p) for name, p in self.outputs.items()},
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the table: output, max abs, max rel, L2 rel, cosine, verdict."""
        return [
            (
                name,
                f"{p.max_abs:.1e}",
                f"{p.max_rel:.1e}",
                f"{p.l2_rel:.1e}",
                f"{p.cosine:.6f}",
                "agrees" if p.passed else f"DIFFERS (limit {p.limit:.0e})",
            )
            for name, p in self.outputs.items()
        ]

    def __str__(self) -> str:
        rows = [REPORT_COLUMNS, *self.rows()]
        widths = [max(len(r[i]) for r in rows) for i in range(len(REPORT_COLUMNS))]
        table = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        made = "generated " if self.generated else ""
        head = f"{self.artefact} against {self.against!r} on {self.samples} {made}samples"
        return "\n".join([head, *(line.rstrip() for line in table)])


REPORT_COLUMNS = ("output", "max abs", "max rel", "L2 rel", "min cosine", "verdict")


def verify(
    artefact: str | os.PathLike[str],
    model: Any,
    samples: Any = None,
    *,
    target: Any = None,
    seed: int = 0,
) -> Report:
    """Compares an artefact with the model it was made from.

    Args:
        artefact: path of an ONNX file or a SavedModel.
        model: the source model or its path, or the instrumented model (needed where a target
            is a callable, which no manifest can hold).
        samples: inputs with a batch axis (an array, a list or a dict by input name); generated
            from the manifest where left out.
        target: int or `[batch]` for artefacts with a `target` input; drawn where left out.
        seed: of the generated samples and targets.

    Returns:
        The figures of every output.

    Raises:
        VerificationError: an output differs by more than its limit; says which and by how
            much, and holds the report.
        InputError: the samples do not fit the artefact's inputs.
    """
    report = measure(artefact, model, samples, target=target, seed=seed)
    require_agreement(report)
    return report


def measure(
    artefact: str | os.PathLike[str],
    model: Any,
    samples: Any = None,
    *,
    target: Any = None,
    seed: int = 0,
) -> Report:
    """Returns the figures of `verify`, whether the outputs agree or not."""
    art = runtime.load(artefact)
    described = art.manifest
    probed = model if isinstance(model, ProbedModel) else _instrument_again(model, described)
    _check_same_interface(artefact, described, probed)
    generated = samples is None
    rng = np.random.default_rng(seed)
    if generated:
        feed = generate_samples(described, rng)
    else:
        feed = check_inputs(samples, described.inputs)
    count = len(next(iter(feed.values())))
    if described.target_input:
        target = _targets(described, target, count, rng)
    result = art.run(feed, **({"target": target} if described.target_input else {}))
    request = target if described.target_input else None
    expected = _reference(probed, feed, request)
    got = {o.name: np.asarray(result[o.name].array) for o in described.outputs}
    inside = _coarsest(probed.source)
    figures = {
        o.name: compare(o, got[o.name], expected[o.name], computed_in=inside)
        for o in described.outputs
    }
    doubtful = [o for o in described.outputs if not figures[o.name].passed]
    if any(o.kind in GRADIENT_KINDS for o in doubtful):
        noisy = _reference(probed, _with_noise(feed, rng), request)
        for o in doubtful:
            moved = compare(o, noisy[o.name], expected[o.name]).l2_rel
            figures[o.name] = compare(o, got[o.name], expected[o.name], moved, inside)
    return Report(str(artefact), probed.source.name, count, generated, figures)


def require_agreement(report: Report) -> None:
    """Raises a VerificationError that says which outputs differ and by how much, if any do."""
    wrong = [
        f"{name!r} (max rel {p.max_rel:.1e}, L2 {p.l2_rel:.1e}, limit {p.limit:.0e}, "
        f"cosine {p.cosine:.4f})"
        for name, p in report.items()
        if not p.passed
    ]
    if wrong:
        raise VerificationError(
            f"{report.artefact} does not agree with {report.against!r}: {'; '.join(wrong)}.",
            report,
        )


def compare(
    output: OutputSpec,
    got: Array,
    expected: Array,
    moved: float = 0.0,
    computed_in: str = "float64",
) -> Parity:
    """Compares one output, batch axis first, with its reference.

    Args:
        output: decides the limit by kind and element type.
        got: what the artefact gave.
        expected: what the source model gives.
        moved: for gradients, what `expected` itself moves by under rounding noise.
        computed_in: the coarsest element type on the way, as in mixed precision.
    """
    gradient = output.kind in GRADIENT_KINDS
    limit = TOLERANCES.get(output.dtype, 0.0)
    if limit:
        limit = max(limit, TOLERANCES[computed_in])
    if gradient:
        limit = max(limit * GRADIENT_FACTOR, min(moved * NOISE_FACTOR, NOISE_CAP))
    if got.shape != expected.shape:
        return Parity(output.kind, np.inf, np.inf, np.inf, -1.0, limit, passed=False)
    a = got.reshape(len(got), -1).astype(np.float64)
    b = expected.reshape(len(expected), -1).astype(np.float64)
    both_nan = np.isnan(a) & np.isnan(b)
    a, b = np.where(both_nan, 0.0, a), np.where(both_nan, 0.0, b)
    difference = np.nan_to_num(np.abs(a - b), nan=np.inf)
    max_abs = float(difference.max(initial=0.0))
    max_rel = float(_relative(max_abs, np.abs(b).max(initial=0.0)))
    distances = _relative(np.linalg.norm(difference, axis=1), np.linalg.norm(b, axis=1))
    l2_rel = float(np.median(distances)) if len(distances) else 0.0
    cosine = float(_cosines(a, b).min(initial=1.0))
    agrees = l2_rel <= limit and cosine >= MIN_COSINE if gradient else max_rel <= limit
    return Parity(output.kind, max_abs, max_rel, l2_rel, cosine, limit, passed=bool(agrees))


def generate_samples(
    described: Manifest, rng: np.random.Generator, count: int = DEFAULT_SAMPLES
) -> dict[str, Array]:
    """Returns random inputs that fit a manifest: normal floats, tokens within the vocabulary.

    Raises:
        InputError: an input takes strings, which cannot be drawn.
    """
    for wanted in described.inputs:
        if wanted.dtype == "string":
            raise InputError(
                f"input {wanted.name!r} takes strings, which verification cannot make up and the "
                "runtime cannot feed; export with verify=False (--no-verify) and check by hand."
            )
    fixed = {i.shape[0] for i in described.inputs if i.shape and i.shape[0] is not None}
    batch = next(iter(fixed), count) or count
    alone = sum(None in i.shape[1:] for i in described.inputs) == 1
    return {i.name: _sample(i, batch, rng, alone) for i in described.inputs}


def _sample(wanted: InputSpec, batch: int, rng: np.random.Generator, alone: bool) -> Array:
    by_name = _OPEN_SIZES if alone or wanted.shape[1:].count(None) > 1 else {}
    sizes = [batch]
    for size, axis in zip(wanted.shape[1:], wanted.axes[1:], strict=True):
        sizes.append(by_name.get(axis, _OPEN_SIZE) if size is None else size)
    if wanted.dtype == "bool":
        return rng.random(sizes) < 0.5
    if wanted.integer or not wanted.dtype.startswith(("float", "bfloat")):
        top = wanted.vocabulary or 2
        return rng.integers(0, top, sizes).astype(wanted.dtype)
    return rng.standard_normal(sizes).astype(np.float32).astype(wanted.dtype)


def _with_noise(feed: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Returns the inputs with rounding noise on the floating ones."""
    noisy = dict(feed)
    for name, value in feed.items():
        if np.issubdtype(value.dtype, np.floating):
            size = NOISE * np.abs(value).max(initial=0.0)
            noise = size * rng.standard_normal(value.shape)
            noisy[name] = (value + noise).astype(value.dtype)
    return noisy


def _targets(described: Manifest, target: Any, count: int, rng: np.random.Generator) -> Array:
    if target is not None:
        return np.broadcast_to(np.asarray(target, dtype=np.int32), (count,))
    drawn = rng.integers(0, described.target_classes or 1, count).astype(np.int32)
    drawn[0] = -1
    return drawn


def _instrument_again(model: Any, described: Manifest) -> ProbedModel:
    """Instruments a source model with the probes that a manifest names."""
    for entry in described.probes:
        if isinstance(entry.get("target"), dict):
            raise VerificationError(
                f"the target {entry['target'].get('callable')} is a callable, which a manifest "
                "cannot hold; pass the instrumented model: pg.verify(path, probed)."
            )
    return instrument_as(as_source(model), described)


def _check_same_interface(
    artefact: str | os.PathLike[str], described: Manifest, probed: ProbedModel
) -> None:
    """Refuses a model that the artefact cannot have been made from.

    Raises:
        VerificationError: they have other inputs or outputs; lists both.
    """
    for what, ours, theirs in (
        ("inputs", described.inputs, probed.manifest.inputs),
        ("outputs", described.outputs, probed.manifest.outputs),
    ):
        shown = [[f"{v.name!r} {v.dtype} {v.shape[1:]}" for v in side] for side in (ours, theirs)]
        if shown[0] != shown[1]:
            raise VerificationError(
                f"{artefact} was not made from {probed.source.name!r}: it has the {what} "
                f"{', '.join(shown[0])}; the model has the {what} {', '.join(shown[1])}."
            )


def _coarsest(model: Any) -> str:
    """Returns the coarsest element type that a model's layers compute in."""
    used = {layer.compute_dtype for layer in model._flatten_layers()}
    known = [dtype for dtype in TOLERANCES if dtype in used]
    return max(known, key=TOLERANCES.__getitem__, default="float64")


def _reference(probed: ProbedModel, feed: Mapping[str, Array], target: Any) -> dict[str, Array]:
    """Returns what the source model gives, predictions from a call of it as it is."""
    source = probed.plan.source
    flat = [feed[name] for name in source.input_names]
    tensors = [
        np.asarray(v).astype(s.dtype.as_numpy_dtype)
        for v, s in zip(flat, source.input_specs, strict=True)
    ]
    outputs = probed(dict(zip(source.input_names, tensors, strict=True)), target=target)
    expected = {name: _numpy(value) for name, value in outputs.items()}
    predictions: Sequence[Any] = source.predict(tensors)
    expected.update(
        (name, _numpy(value)) for name, value in zip(source.output_names, predictions, strict=True)
    )
    return expected


def _numpy(value: Any) -> Array:
    array: Array = np.asarray(value)
    return array


def _relative(difference: Any, size: Any) -> Any:
    """Returns difference / size, and the difference itself where the reference is all zeros."""
    return np.where(size > 0, difference / np.where(size > 0, size, 1.0), difference)


def _cosines(a: Array, b: Array) -> Array:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dots = (a * b).sum(axis=1)
    both_zero = (np.abs(a).max(axis=1, initial=0) == 0) & (np.abs(b).max(axis=1, initial=0) == 0)
    cosines: Array = np.where(both_zero, 1.0, dots / np.where(norms > 0, norms, 1.0))
    return cosines
