"""One TensorFlow operation, converted alone and compared with TensorFlow on hard samples."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import tensorflow as tf

from probegen.errors import ProbegenError, UnsupportedOpsError
from probegen.graph.core.marks import remove_marks
from probegen.graph.running import open_graph
from probegen.sources.keras.to_onnx.conversion import convert
from probegen.sources.keras.to_onnx.lowering import to_ir
from sweep.outcome import AGREES, DIFFERS, FAILS, NOT_APPLICABLE, REFUSED, Outcome, line

Arrays = tuple[np.ndarray[Any, Any], ...]
Samples = Mapping[str, Arrays]

#: Relative distance that counts as the same, by element type.
_LIMITS = {"float16": 4e-3, "float32": 2e-5, "float64": 1e-9}
#: How a row is converted: which axes of its inputs are open.
FIXED, BATCH, OPEN = "fixed sizes", "open batch", "all sizes open"
FORMS = (FIXED, BATCH, OPEN)
#: Why an operation fails that nobody wrote a row for.
NO_ROW = "no row tries it"


@dataclasses.dataclass(frozen=True)
class Row:
    """A function around one operation, or the reason why there is none.

    Attributes:
        op: the TensorFlow operation.
        case: what is tried of it.
        function: tensors -> tensor or a nest of tensors.
        samples: label -> inputs; the first axis of each is the batch.
        forms: which axes are open.
        reason: why the operation has no row of its own.
        limit: relative distance that counts as the same, where it is not the usual.
        known: label of samples -> why a difference there is no fault of the conversion.
    """

    op: str
    case: str = ""
    function: Callable[..., Any] | None = None
    samples: Samples = dataclasses.field(default_factory=dict)
    forms: Sequence[str] = FORMS
    reason: str = ""
    limit: float | None = None
    known: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the row goes by in the table."""
        return f"{self.op}: {self.case}" if self.case else self.op


def run(row: Row) -> Outcome:
    """Converts and compares a row; whatever happens becomes an outcome."""
    if row.function is None:
        verdict = FAILS if row.reason == NO_ROW else NOT_APPLICABLE
        return Outcome(row.name, verdict, row.reason)
    start = time.perf_counter()
    verdicts, reasons, worst = [], [], 0.0
    for form in row.forms:
        verdict, reason, distance = _run_form(row, form)
        verdicts.append(verdict)
        worst = max(worst, distance)
        if reason and reason not in reasons:
            reasons.append(reason if len(row.forms) == 1 else f"{form}: {reason}")
    worse = next((v for v in (FAILS, DIFFERS) if v in verdicts), None)
    verdict = worse or (AGREES if AGREES in verdicts else REFUSED)
    seconds = round(time.perf_counter() - start, 2)
    return Outcome(row.name, verdict, line("; ".join(reasons)), worst, seconds=seconds)


def _run_form(row: Row, form: str) -> tuple[str, str, float]:
    """Returns verdict, reason and largest distance of one way to convert a row."""
    distances, apart = [0.0], list[str]()
    try:
        # Samples of one set of sizes share a conversion where these are fixed.
        made: dict[Any, Any] = {}
        for label, arrays in row.samples.items():
            for inputs in _sizes(row, arrays, form):
                expected = reference(row, inputs)
                specs = tuple(_spec(a, form) for a in inputs)
                if specs not in made:
                    made[specs] = session(row.function, specs, row.op)
                found = answer(made[specs], inputs)
                told, distance = difference(expected, found, row.limit)
                distances.append(distance)
                if told and label not in row.known:
                    return DIFFERS, f"{label}: {told}", max(distances)
                apart.extend([f"but {row.known[label]}"] if told else [])
    except UnsupportedOpsError as error:
        lines = str(error).splitlines()
        return REFUSED, "; ".join(x.strip() for x in lines if x.startswith("  ")), 0.0
    except ProbegenError as error:
        return REFUSED, str(error), 0.0
    except Exception as error:
        return FAILS, f"{type(error).__name__}: {error}", 0.0
    return AGREES, "; ".join(dict.fromkeys(apart)), max(distances)


