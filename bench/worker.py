"""One contestant in a process of its own: loads, warms up, and times runs when told to.

Prints `ready`, or why it cannot run, and ends. Then reads lines `N` on standard input and answers
each with a JSON list of N run times in seconds; `memory` is answered with the peak resident size
in bytes, and with that before loading. Between runs it sleeps in a read, so that its threads do
not disturb the other contestants.

`threads` in a job says how many it may use, `THREADS` without it; with `cpu` the time of the
processor is counted and not that on the wall.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2


def make_session(path: str, profile: str | None = None, threads: int = THREADS) -> Any:
    """Returns an onnxruntime session on CPU; `profile` starts the file its profile goes to.

    Its workers spin for a moment after a run, as by default; `bench.race` rests between turns.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def select_inputs(session: Any, feed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of `feed` that the session takes."""
    wanted = {i.name for i in session.get_inputs()}
    return {name: value for name, value in feed.items() if name in wanted}


def onnx_runner(job: dict[str, Any], feed: dict[str, Any]) -> Callable[[], Any]:
    """Runs an ONNX file; `explain` in the job sets the gate, which is on without it."""
    session = make_session(job["path"], threads=_threads(job))
    inputs = select_inputs(session, {**feed, "explain": np.array(job.get("explain", True))})
    return lambda: session.run(None, inputs)


def tensorflow_runner(job: dict[str, Any], feed: dict[str, Any]) -> Callable[[], Any]:
    """Prediction and saliency by TensorFlow's tape on the source model, eager or `tf.function`.

    A model of tokens is differentiated at its embedding's output, as the artefact is.
    """
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(_threads(job))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = _source(job)
    x = tf.convert_to_tensor(next(iter(feed.values())))
    embed, rest = (lambda x: x), model
    if not x.dtype.is_floating:
        embed = next(layer for layer in model.layers if isinstance(layer, keras.layers.Embedding))
        rest = keras.Model(embed.output, model.outputs)

    def saliency(x: Any) -> Any:
        at = embed(x)
        with tf.GradientTape() as tape:
            tape.watch(at)
            y = rest(at, training=False)
            y = y[0] if isinstance(y, list) else y
            best = tf.reduce_max(getattr(y, "_keras_logits", y), axis=-1)
        gradient = tape.gradient(best, at)
        return y, tf.reduce_max(tf.abs(gradient), axis=-1)

    run = saliency if job["eager"] else tf.function(saliency, autograph=False)
    return lambda: [v.numpy() for v in run(x)]


def xplique_runner(job: dict[str, Any], feed: dict[str, Any]) -> Callable[[], Any]:
    """Prediction, and an attribution of the predicted class, on the source model.

    `method` in the job is Xplique's class and its arguments; `Saliency` without it.
    """
    import tensorflow as tf
    from xplique import attributions

    tf.config.threading.set_intra_op_parallelism_threads(_threads(job))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    x = _images(feed)
    model = _source(job)
    kind, arguments = job.get("method", ("Saliency", {}))
    explainer = getattr(attributions, kind)(model, **{"batch_size": len(x), **arguments})

    def run() -> Any:
        y = model(x, training=False)
        return y.numpy(), explainer(x, tf.one_hot(tf.argmax(y, -1), y.shape[-1]))

    return run


#: The models of torchvision that are built as those of `keras.applications` are.
TORCHVISION = {
    "ResNet50": "resnet50",
    "VGG16": "vgg16",
    "DenseNet121": "densenet121",
    "MobileNetV2": "mobilenet_v2",
    "EfficientNetB0": "efficientnet_b0",
    "ConvNeXtTiny": "convnext_tiny",
}


def captum_runner(job: dict[str, Any], feed: dict[str, Any]) -> Callable[[], Any]:
    """Prediction, and an attribution of the predicted class, on torchvision's model.

    `method` in the job is captum's class, its arguments and those of `attribute`; `Saliency`
    without it.
    """
    import torch
    import torchvision
    from captum import attr

    if job["subject"] not in TORCHVISION:
        raise ValueError(f"torchvision has no {job['subject']}")
    torch.set_num_threads(_threads(job))
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(_images(feed), -1, 1)))
    x.requires_grad_()
    model = _with_own_rectifiers(
        getattr(torchvision.models, TORCHVISION[job["subject"]])(weights=None).eval()
    )
    kind, own, more = job.get("method", ("Saliency", {}, {}))
    more = {k: tuple(v) if isinstance(v, list) else v for k, v in more.items()}
    explainer = getattr(attr, kind)(model, **own)

    def run() -> Any:
        with torch.no_grad():
            y = model(x)
        gradient = explainer.attribute(x, target=y.argmax(-1), **more)
        return y.numpy(), gradient.amax(1).detach().numpy()

    return run


def _with_own_rectifiers(model: Any) -> Any:
    """Returns a model of torch in which no ReLU is called twice or works in place.

    Captum puts its rules on modules, and a module can have one.
    """
    import torch

    traced = torch.fx.symbolic_trace(model)
    for number, node in enumerate(traced.graph.nodes):
        if node.op == "call_module" and isinstance(
            traced.get_submodule(node.target), torch.nn.ReLU
        ):
            node.target = f"rectifier_{number}"
            traced.add_submodule(node.target, torch.nn.ReLU())
    traced.recompile()
    return traced


def _threads(job: Mapping[str, Any]) -> int:
    return int(job.get("threads", THREADS))


def _source(job: dict[str, Any]) -> Any:
    from bench.subjects import subject

    return subject(job["subject"]).build()


def _images(feed: dict[str, Any]) -> Any:
    x = next(iter(feed.values()))
    if x.ndim != 4:
        raise ValueError("this peer is timed on images alone")
    return x


def peak_bytes() -> int:
    """Returns the peak resident size of this process, in bytes.

    Linux hands `ru_maxrss` on from the parent, so its own record is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        record = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(record.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


RUNNERS = {
    "onnx": onnx_runner,
    "tensorflow": tensorflow_runner,
    "xplique": xplique_runner,
    "captum": captum_runner,
}


def main() -> None:
    """Serves the job given as JSON in the first argument."""
    job = json.loads(sys.argv[1])
    with np.load(job["feed"]) as loaded:
        feed = {name: loaded[name] for name in loaded.files}
    if job["runner"] == "onnx":
        import onnxruntime  # noqa: F401  (not part of what the model takes)
    base = peak_bytes()
    try:
        run = RUNNERS[job["runner"]](job, feed)
        for _ in range(job.get("warmup", 2)):
            run()
    except Exception as error:  # a peer may fail in any way; the reason is printed by the race
        print(f"{type(error).__name__}: {str(error).splitlines()[:1]}", flush=True)
        return
    print("ready", flush=True)
    clock = time.process_time if job.get("cpu") else time.perf_counter
    for line in sys.stdin:
        if line.strip() == "memory":
            print(json.dumps({"peak": peak_bytes(), "base": base}), flush=True)
        else:
            print(json.dumps([timed(run, clock) for _ in range(int(line))]), flush=True)


def timed(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Returns how long a run takes by a clock, in seconds."""
    start = clock()
    run()
    return clock() - start


if __name__ == "__main__":
    main()
