"""One contestant in a process of its own: loads, warms up, and times runs when told to.

Reads lines `N` on standard input and answers each with a JSON list of N run times in seconds;
`memory` is answered with the peak resident size in bytes. Between runs it sleeps in a read, so
that its threads do not disturb the other contestants.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2


def onnx_runner(job: dict[str, Any], feed: dict[str, Any]) -> Callable[[], Any]:
    """Runs an ONNX file; `explain` in the job sets the gate."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(job["path"], options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()} | {
        i.name for i in session.get_overridable_initializers()
    }
    inputs = {name: value for name, value in feed.items() if name in wanted}
    if "explain" in job:
        inputs["explain"] = np.array(job["explain"])
    return lambda: session.run(None, inputs)


def tensorflow_runner(job: dict[str, Any], feed: dict[str, Any]) -> Callable[[], Any]:
    """Saliency by TensorFlow's tape on the source model, eager or as a `tf.function`."""
    import keras
    import tensorflow as tf

    from bench.subjects import subject

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = subject(job["subject"]).build()
    logits = keras.Model(model.inputs, model.outputs)
    x = tf.convert_to_tensor(next(iter(feed.values())))

    def saliency(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = logits(x, training=False)
            best = tf.reduce_max(getattr(y, "_keras_logits", y), axis=-1)
        gradient = tape.gradient(best, x)
        return y, tf.reduce_max(tf.abs(gradient), axis=-1)

    run = saliency if job["eager"] else tf.function(saliency, autograph=False)
    return lambda: [v.numpy() for v in run(x)]


def xplique_runner(job: dict[str, Any], feed: dict[str, Any]) -> Callable[[], Any]:
    """Xplique's `Saliency` on the source model."""
    from xplique import attributions

    from bench.subjects import subject

    model = subject(job["subject"]).build()
    explainer = attributions.Saliency(model)
    x = next(iter(feed.values()))
    labels = np.eye(model.output_shape[-1], dtype="float32")[np.zeros(len(x), int)]
    return lambda: explainer(x, labels)


def peak_bytes() -> int:
    """Returns the peak resident size of this process, in bytes.

    Linux hands `ru_maxrss` on from the parent, so its own record is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        record = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(record.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


RUNNERS = {"onnx": onnx_runner, "tensorflow": tensorflow_runner, "xplique": xplique_runner}


def main() -> None:
    """Serves the job given as JSON in the first argument."""
    job = json.loads(sys.argv[1])
    with np.load(job["feed"]) as loaded:
        feed = {name: loaded[name] for name in loaded.files}
    run = RUNNERS[job["runner"]](job, feed)
    for _ in range(job.get("warmup", 3)):
        run()
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "memory":
            print(json.dumps({"peak": peak_bytes()}), flush=True)
            continue
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
