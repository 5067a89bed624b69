"""Graphs in memory, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from probegen.graph.core.marks import remove_marks
from probegen.graph.running import open_graph, session_options

Array = npt.NDArray[Any]


class Runner:
    """A model that onnxruntime runs.

    Attributes:
        inputs: name -> numpy element type of what is fed.
        outputs: names of what comes out.
    """

    def __init__(
        self, model: ir.Model | Path | bytes, *, as_written: bool = False, lean: bool = False
    ) -> None:
        """Opens a model.

        Args:
            model: the graph, from which marks are taken out, or a file as it is.
            as_written: fuse no operators. Quantised files are run so: fused into kernels of whole
                numbers, sums round another way, and a value next to an edge falls into the next
                step of the quantisation.
            lean: keep no copy of the weights in the order that kernels like best: of the witnesses
                of a large model each would have its own.
        """
        options = session_options()
        if as_written:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        if lean:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if isinstance(model, ir.Model):
            remove_marks(model)
            self._session = open_graph(model, options)
        else:
            self._session = ort.InferenceSession(
                str(model) if isinstance(model, Path) else model,
                options,
                providers=["CPUExecutionProvider"],
            )
        self.inputs = {i.name: _element(i.type) for i in self._session.get_inputs()}
        self.outputs = [o.name for o in self._session.get_outputs()]

    def run(self, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Array]:
        """Returns outputs, all of them or those of some names, on inputs of any element type."""
        fed = {
            name: np.asarray(np.asarray(feed[name]).astype(dtype), order="C")
            for name, dtype in self.inputs.items()
        }
        found: list[Array] = self._session.run(None if names is None else list(names), fed)
        return found


def _element(kind: str) -> Any:
    element = kind.removeprefix("tensor(").removesuffix(")")
    known = {"float": "float32", "double": "float64", "string": "object"}
    return np.dtype(known.get(element, element))
