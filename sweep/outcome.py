"""Compiles one subject and says how it went."""

from __future__ import annotations

import dataclasses
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import probegen as pg
from probegen import runtime
from probegen.errors import (
    InstrumentError,
    NotDifferentiableError,
    ProbegenError,
    UnsupportedOpsError,
    VerificationError,
)
from probegen.parity import generate_samples
from sweep.nodes import count_nodes
from sweep.subject import Subject

AGREES = "agrees"
DIFFERS = "differs"
FAILS = "fails"
REFUSED = "refused"
INEXPRESSIBLE = "cannot be expressed"
NO_GRADIENT = "no gradient"
UNTRACEABLE = "cannot be traced"
NOT_APPLICABLE = "not applicable"

#: Verdicts that mean a fault in probegen.
FAULTS = frozenset({DIFFERS, FAILS})

#: Rows of other batch sizes may differ by the rounding of other kernels.
_SAME_ROWS = {"float16": 1e-2, "float64": 1e-9}
_BATCHES = (1, 3, 8)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One row of the table.

    Attributes:
        name: of the subject.
        verdict: one of the words above.
        reason: what explains the verdict, on one line.
        parity: largest `max |a-b| / max |b|` of a gradient.
        plain: nodes that predictions alone take.
        explained: nodes that predictions with gradients take.
        seconds: time to build, compile and compare.
    """

    name: str
    verdict: str
    reason: str = ""
    parity: float | None = None
    plain: int | None = None
    explained: int | None = None
    seconds: float = 0.0

    def cells(self) -> tuple[str, str, str, str]:
        """Returns the row: name, parity, nodes, verdict."""
        parity = "" if self.parity is None else f"{self.parity:.1e}"
        nodes = "" if self.explained is None else f"{self.plain} / {self.explained}"
        verdict = f"{self.verdict}: {self.reason}" if self.reason else self.verdict
        return self.name, parity, nodes, verdict


COLUMNS = ("model", "gradient max rel", "nodes plain / explained", "verdict")


def sweep(subject: Subject) -> Outcome:
    """Builds and compiles a subject; whatever happens becomes an outcome."""
    if subject.build is None:
        return Outcome(subject.name, NOT_APPLICABLE, subject.reason)
    start = time.perf_counter()
    keras.backend.clear_session(free_memory=False)
    try:
        outcome = _compile(subject)
    except VerificationError as error:
        outcome = Outcome(subject.name, DIFFERS, line(str(error).partition("with ")[2] or error))
    except NotDifferentiableError as error:
        outcome = Outcome(subject.name, NO_GRADIENT, line(error))
    except UnsupportedOpsError as error:
        kind = INEXPRESSIBLE if "TensorFlow" in str(error).partition("\n")[0] else REFUSED
        outcome = Outcome(subject.name, kind, _refusals(error))
    except InstrumentError as error:  # Keras itself cannot call it on a batch of open size
        kind = UNTRACEABLE if "cannot be traced" in str(error) else REFUSED
        outcome = Outcome(
            subject.name, kind, line(str(error).partition("as a graph: ")[2] or error)
        )
    except ProbegenError as error:
        outcome = Outcome(subject.name, REFUSED, line(error))
    except Exception as error:
        outcome = Outcome(subject.name, FAILS, line(f"{type(error).__name__}: {error}"))
    return dataclasses.replace(outcome, seconds=round(time.perf_counter() - start, 2))


def _compile(subject: Subject) -> Outcome:
    if subject.build is None:
        raise ValueError("the subject has no model")
    model = subject.build()
    probes = subject.probes() if subject.probes else [pg.Saliency(), pg.InputGradient()]
    samples = subject.samples(model) if subject.samples else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        precision = "float32" if subject.in_float32 else None
        exported = pg.compile(model, probes, path, samples=samples, precision=precision)
        plain, explained = count_nodes(path)
        figures = {} if exported.report is None else dict(exported.report)
        names = [o.name for o in exported.manifest.outputs if o.is_attribution]
        parity = max((figures[name].max_rel for name in names if name in figures), default=0.0)
        wrong = _rows_that_depend_on_the_batch(path, samples)
    verdict = AGREES
    if wrong:
        own = _mixes_rows(model, samples)
        verdict, wrong = (
            (AGREES, "a batch mixes its rows, in the model as well") if own else (DIFFERS, wrong)
        )
    return Outcome(subject.name, verdict, wrong, float(parity), plain, explained)


def _rows_that_depend_on_the_batch(path: Path, samples: Any) -> str:
    """Runs batches of several sizes; says which output's rows differ, `""` where none."""
    art = runtime.load(path)
    feed = samples or generate_samples(art.manifest, np.random.default_rng(1), max(_BATCHES))
    count = len(next(iter(feed.values())))
    if art.manifest.inputs[0].shape[0] is not None:
        return ""  # the model's own batch is fixed
    whole = art.run(feed)
    for size in (b for b in _BATCHES if b < count):
        part = art.run({name: value[:size] for name, value in feed.items()})
        for output in art.manifest.outputs:
            a, b = np.asarray(part[output.name].array), np.asarray(whole[output.name].array)[:size]
            limit = _SAME_ROWS.get(output.dtype, 1e-4)
            if a.shape != b.shape or not np.allclose(
                a, b, rtol=limit, atol=limit * np.abs(b).max(initial=0.0), equal_nan=True
            ):
                return f"{output.name} of batch {size} is not that of batch {count}"
    return ""


def _mixes_rows(model: Any, samples: Any) -> bool:
    """Tells whether the model itself predicts otherwise for a sample alone than in a batch."""
    if samples is None:
        return False
    whole = keras.tree.flatten(model.predict_on_batch(samples))
    alone = model.predict_on_batch({name: value[:1] for name, value in samples.items()})
    pairs = zip(keras.tree.flatten(alone), whole, strict=True)
    return not all(np.allclose(a, b[:1], rtol=1e-3, atol=1e-4 * np.abs(b).max()) for a, b in pairs)


def _refusals(error: UnsupportedOpsError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.startswith("  ")]
    return line("; ".join(lines) or error)


def line(message: object, most: int = 400) -> str:
    """Returns a message on one line, cut where it is long."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(message))
    text = " ".join(re.sub(r"/[^'\s]*/(model\.onnx)", r"\1", plain).split())
    return text if len(text) <= most else text[: most - 1] + "…"
