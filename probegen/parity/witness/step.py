"""One node on the way back, and what is raised where it has no rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.parity.witness.evaluation import NodeEvaluator

Array = npt.NDArray[Any]


class Unknown(Exception):  # noqa: N818 - an answer, not a failure of the program
    """Raised where a node has no rule here; says why."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One node on the way back.

    Attributes:
        node: the node.
        inputs: its inputs, floating ones as float64; None where one is left out.
        outputs: its outputs, likewise.
        evaluate: evaluates the node.
        values: all tensors that are known where the node stands.
    """

    node: ir.Node
    inputs: list[Any]
    outputs: list[Any]
    evaluate: NodeEvaluator
    values: Mapping[ir.Value, Any] = dataclasses.field(default_factory=dict)

    @property
    def x(self) -> Array:
        """The first input."""
        return np.asarray(self.inputs[0])

    @property
    def y(self) -> Array:
        """The first output."""
        return np.asarray(self.outputs[0])

    def at(self, changed: Mapping[int, Array]) -> Array:
        """Returns the first output with other inputs."""
        arrays = [changed.get(i, a) for i, a in enumerate(self.inputs)]
        return np.asarray(self.evaluate(self.node, arrays)[0])
