"""The table of places: what runs artefacts, in which environment, and how far off it may be."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

GATES = ("required", "optional", "split", "none")
#: Of float32 numbers, max |a - b| over max |b| of an output. A fault of the kinds that artefacts
#: once had in one engine or another (a mask of 0.5 at 0, a weight taken the wrong way) is 0.1.
LIMIT = 1e-5


@dataclasses.dataclass(frozen=True)
class Step:
    """A worker and where it runs.

    Attributes:
        command: what runs it; job and answer follow as paths.
        options: what it is told.
    """

    command: tuple[str, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Place:
    """A line of the table.

    Attributes:
        name: what it is called in the page.
        steps: workers, one after the other; the last one's numbers count.
        forms: the forms of artefact that it is given.
        here: True where the development environment has all that it needs.
        elsewhere: True where it needs a machine of another kind: a graphics processor. It is left
            out unless it is asked for by name.
        advice: why its numbers differ and what to do, where that is known.
        programs: what has to be installed on the machine, by name or path.
    """

    name: str
    steps: Sequence[Step]
    forms: tuple[str, ...] = GATES
    here: bool = False
    elsewhere: bool = False
    advice: str = ""
    programs: tuple[str, ...] = ()


def _python(worker: str, venv: str | None = None, **options: Any) -> Step:
    python = sys.executable if venv is None else str(ROOT / venv / "bin" / "python")
    return Step((python, "-m", f"runs_where.workers.{worker}"), options)


def _node(worker: str) -> Step:
    return Step(("node", str(ROOT / "runs_where" / "javascript" / worker)))


#: The browser; the same as in `javascript/browser.mjs`.
_CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
#: Environments of their own: onnxruntime's oldest version, and simplifiers with LiteRT.
OLDEST, TOOLS = ".venv-where-oldest", ".venv-where"


def _onnxruntime(what: str, **options: Any) -> Place:
    return Place(f"onnxruntime, {what}", [_python("onnxruntime", **options)], here=True)


#: What a session on CUDA is told by `runtime.load(path, device="cuda")`.
_FLOAT32 = {"use_tf32": "0"}
_TF32 = (
    "Left to its defaults, CUDA multiplies float32 in TF32, whose fraction has 10 bits. "
    '`runtime.load(path, device="cuda")` tells it not to; elsewhere give the execution provider '
    "`use_tf32=0`, or set `NVIDIA_TF32_OVERRIDE=0` in the environment."
)


def _cuda(what: str, advice: str = "", **options: Any) -> Place:
    step = _python("onnxruntime", provider="CUDAExecutionProvider", **options)
    return Place(f"onnxruntime on CUDA, {what}", [step], elsewhere=True, advice=advice)


PLACES: tuple[Place, ...] = (
    _onnxruntime("as it comes"),
    _onnxruntime("no optimisation", level="ORT_DISABLE_ALL"),
    _onnxruntime("basic", level="ORT_ENABLE_BASIC"),
    _onnxruntime("extended", level="ORT_ENABLE_EXTENDED"),
    _onnxruntime("layout", level="ORT_ENABLE_LAYOUT"),
    Place(
        "onnxruntime, the oldest supported",
        [_python("onnxruntime", OLDEST)],
    ),
    _onnxruntime("ORT format", ort_format="Fixed"),
    _onnxruntime("ORT format with run-time optimisation", ort_format="Runtime"),
    Place("onnxruntime-node", [_node("node.mjs")], programs=("node",)),
    Place("onnxruntime-web in Chromium", [_node("browser.mjs")], programs=("node", _CHROMIUM)),
    Place("OpenVINO", [_python("openvino")], here=True),
    Place("onnx's reference evaluator", [_python("evaluator")], here=True),
    *(
        Place(f"onnxruntime after {name}", [_python("onnxruntime", TOOLS, simplifier=name)])
        for name in ("onnxslim", "onnxsim", "onnxoptimizer")
    ),
    *(
        Place(
            f"TensorFlow without Keras, {signature}",
            [_python("savedmodel", signature=signature)],
            (signature,),
            here=True,
        )
        for signature in ("serving_default", "explain")
    ),
    Place(
        "LiteRT by probegen litert, serving_default",
        [
            _python("to_litert", signature="serving_default"),
            _python("litert", TOOLS, signature="serving_default"),
        ],
        ("serving_default",),
    ),
    Place(
        "LiteRT by probegen litert, explain",
        [
            _python("to_litert", signature="explain"),
            _python("litert", TOOLS, signature="explain"),
        ],
        ("explain",),
    ),
    _cuda("float32", provider_options=_FLOAT32),
    _cuda("float32, no optimisation", level="ORT_DISABLE_ALL", provider_options=_FLOAT32),
    _cuda("as it comes", _TF32),
    _cuda("NVIDIA_TF32_OVERRIDE=0", environment={"NVIDIA_TF32_OVERRIDE": "0"}),
)
