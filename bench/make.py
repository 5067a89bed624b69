"""Builds a subject's artefacts, one stage to a process, so that no stage's memory or caches
reach another's figures.

`python -m bench.make JOB` carries out the stage of a JSON job and prints its figures as the last
line of standard output: seconds of the stage alone (imports and the building of the model are
outside the clock) and peak memory.

The baseline is plain tf2onnx: `tf2onnx.convert.from_function` on the model's prediction, its own
optimisers, one file. Two things are done for models whose weights are large, since tf2onnx needs
some twenty times their size; neither changes the graph, and both make the baseline quicker, so
that `compile/convert` is stricter, not laxer.

- By default tf2onnx copies the whole graph, weights included, before every optimiser, so as to go
  back to it where one fails. `TF2ONNX_CATCH_ERRORS=FALSE` leaves out these copies (ResNet50: the
  same operators in the same numbers, 17 s instead of 20).
- Matrices of `MATRIX` elements and more (the top of VGG16, the words of BERT) go through the
  conversion as inputs and are put in afterwards. It leaves matrices as they are.

Of some models plain tf2onnx makes no file that runs (ConvNeXt: grouped convolutions and the exact
GELU; EfficientNet: constants that come out as inputs; BERT: GELU). The baseline is then its
conversion with the holes mended as probegen does, predictions only and before any of probegen's
passes; the table marks it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.subjects import ROOT, sample, subject
from bench.worker import peak_bytes

#: Weights above which tf2onnx is told not to copy the graph before each optimiser.
LEAN_BYTES = 256 * 2**20
#: Elements of a matrix that goes round the conversion.
MATRIX = 2**24
#: The artefacts beside the plain one.
EXPLAINED = ("explain", "activations", "grad_cam")


class MakeError(RuntimeError):
    """A stage ended without its artefact; the message ends in what it last wrote."""


def make(job: Mapping[str, Any]) -> dict[str, Any]:
    """Carries out one stage in a process of its own and returns its figures.

    Raises:
        MakeError: the stage failed, for instance for want of memory.
    """
    try:
        return in_own_process("bench.make", job, TF_CPP_MIN_LOG_LEVEL="3")
    except RuntimeError as error:
        raise MakeError(f"{job['stage']} of {job['subject']}: {error}") from error


def in_own_process(module: str, job: Mapping[str, Any], **environment: str) -> dict[str, Any]:
    """Runs a module with a job in a process of its own, and returns the figures that it prints.

    Raises:
        RuntimeError: it failed; with what it last wrote.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(job)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise RuntimeError(last[0])
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def convert(job: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Writes `plain.onnx`; figures: `seconds`, and whether it was `lean` and `mended`."""
    import tf2onnx  # noqa: F401  (imports are outside the clock)

    path = Path(job["folder"]) / "plain.onnx"
    size = sum(int(np.prod(w.shape)) * np.dtype("float32").itemsize for w in model.weights)
    lean = job.get("lean", size > LEAN_BYTES)
    os.environ["TF2ONNX_CATCH_ERRORS"] = str(not lean).upper()
    start = time.perf_counter()
    convert_plainly(model, path)
    seconds = time.perf_counter() - start
    mended = not _runs(path, len(model.inputs))
    if mended:
        convert_with_mends(model, path)
    return {"seconds": seconds, "lean": lean, "mended": mended}


def _runs(path: Path, inputs: int) -> bool:
    """Tells whether onnxruntime loads a file, and asks for nothing but the model's inputs."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's errors have no common class
        return False
    return {i.name for i in session.get_inputs()} == {f"input_{i}" for i in range(inputs)}


def convert_with_mends(model: Any, path: Path) -> None:
    """Writes probegen's forward graph, predictions only, before any pass."""
    import onnx_ir as ir
    from onnx_ir.passes import common

    import probegen as pg
    from probegen.graph.core.marks import remove_marks
    from probegen.sources.keras.to_onnx.lowering import forward_graph

    probed = pg.instrument(model, pg.Activations(-1))
    forward = forward_graph(probed.keras_model, probed.plan, 18)
    forward.graph.outputs[:] = forward.predictions
    remove_marks(forward.model)
    common.RemoveUnusedNodesPass()(forward.model)
    for i, value in enumerate(forward.graph.inputs):
        value.name = f"input_{i}"
    ir.save(forward.model, path)


def convert_plainly(model: Any, path: Path) -> None:
    """Converts a model by tf2onnx as anybody would, predictions only."""
    import keras
    import onnx
    import tensorflow as tf
    import tf2onnx

    matrices = [v for v in model.variables if len(v.shape) == 2 and np.prod(v.shape) >= MATRIX]
    signature = [
        *(
            tf.TensorSpec([None, *t.shape[1:]], t.dtype, name=f"input_{i}")
            for i, t in enumerate(model.inputs)
        ),
        *(tf.TensorSpec(v.shape, v.dtype, f"matrix_{i}") for i, v in enumerate(matrices)),
    ]
    count = len(model.inputs)

    @tf.function(input_signature=signature, autograph=False)
    def predict(*given: Any) -> Any:
        inputs, values = list(given[:count]), given[count:]
        with keras.StatelessScope(state_mapping=zip(matrices, values, strict=True)):
            return model(inputs if count > 1 else inputs[0], training=False)

    proto, _ = tf2onnx.convert.from_function(predict, input_signature=signature, opset=18)
    for value in list(proto.graph.input):
        if value.name.startswith("matrix_"):
            matrix = matrices[int(value.name.removeprefix("matrix_"))].numpy()
            proto.graph.input.remove(value)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(matrix, value.name))
    onnx.save(proto, path)


