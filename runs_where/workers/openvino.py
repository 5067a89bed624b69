"""OpenVINO on the CPU, in float32, as somebody runs it who has that package alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino

from runs_where.exchange import Array, work

#: Else it computes in bfloat16 where the processor can.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}


def opener(options: Mapping[str, Any]) -> Any:
    """Returns what runs a model; see `runs_where.exchange.Opener`."""
    del options
    core = openvino.Core()

    @functools.cache
    def compiled(path: str) -> Any:
        return core.compile_model(core.read_model(path), "CPU", _EXACT)

    def run(path: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        model = compiled(path)
        inputs = {name: port for port in model.inputs for name in port.get_names()}
        outputs = {name: port for port in model.outputs for name in port.get_names()}
        for name in feeds:
            if name not in inputs:
                raise ValueError(f"the compiled model has no input {name!r}")
        found = model({inputs[name]: array for name, array in feeds.items()})
        return {name: np.array(found[port]) for name, port in outputs.items()}

    return run


if __name__ == "__main__":
    work(lambda _: f"OpenVINO {openvino.__version__.split('-')[0]}", opener)
