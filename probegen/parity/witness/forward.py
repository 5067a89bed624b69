"""The forward pass as the source wrote it, with the values of all its tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from probegen.graph.core.marks import MARK_DOMAIN, remove_marks, without_marks
from probegen.graph.core.queries import QUANTISING, is_float
from probegen.graph.core.values import constant_of
from probegen.graph.forward import ForwardGraph
from probegen.graph.passes.after.round_noted_sums import round_noted_sums
from probegen.graph.passes.after.write_gelu import write_gelu
from probegen.graph.passes.after.write_out_doubles import write_out_doubles
from probegen.graph.running import open_graph
from probegen.graph.whole_numbers import read_own_floats
from probegen.parity.witness.evaluation import NodeEvaluator, wide
from probegen.sources.base import Noise

Array = npt.NDArray[Any]

#: What tells of a tensor how large it is, and not what is in it.
_SIZES = ("Shape", "Size")
#: Operators that make floating tensors of whole numbers or text, and the types of these. Truth
#: values say where something is.
_MAKES_FLOATS = ("Cast", "Gather", "GatherND", "OneHot", "OneHotEncoder")
_WHOLE = (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.INT8)
_CODES = (*_WHOLE, ir.DataType.STRING)


class ForwardValues:
    """Runs a forward graph, nearly as the source wrote it, and gives all its tensors.

    Attributes:
        graph: the graph, marks included.
        evaluate: evaluates single nodes of it.
    """

    def __init__(self, forward: ForwardGraph) -> None:
        self._forward = forward
        self.graph = forward.graph
        self.evaluate = NodeEvaluator(forward.opset)
        self._constants = {
            v: wide(known)
            for v in self.graph.initializers.values()
            if (known := constant_of(v)) is not None
        }
        self._sessions: dict[frozenset[str], onnxruntime.InferenceSession] = {}

    def at(
        self, feed: Mapping[str, Array], moved: Mapping[ir.Value, Array] | None = None
    ) -> dict[ir.Value, Array]:
        """Returns every tensor for some inputs; floating ones as float64.

        What is quantised is there in floats alone, so that it comes from the kernels that the
        model has without witnesses.

        Args:
            feed: the inputs.
            moved: tensors with another value than the graph computes.
        """
        by_name = {str(v.name): a for v, a in (moved or {}).items()}
        inputs = {str(v.name) for v in self.graph.inputs}
        session = self._session(frozenset(by_name) - inputs)
        fed = {
            i.name: np.asarray(by_name.get(i.name, feed.get(i.name))).astype(
                _element(i.type), order="C"
            )
            for i in session.get_inputs()
        }
        names = [o.name for o in session.get_outputs()]
        found = dict(zip(names, session.run(names, fed), strict=True)) | by_name
        values = dict(self._constants)
        for v in self.graph.inputs:
            name = str(v.name)
            values[v] = wide(np.asarray(by_name.get(name, feed.get(name))))
        for node in self.graph:
            marked = node.inputs[0] if node.domain == MARK_DOMAIN else None
            if marked in values and node.outputs[0].name not in by_name:
                values[node.outputs[0]] = values[marked]
                continue
            made = (v for v in node.outputs if v.name in found)
            values.update((v, wide(np.asarray(found[v.name]))) for v in made)
        return values

    def near(self, feed: Mapping[str, Array], noise: Noise | None) -> dict[ir.Value, Array]:
        """Returns every tensor, where those of `_first_floats` are moved."""
        values = self.at(feed)
        if noise is None:
            return values
        rng = np.random.default_rng(noise.draw)
        moved: dict[ir.Value, Array] = {}
        for value in self._first_floats:
            exact = np.asarray(values[value], np.float64)
            sizes = np.abs(exact)
            scale = sizes.max(initial=0.0) if noise.zeros else sizes
            drawn = rng.standard_normal(exact.shape)
            if noise.draw == 0:  # equal numbers alike
                each, of = np.unique(exact, return_inverse=True)
                drawn = rng.standard_normal(each.shape)[of].reshape(exact.shape)
            moved[value] = exact + noise.size * scale * drawn
        return self.at(feed, moved) if moved else values

    @functools.cached_property
    def _first_floats(self) -> list[ir.Value]:
        """The floating tensors that are made of whole numbers or text of inputs.

        Without those that whole numbers are made of again, which would be others.
        """
        fed, found = set(self.graph.inputs), list[ir.Value]()
        for node in self.graph:
            read = [v for v in node.inputs if v is not None and v in fed]
            if not read or node.op_type in _SIZES:
                continue
            fed.update(node.outputs)
            coded = all(v.dtype in _CODES for v in read)
            if coded and node.op_type in _MAKES_FLOATS and floating(node.outputs[0]):
                found.append(node.outputs[0])
        return [v for v in found if not self._becomes_whole(v)]

    def _becomes_whole(self, value: ir.Value) -> bool:
        """Tells whether whole numbers that something reads, and no sizes, hang on a tensor."""
        reached = {value}
        for node in self.graph:
            if node.op_type in _SIZES or reached.isdisjoint(node.inputs):
                continue
            if any(v.dtype in _WHOLE and v.uses() for v in node.outputs):
                return True
            reached.update(node.outputs)
        return False

    def _session(self, given: frozenset[str]) -> onnxruntime.InferenceSession:
        """Returns a session of the graph, in which some inner tensors are inputs."""
        if given not in self._sessions:
            self._sessions[given] = self._opened(given)
        return self._sessions[given]

    def _opened(self, given: frozenset[str]) -> onnxruntime.InferenceSession:
        model = self._forward.model.clone()
        write_gelu(model)
        write_out_doubles(model)
        round_noted_sums(model)
        graph = model.graph
        predictions = list(graph.outputs)[: len(self._forward.predictions)]
        graph.outputs[:] = []
        fed_instead = [v for n in graph for v in n.outputs if v.name and v.name in given]
        for value in fed_instead:
            fed = ir.Value(name=value.name, type=value.type)
            value.replace_all_uses_with(fed)
            value.name = f"{value.name}/computed"
            graph.inputs.append(fed)
        # onnxruntime knows no marks: each is its first input. Kernels of whole numbers are found
        # where nothing stands between their nodes.
        predictions = [without_marks(v) for v in predictions]
        remove_marks(model)
        floats = (node for node in graph if node.op_type not in QUANTISING)
        made = [v for node in floats for v in node.outputs if v.name]
        graph.outputs[:] = [v for v in made if v not in fed_instead]
        read_own_floats(graph, predictions)
        return open_graph(model)


_ELEMENTS = {"float": "float32", "double": "float64", "bfloat16": "uint16", "string": "object"}


def _element(kind: str) -> Any:
    element = kind.removeprefix("tensor(").removesuffix(")")
    return np.dtype(_ELEMENTS.get(element, element))


def floating(value: ir.Value | None) -> bool:
    """Tells whether a value is there and holds floating numbers."""
    return value is not None and is_float(value)
