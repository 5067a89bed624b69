"""Reads any ONNX file: what comes out is ready for the walk, and tells where it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx_ir as ir

from probegen.errors import SourceError
from probegen.graph.external_data import weight_bytes
from probegen.sources.onnx.element_types import check_element_types
from probegen.sources.onnx.loading import Original, Source, load
from probegen.sources.onnx.names import origins
from probegen.sources.onnx.simplify import WRITTEN_OUT, simplify

#: Bytes of weights.
_LARGE = 2**28


@dataclasses.dataclass(frozen=True)
class OnnxModel:
    """An ONNX model that is ready for the walk.

    Attributes:
        model: the prepared model: standard operators of opset 18 or later, functions written out,
            what constants and shapes decide computed, shapes inferred. Its inputs and outputs have
            the file's names and order; a value of the file that still exists has its name.
        original: what onnxruntime opens to verify against: a path, the bytes of a file, or a
            graph, which nobody changes.
        opset: of the standard operators of the prepared model.
        notes: sentences for the manifest.
        node_names: name of a node of the prepared model -> names of the nodes of the file that it
            came from; those of functions stand behind the names of their calls.
    """

    model: ir.Model
    original: Original
    opset: int
    notes: tuple[str, ...]
    node_names: Mapping[str, tuple[str, ...]]

    @property
    def is_large(self) -> bool:
        """Tells whether each further copy of the weights in memory is one too many."""
        return weight_bytes(self.model) > _LARGE


def read_onnx(source: Source, ranks: Mapping[str, int] | None = None) -> OnnxModel:
    """Reads an ONNX model.

    Args:
        source: a path, the bytes of a file, an `onnx.ModelProto` or an `onnx_ir.Model`; left as
            it is.
        ranks: input -> how many axes it has, where the file does not say.

    Raises:
        SourceError: this is no ONNX model, its weights are missing, it holds what has no form
            in standard operators, or nobody says how many axes an input has.
    """
    opened = load(source)
    _give_axes(opened.model.graph, ranks or {})
    model, notes = opened.model, (*opened.notes, *simplify(opened.model))
    original = opened.original
    if WRITTEN_OUT in notes:
        original = model.clone()
    check_element_types(model, original)
    return OnnxModel(
        model=model,
        original=original,
        opset=model.opset_imports[""],
        notes=notes,
        node_names=origins(model),
    )


def _give_axes(graph: ir.Graph, ranks: Mapping[str, int]) -> None:
    """Gives inputs of which a file says no sizes as many open axes as they are said to have."""
    for value in graph.inputs:
        if value.shape is not None:
            continue
        rank = ranks.get(str(value.name))
        if rank is None:
            raise SourceError(
                f"how many axes the input {value.name!r} has is not known: the file says no sizes. "
                f"Name its axes, for instance inputs={{{str(value.name)!r}: 'batch,feature'}}."
            )
        value.shape = ir.Shape([None] * rank)
