"""What a source hands to the graph side: its forward pass, and which value is what in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.plan.plan import TensorRef


@dataclasses.dataclass
class ForwardGraph:
    """The forward pass as ONNX, with everything a plan needs as outputs of the graph.

    Those are read from the graph each time: a pass may put another value in the place of one.

    Attributes:
        model: the ONNX model; its graph outputs are, in order, the predictions, the plain
            outputs and a target value a group.
        counts: the numbers of predictions and of plain outputs.
        sources: the tensors at which gradients are taken.
        layer_of: returns the path of the layer that a node, given by its name, came from, or `""`.
        kept: how many outputs stand behind these, so that what they are is kept: tensors that
            gradients are taken of, and that nothing else reads.
        afterwards: output name -> what is written behind the explanation that it gives.
        elsewhere: what else than ONNX would take what has no gradient here, `""` if nothing.
    """

    model: ir.Model
    counts: tuple[int, int]
    sources: dict[TensorRef, ir.Value]
    layer_of: Callable[[str], str]
    elsewhere: str = ""
    kept: int = 0
    afterwards: Mapping[str, Callable[[Builder, ir.Value], ir.Value]] = dataclasses.field(
        default_factory=dict
    )

    @property
    def graph(self) -> ir.Graph:
        """The graph."""
        return self.model.graph

    @property
    def opset(self) -> int:
        """The operator set that the graph is written in."""
        return self.graph.opset_imports[""]

    @property
    def predictions(self) -> list[ir.Value]:
        """The values of the predictions."""
        return list(self.graph.outputs)[: self.counts[0]]

    @property
    def plain(self) -> list[ir.Value]:
        """The values of outputs without gradients, in the plan's order."""
        return list(self.graph.outputs)[self.counts[0] : sum(self.counts)]

    @property
    def targets(self) -> list[ir.Value]:
        """For each group of the plan, the scores or the callable's value."""
        outputs = list(self.graph.outputs)
        return outputs[sum(self.counts) : len(outputs) - self.kept]


def open_size(name: str, axis: int) -> str:
    """Returns what the open size of an input's axis behind the batch is called."""
    return f"{name}_size_{axis}"
