"""onnxruntime: any optimisation level, ONNX or its own format, after a simplifier or none.

Options: `level`, the name of a `GraphOptimizationLevel`; `provider`, the name of an execution
provider, with its `provider_options`; `environment`, variables that are set first; `ort_format`, a
style of `onnxruntime.tools.convert_onnx_models_to_ort` ("Fixed", "Runtime"); `simplifier`, a name
of `SIMPLIFIERS`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from runs_where.exchange import Array, work

_CONVERT = (sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort")
#: What the command's styles call the files they write.
_SUFFIXES = {"Fixed": ".ort", "Runtime": ".with_runtime_opt.ort"}


def _onnxslim(path: str, place: str) -> None:
    import onnx
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(path)), place)


def _onnxsim(path: str, place: str) -> None:
    import onnx
    import onnxsim

    simplified, same = onnxsim.simplify(onnx.load(path))
    if not same:
        raise RuntimeError("onnxsim's own check says that the simplified model differs")
    onnx.save(simplified, place)


def _onnxoptimizer(path: str, place: str) -> None:
    import onnx
    import onnxoptimizer

    onnx.save(onnxoptimizer.optimize(onnx.load(path)), place)


SIMPLIFIERS = {"onnxslim": _onnxslim, "onnxsim": _onnxsim, "onnxoptimizer": _onnxoptimizer}


def _to_ort_format(path: str, style: str, folder: Path) -> str:
    """Converts a model by onnxruntime's own command."""
    given = folder / "in"
    given.mkdir()
    for file in Path(path).parent.glob(f"{Path(path).stem}*"):
        if file.is_file():
            shutil.copy(file, given)
    for other in given.glob("*.onnx"):
        if other.name != Path(path).name:
            other.unlink()
    done = subprocess.run(
        [*_CONVERT, str(given), "--optimization_style", style],
        capture_output=True,
        text=True,
        check=False,
    )
    made = given / (Path(path).stem + _SUFFIXES[style])
    if done.returncode or not made.is_file():
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise RuntimeError(f"convert_onnx_models_to_ort: {last}")
    return str(made)


def opener(options: Mapping[str, Any]) -> Any:
    """Returns what runs a model; see `runs_where.exchange.Opener`."""

    os.environ.update(options.get("environment", {}))

    @functools.cache
    def session(path: str) -> onnxruntime.InferenceSession:
        folder = Path(tempfile.mkdtemp())
        chosen = onnxruntime.SessionOptions()
        chosen.log_severity_level = 4
        chosen.intra_op_num_threads = 1
        if "level" in options:
            level = getattr(onnxruntime.GraphOptimizationLevel, options["level"])
            chosen.graph_optimization_level = level
        try:
            if "simplifier" in options:
                made = str(folder / Path(path).name)
                SIMPLIFIERS[options["simplifier"]](path, made)
                path = made
            if "ort_format" in options:
                path = _to_ort_format(path, options["ort_format"], folder)
            provider = options.get("provider", "CPUExecutionProvider")
            if provider.startswith("CUDA"):
                onnxruntime.preload_dlls()  # CUDA's libraries where pip has put them
            given = [(provider, options.get("provider_options", {}))]
            opened = onnxruntime.InferenceSession(path, chosen, given, enable_fallback=0)
            if provider not in opened.get_providers():
                raise RuntimeError(f"{provider} does not start")
            return opened
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def run(path: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        opened = session(path)
        names = [o.name for o in opened.get_outputs()]
        return dict(zip(names, opened.run(names, dict(feeds)), strict=True))

    return run


def _card() -> str:
    """Returns the name of the first graphics processor and the version of its driver."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no graphics processor"


def versions(options: Mapping[str, Any]) -> str:
    """Says what runs."""
    said = f"onnxruntime {onnxruntime.__version__}"
    if options.get("provider", "").startswith("CUDA"):
        said += f", {_card()}"
    simplifier = options.get("simplifier")
    if simplifier is not None:
        said = f"{simplifier} {importlib.metadata.version(simplifier)}, {said}"
    return said


if __name__ == "__main__":
    work(versions, opener)
