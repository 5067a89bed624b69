"""Tries one case: inspects, compiles, runs, and compares with the untouched model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

import probegen as pg
from fuzz.case import Case, namespace
from fuzz.judging import (
    FoundError,
    check_attribution,
    check_prediction,
    check_rows_alone,
    moved,
)
from fuzz.keras_models import VOCABULARY
from fuzz.keras_witness import Witness
from fuzz.outcome import DIFFERS, EQUAL, INVALID, Outcome, of_error, signature
from probegen import runtime
from probegen.errors import ProbegenError
from probegen.plan.making import make_plan
from probegen.sources import open_source

Array = npt.NDArray[Any]

_BATCHES, _SIZES = (3, 5), (9, 12)
#: What an error says where onnxruntime has no such operator in float64 or bfloat16.
_NO_KERNEL = "lacks an operator for this element type"


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
    # Keras flattens dicts in an order of its own.
    names = keras.tree.flatten({n: n for n in case.outputs}) if case.by_name else case.outputs
    values["logits"] = [eval(case.logits[name], values) for name in names]
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
    except FoundError as error:
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
        FoundError: something is not what it should be.
    """
    named = {spec.name: x for spec, x in zip(art.inputs, feed, strict=True)}
    result = art.run(named)
    plain = art.run(named, explain=False)
    for at, (spec, y) in enumerate(zip(art.manifest.predictions, expected, strict=True)):

        def again(draw: int, at: int = at) -> Array:
            return np.asarray(witness.predictions(moved(feed, policy, draw))[at], np.float64)

        for found, where in ((result, ""), (plain, " without explanation")):
            check_prediction(f"{spec.name}{where}", found[spec.name].array, y, policy, again)
    check_rows_alone(art, named, result, policy, {})
    same = [
        _same_attribution(art.inputs[at], spec, probe, at, witness, feed, result, policy)
        for probe, at, spec in _attributions(art, probes)
    ]
    return sum(same)


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
        FoundError: it is not what the witness says.
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
    check_attribution(
        f"{spec.kind} of {type(probe).__name__}",
        result[spec.name].array,
        expected,
        policy,
        lambda draw: right(moved(feed, policy, draw)),
    )
    return True
