"""What is said between the program and its workers: JSON, with tensors as bytes in base 64.

Workers in JavaScript speak it too, so it is nothing that only numpy reads. A job is
`{"options": {...}, "requests": [{"model": path, "feeds": {name: tensor}}]}`, an answer
`{"versions": text, "answers": [{name: tensor}]}`, or `{"versions": text, "refused": words}` where
the runtime will not have the model.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
#: Given options, returns what runs a model: its path and feeds -> its outputs, by name.
Opener = Callable[[Mapping[str, Any]], Callable[[str, Mapping[str, Array]], Mapping[str, Array]]]


def tensor(array: Array) -> dict[str, Any]:
    """Returns an array as JSON values."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def array(given: Mapping[str, Any]) -> Array:
    """Returns the array that `tensor` wrote."""
    flat = np.frombuffer(base64.b64decode(given["data"]), given["dtype"])
    return flat.reshape(given["shape"]).copy()  # OpenVINO writes to what it is fed, or refuses


def arrays(given: Mapping[str, Any]) -> dict[str, Array]:
    """Returns tensors by name as arrays."""
    return {name: array(value) for name, value in given.items()}


def tensors(given: Mapping[str, Array]) -> dict[str, Any]:
    """Returns arrays by name as JSON values."""
    return {name: tensor(np.asarray(value)) for name, value in given.items()}


def answer(job: Mapping[str, Any], versions: str, opener: Opener) -> dict[str, Any]:
    """Carries out a job.

    Args:
        job: options and requests, see above.
        versions: what runs.
        opener: see `Opener`. Whatever it raises, and what it returns raises, is the runtime's
            refusal.
    """
    said: dict[str, Any] = {"versions": versions}
    try:
        run = opener(job["options"])
        said["answers"] = [
            tensors(run(request["model"], arrays(request["feeds"]))) for request in job["requests"]
        ]
    except Exception as error:  # whatever a runtime raises is what it says
        said["refused"] = str(error)
    return said


def work(versions: Callable[[Mapping[str, Any]], str], opener: Opener) -> None:
    """Carries out the job whose file the command line names, and writes the answer.

    Args:
        versions: given the options, says what runs.
        opener: see `Opener`.
    """
    job = json.loads(Path(sys.argv[1]).read_text())
    said = answer(job, versions(job["options"]), opener)
    Path(sys.argv[2]).write_text(json.dumps(said))