def compile_saliency(job: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Writes `explain.onnx` and inputs `feed_<batch>.npz`; figures: `seconds`."""
    import tf2onnx.tfonnx  # noqa: F401  (imports are outside the clock)

    import probegen as pg
    from probegen import parity  # noqa: F401

    folder = Path(job["folder"])
    start = time.perf_counter()
    exported = pg.compile(
        model, pg.Saliency(), folder / "explain.onnx", verify=job.get("verify", True)
    )
    seconds = time.perf_counter() - start
    for batch in job["batches"]:
        inputs = sample(exported.manifest, batch)
        renamed = {f"input_{i}": value for i, value in enumerate(inputs.values())}
        np.savez(folder / f"feed_{batch}.npz", **inputs, **renamed)
    return {"seconds": seconds}


def compile_others(job: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Writes `activations.onnx`, `split.onnx`, and `grad_cam.onnx` where a layer has positions."""
    import probegen as pg
    from probegen.errors import SelectionError

    folder = Path(job["folder"])
    chosen = pg.Activations(subject(job["subject"]).activations)
    pg.compile(model, chosen, folder / "activations.onnx", verify=False)
    pg.compile(model, pg.Saliency(), folder / "split.onnx", gate="split", verify=False)
    with contextlib.suppress(SelectionError):  # the table then has a dash
        pg.compile(model, pg.GradCAM(), folder / "grad_cam.onnx", verify=False)
    return {}


def compile_growth(job: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Writes `plain.onnx`, `explain.onnx` and inputs, none of it timed."""
    convert(job, model)
    return compile_saliency({**job, "verify": False}, model)


def compile_method(job: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Writes `<file>.onnx` with the probes of the job, and inputs.

    A probe is `[class, fields]`; a field of `{"random": shape}` stands for random numbers.
    """
    import probegen as pg

    folder = Path(job["folder"])
    rng = np.random.default_rng(3)
    probes = []
    for kind, fields in job["probes"]:
        given = {
            name: rng.random(value["random"], np.float32) if isinstance(value, dict) else value
            for name, value in fields.items()
        }
        probes.append(getattr(pg, kind)(**given))
    exported = pg.compile(model, probes, folder / f"{job['file']}.onnx", verify=False)
    for batch in job["batches"]:
        np.savez(folder / f"feed_{batch}.npz", **sample(exported.manifest, batch))
    return {}


def compile_recurrent(job: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Writes `plain.onnx`, `explain.onnx` and `states.onnx`.

    The plain one is probegen's too: it has the fused operator, where tf2onnx writes loops.
    """
    import probegen as pg

    folder = Path(job["folder"])
    for name, probes in (("plain", []), ("explain", [pg.Saliency()]), ("states", [pg.States()])):
        gate = name != "plain"
        pg.compile(model, probes, folder / f"{name}.onnx", gate=gate, verify=False)
    return {}


STAGES = {
    "convert": convert,
    "compile": compile_saliency,
    "others": compile_others,
    "growth": compile_growth,
    "method": compile_method,
    "recurrent": compile_recurrent,
}


def main(arguments: Sequence[str]) -> None:
    """Carries out the stage given as JSON."""
    job = json.loads(arguments[0])
    model = subject(job["subject"]).build()
    figures = STAGES[job["stage"]](job, model)
    print(json.dumps({**figures, "peak": peak_bytes()}))


if __name__ == "__main__":
    main(sys.argv[1:])
