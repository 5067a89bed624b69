"""Graphs in memory, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import common

from probegen.graph.core.marks import remove_marks
from probegen.graph.passes.after.write_vectors_as_columns import faults_with_vectors
from probegen.graph.running import open_graph, session_options
from probegen.graph.whole_numbers import read_own_floats
from probegen.runtime.engines.onnxruntime_faults import disabled_optimizers

Array = npt.NDArray[Any]


class Runner:
    """A model that onnxruntime runs.

    Attributes:
        inputs: name -> numpy element type of what is fed.
        outputs: names of what comes out.
    """

    def __init__(
        self,
        model: ir.Model | Path | bytes,
        *,
        predictions: Sequence[ir.Value] = (),
        lean: bool = False,
        without: Sequence[str] = (),
        joined: bool = True,
    ) -> None:
        """Opens a model.

        Args:
            model: the graph, from which marks are taken out, or a file as it is.
            predictions: values of the graph that are what the file predicts, among its outputs
                or not. What else is taken from a quantised one then leaves them the kernels of
                whole numbers that they have in the file (see `graph.whole_numbers`).
            lean: keep no copy of the weights in the order that kernels like best: of the witnesses
                of a large model each would have its own.
            without: what onnxruntime must not rewrite, by its names.
            joined: whether it may rewrite anything at all.
        """
        options = session_options()
        if not joined:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if lean:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if isinstance(model, ir.Model):
            remove_marks(model)
            if predictions and model.graph.outputs:
                read_own_floats(model.graph, predictions)
                common.RemoveUnusedNodesPass()(model)
            without = [*without, *faults_with_vectors(model.graph)]
            self._session = open_graph(model, options, without=without)
        else:
            self._session = ort.InferenceSession(
                str(model) if isinstance(model, Path) else model,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=[*without, *(disabled_optimizers(model) or ())],
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
