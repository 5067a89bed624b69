"""Tries one case: inspects, compiles, runs, and compares with the untouched model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

import probegen as pg
from fuzz.case import Case, namespace
from fuzz.keras_models import VOCABULARY
from fuzz.keras_witness import Witness
from fuzz.outcome import DIFFERS, EQUAL, INVALID, Outcome, of_error, signature
from probegen import runtime
from probegen.errors import ProbegenError
from probegen.plan.making import make_plan
from probegen.sources import open_source

Array = npt.NDArray[Any]

#: Largest `|a - b|` over the largest value, by what is computed in; gradients get ten times that.
_LIMITS = {"float64": 1e-8, "float32": 3e-4}
_COARSE = 5e-2
#: Relative size of the noise that tells whether an answer is steady at all.
_NOISE = {"float64": 1e-11, "float32": 1e-6}
_COARSE_NOISE = 1e-3
_DRAWS = 4
_GRADIENTS = 10.0
_SATURATED = 1e-2
_BATCHES, _SIZES = (3, 5), (9, 12)
#: What an error says where onnxruntime has no such operator in float64 or bfloat16.
_NO_KERNEL = "lacks an operator for this element type"


class _FoundError(Exception):
    """What came out is wrong."""


def build(case: Case) -> dict[str, Any]:
    """Runs the lines of a case; returns its variables, `model` and `logits` among them.

    Raises:
        Exception: Keras does not want it.
    """
    keras.backend.clear_session()
    values = namespace()
    for setting in case.setting():
        exec(setting, values)
    for line in case.lines:
        values[line.name] = eval(line.code, values)
    model_line, stir_line, _ = case.closing()
    exec(model_line, values)
    exec(stir_line, values)
    values["logits"] = [eval(case.logits[name], values) for name in case.outputs]
    values["options"] = {name: eval(code, values) for name, code in case.options.items()}
    return values


def samples(model: Any, call: int) -> list[Array]:
    """Returns one of two batches of hard samples: other batch, other open sizes.

    Rows: ordinary, zeros (padding), ties and negatives; the larger batch also large values and
    rows that are padded behind.
    """
    rng = np.random.default_rng(call)
    found = []
    for tensor in model.inputs:
        sizes = [_SIZES[call] if s is None else s for s in tensor.shape[1:]]
        shape = (_BATCHES[call], *sizes)
        dtype = str(tensor.dtype)
        x: Array
        if keras.backend.is_float_dtype(dtype):
            x = rng.normal(0.2, 1.0, shape)
            x[1] = 0.0
            x[2] = np.round(x[2])
            if len(x) > 3:
                x[3] *= 20.0
                x[4, max(1, len(x[4]) // 2) :] = 0.0
        else:
            high = VOCABULARY if dtype == "int32" else 256
            x = rng.integers(1, high, shape).astype(dtype)
            x[1] = 0
            x[2] = 3
            if len(x) > 3:
                x[4, max(1, len(x[4]) // 2) :] = 0
        found.append(x.astype("float32" if dtype == "bfloat16" else dtype))
    return found


def attempt(case: Case, formats: Sequence[str] = ("onnx",)) -> Outcome:
    """Tries a case; whatever happens becomes an outcome."""
    stage = "build"
    try:
        built = build(case)
        model = built["model"]
        witness = Witness(model, built["logits"])
        feeds = [samples(model, call) for call in (0, 1)]
        expected = [witness.predictions(feed) for feed in feeds]
        if not all(np.isfinite(y[[0]]).all() for found in expected for y in found):
            return Outcome(case.key, INVALID, "not finite on an ordinary sample")
    except Exception as error:  # a model that Keras itself cannot call says nothing of probegen
        return Outcome(case.key, INVALID, signature(error))
    try:
        stage = "inspect"
        str(pg.inspect(model))
        stage = "plan"
        kept, refused = _planned(model, case.probes, built)
        with tempfile.TemporaryDirectory() as folder:
            for format_ in formats:
                path = Path(folder) / ("m.onnx" if format_ == "onnx" else "saved")
                options = built["options"] if format_ == "onnx" else {}
                stage = "compile"
                pg.compile(model, kept, path, **options)
                stage = "run"
                art = runtime.load(path)
                stage = "compare"
                witnessed = sum(
                    _compared(art, witness, kept, feed, y, case.policy)
                    for feed, y in zip(feeds, expected, strict=True)
                )
    except _FoundError as error:
        return Outcome(case.key, DIFFERS, str(error))
    except Exception as error:
        return of_error(case.key, error, stage, excused=_NO_KERNEL)
    return Outcome(case.key, EQUAL, "; ".join(refused), witnessed=witnessed)


def _planned(
    model: Any, probes: Sequence[str], values: Mapping[str, Any]
) -> tuple[list[Any], list[str]]:
    """Returns the probes that suit the model, and why the others do not."""
    view = open_source(model).view
    kept: list[Any] = []
    refused = []
    for code in probes:
        try:
            probe = eval(code, dict(values))
            make_plan(view, (*kept, probe))
        except ProbegenError as error:
            refused.append(signature(error))
        else:
            kept.append(probe)
    return kept, refused


def _compared(
    art: Any,
    witness: Witness,
    probes: Sequence[Any],
    feed: Sequence[Array],
    expected: Sequence[Array],
    policy: str,
) -> int:
    """Compares one batch; returns how many attributions a witness knew.

    Raises:
        _FoundError: something is not what it should be.
    """
    named = {spec.name: x for spec, x in zip(art.inputs, feed, strict=True)}
    result = art.run(named)
    plain = art.run(named, explain=False)
    for at, (spec, y) in enumerate(zip(art.manifest.predictions, expected, strict=True)):
        for found, where in ((result, ""), (plain, " without explanation")):
            got = found[spec.name].array
            _same_prediction(f"{spec.name}{where}", got, y, witness, feed, policy, at)
    _rows_alone(art, named, result, policy)
    same = [
        _same_attribution(art.inputs[at], spec, probe, at, witness, feed, result, policy)
        for probe, at, spec in _attributions(art, probes)
    ]
    return sum(same)


def _same_prediction(
    name: str,
    got: Any,
    expected: Array,
    witness: Witness,
    feed: Sequence[Array],
    policy: str,
    at: int,
) -> None:
    got, y = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != y.shape:
        raise _FoundError(f"{name} has the shape {got.shape}, the model's is {y.shape}")

    def again(draw: int) -> Array:
        noisy = witness.predictions(_moved(feed, policy, draw))
        return np.asarray(noisy[at], np.float64)

    _check_rows("prediction", got, y, _off, _limit(policy), again)


def _check_rows(
    what: str,
    got: Array,
    expected: Array,
    apart: Callable[[Array, Array], float],
    limit: float,
    again: Callable[[int], Array | None],
) -> None:
    """Compares row by row; beyond the limit a row may be as far off as noise moves what is right.

    Args:
        what: is compared.
        got: what came out.
        expected: what is right.
        apart: tells how far two rows are apart.
        limit: how far they may be anyhow.
        again: number of a draw -> what is right of inputs with noise; None where nothing is known.

    Raises:
        _FoundError: a row differs by more.
    """
    noisy: list[Array] | None = None
    for row in range(len(expected)):
        off = apart(got[row], expected[row])
        if off <= limit:
            continue
        if noisy is None:
            noisy = [found for n in range(_DRAWS) if (found := again(n)) is not None]
        moved = max((apart(other[row], expected[row]) for other in noisy), default=np.inf)
        if off > 10 * moved:
            raise _FoundError(f"{what} differs in row {row} by {off:.1e} (noise: {moved:.1e})")


def _rows_alone(art: Any, named: Mapping[str, Array], result: Any, policy: str) -> None:
    """Runs one row alone: what comes out is that row of the batch."""
    if any(spec.shape[0] is not None for spec in art.inputs):
        return
    alone = art.run({name: x[:1] for name, x in named.items()})
    for spec in art.outputs:
        if "batch" not in spec.axes[:1]:
            continue
        one, whole = (np.asarray(r[spec.name].array, np.float64) for r in (alone, result))
        limit = _GRADIENTS * max(_limit(policy), _limit(spec.dtype))
        if one.shape != whole[:1].shape or _off(one, whole[:1]) > limit:
            raise _FoundError(f"{spec.kind} of a row alone is not that of the row in a batch")


def _attributions(art: Any, probes: Sequence[Any]) -> Iterator[tuple[Any, int, Any]]:
    """Gives the probes with the inputs that they explain, by place, and the outputs that do it.

    Left out is what could be the output of several probes.
    """
    kinds = [probe.kind for probe in probes]
    for probe in probes:
        if isinstance(getattr(probe, "output", None), str) or kinds.count(probe.kind) != 1:
            continue
        own = [spec for spec in art.manifest.explanations if spec.kind == probe.kind]
        for at, explained in enumerate(art.inputs):
            matching = [spec for spec in own if spec.input == explained.name]
            if len(matching) == 1:
                yield probe, at, matching[0]


def _same_attribution(
    explained: Any,
    spec: Any,
    probe: Any,
    at: int,
    witness: Witness,
    feed: Sequence[Array],
    result: Any,
    policy: str,
) -> bool:
    """Compares an attribution; returns whether a witness knew it.

    Raises:
        _FoundError: it is not what the witness says.
    """

    def right(fed: Sequence[Array]) -> Array | None:
        found = witness.attribution(probe, fed, at)
        if found is None or probe.kind != "saliency":
            return found
        before = found.ndim - len(explained.axes)  # an axis of several targets
        gone = [before + i for i, axis in enumerate(explained.axes) if axis not in spec.axes]
        return np.asarray(found.max(axis=tuple(gone)))

    expected = right(feed)
    if expected is None:
        return False
    got = np.asarray(result[spec.name].array, np.float64)
    if got.shape != expected.shape:
        raise _FoundError(f"{spec.kind} has the shape {got.shape}, expected {expected.shape}")
    # Where all is saturated, what is left of a gradient is rounding.
    least = _SATURATED * float(np.linalg.norm(np.nan_to_num(expected[0])))
    _check_rows(
        f"{spec.kind} of {type(probe).__name__}",
        got,
        expected,
        lambda a, b: _distance(a, b, least),
        _GRADIENTS * _limit(policy),
        lambda draw: right(_moved(feed, policy, draw)),
    )
    return True


def _moved(feed: Sequence[Array], policy: str, draw: int) -> list[Array]:
    """Returns inputs with noise of the size of rounding."""
    rng = np.random.default_rng(draw)
    size = _NOISE.get(policy, _COARSE_NOISE)
    return [
        (x + size * (np.abs(x) + 0.1) * rng.normal(size=x.shape)).astype(x.dtype)
        if np.issubdtype(x.dtype, np.floating)
        else x
        for x in feed
    ]


def _limit(policy: str) -> float:
    return _LIMITS.get(policy, _COARSE)


def _off(got: Array, expected: Array) -> float:
    """Returns the largest difference over the largest value; NaN and infinity must be the same."""
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)):
        return np.inf
    if not finite.any():
        return 0.0
    size = max(1e-3, float(np.abs(expected[finite]).max()))
    return float(np.abs(got[finite] - expected[finite]).max()) / size


def _distance(got: Array, expected: Array, least: float = 0.0) -> float:
    """Returns the Euclidean distance over the length, which counts as `least` where it is shorter.

    Where the reference is not finite, nothing is known.
    """
    finite = np.isfinite(expected)
    if not np.isfinite(got[finite]).all():
        return np.inf
    size = max(1e-4, least, float(np.linalg.norm(expected[finite])))
    return float(np.linalg.norm(got[finite] - expected[finite])) / size