def _sizes(row: Row, arrays: Arrays, form: str) -> Iterator[Arrays]:
    """Yields inputs of the sizes that one conversion has to serve."""
    yield arrays
    if form == FIXED:
        return
    first = {len(a) for a in arrays if a.ndim}
    fewer = max(1, min(first) // 2) if len(first) == 1 else 0
    if fewer and fewer not in first:
        yield tuple(a[:fewer] if a.ndim else a for a in arrays)
    if form == OPEN:
        smaller = tuple(a[tuple(slice(0, max(1, n - 1)) for n in a.shape)] for a in arrays)
        if any(a.shape != b.shape for a, b in zip(arrays, smaller, strict=True)):
            try:
                reference(row, smaller)
            except Exception:  # the sizes hang together
                return
            yield smaller


def _spec(array: np.ndarray[Any, Any], form: str) -> Any:
    sizes: list[int | None] = list(array.shape)
    if form == BATCH and sizes:
        sizes[0] = None
    elif form == OPEN:
        sizes = [None] * len(sizes)
    return tf.TensorSpec(sizes, array.dtype)


def reference(row: Row, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
    """Returns what TensorFlow gives, called eagerly."""
    if row.function is None:
        raise ValueError("the row has no function")
    with tf.device("/cpu:0"):
        made = row.function(*(tf.constant(a) for a in inputs))
    return [np.asarray(t) for t in tf.nest.flatten(made)]


def session(function: Any, specs: Sequence[Any], op: str = "", opset: int = 18) -> Any:
    """Converts a function as probegen converts a model; returns a session of onnxruntime.

    Raises:
        ProbegenError: the function is refused.
        ValueError: the traced function does not hold the operation it stands for.
    """
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    if op and op not in _held(concrete.graph):
        raise ValueError(f"the graph holds no {op}: {', '.join(sorted(_held(concrete.graph)))}")
    proto = convert(concrete, concrete.inputs[: len(specs)], {}, min(opset, 18))
    model = to_ir(proto, opset)
    remove_marks(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return open_graph(model, options)


def _held(graph: Any) -> set[str]:
    """Returns the kinds of operations in a graph, in its functions too."""
    definition = graph.as_graph_def()
    inside = (n for f in definition.library.function for n in f.node_def)
    return {n.op for n in (*definition.node, *inside)}


def answer(made: Any, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
    """Returns what a session gives."""
    names = [i.name for i in made.get_inputs()]
    feed = dict(zip(names, inputs, strict=True))
    return list(made.run(None, feed))


def difference(
    expected: Sequence[np.ndarray[Any, Any]],
    found: Sequence[np.ndarray[Any, Any]],
    limit: float | None = None,
) -> tuple[str, float]:
    """Returns what is different, `""` where nothing is, and the largest relative distance."""
    worst = 0.0
    for number, pair in enumerate(zip(expected, found, strict=True)):
        a, b = (_readable(x) for x in pair)
        where = f"output {number}: " if len(expected) > 1 else ""
        if a.dtype != b.dtype:
            return f"{where}{b.dtype} for {a.dtype}", worst
        if a.shape != b.shape:
            return f"{where}shape {list(b.shape)} for {list(a.shape)}", worst
        if not a.size:
            continue
        if a.dtype.kind not in "fc":
            wrong = a != b
            if np.any(wrong):
                return f"{where}{b[wrong][0]} for {a[wrong][0]}", worst
            continue
        within = limit or _LIMITS.get(str(a.dtype), 2e-5)
        with np.errstate(all="ignore"):
            same = np.isclose(b, a, rtol=within, atol=within / 20, equal_nan=True)
            finite = np.isfinite(a) & np.isfinite(b)
            scale = np.maximum(np.abs(a[finite]), 1.0)
            far = np.abs(a[finite].astype(np.float64) - b[finite]) / scale
        worst = max(worst, float(far.max(initial=0.0)))
        if not np.all(same):
            wrong = ~same
            return f"{where}{b[wrong][0]:.6g} for {a[wrong][0]:.6g}", worst
    return "", worst


def _readable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns texts as such, which TensorFlow gives as bytes."""
    if array.dtype.kind not in "OSU":
        return array
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in array.ravel()]
    return np.array(texts, object).reshape(array.shape)
