"""ONNX files: opened with their weights left where they lie, and what to do where that fails."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.errors import SourceError
from probegen.sources.onnx.zip_map import cut_maps

#: What a model may be given as.
Source = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model

#: What a source was before anything was done to it.
Original = Path | bytes | ir.Model

_OTHER_FORMATS: Mapping[tuple[int, bytes], str] = {
    (0, b"PK\x03\x04"): "a zip archive, as Keras (.keras) and PyTorch (.pt) write them",
    (0, b"\x89HDF\r\n"): "an HDF5 file, as Keras writes it (.h5)",
    (4, b"ORTM"): "onnxruntime's own format (.ort)",
    (4, b"TFL3"): "a TensorFlow Lite model",
    (0, b"\x80\x02"): "a Python pickle, as older PyTorch writes it",
    (0, b"version https://git-lfs"): "the pointer of a file that Git LFS has not fetched",
    (0, b"<?xml"): "XML, as OpenVINO writes it",
}
_KERAS = "A Keras model is given as the object, or by its .keras or .h5 path."


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model that was opened.

    Attributes:
        model: may be changed.
        original: what onnxruntime opens: a path, the bytes of a file, or a model that is neither
            (its weights lie elsewhere, or are more than one file can hold); never changed.
        notes: what was changed on opening, as sentences.
    """

    model: ir.Model
    original: Original
    notes: tuple[str, ...] = ()


def load(source: Source) -> Opened:
    """Opens an ONNX model; weights in other files stay there until they are read.

    Args:
        source: a path, the bytes of a file, or a model of onnx or onnx-ir, which is left as it is.

    Raises:
        SourceError: there is no such file, it is no ONNX model, its weights' file is missing or
            too short, it is an artefact of probegen, or it has inputs or outputs that are no
            tensors.
    """
    if isinstance(source, ir.Model):
        return _from_ir(source)
    if isinstance(source, onnx.ModelProto):
        return _from_proto(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), "the given bytes")
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source))
    raise SourceError(
        f"an ONNX model is given as a path, as bytes, as an onnx.ModelProto or as an "
        f"onnx_ir.Model; this is of type {type(source).__name__}."
    )


def _from_path(path: Path) -> Opened:
    named = repr(str(path))
    if path.is_dir():
        raise SourceError(
            f"{named} is a folder; expected an ONNX file. Give the path of the .onnx file in it."
        )
    if not path.is_file():
        raise SourceError(f"there is no model file {named}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{named} cannot be read: {error.strerror or error}.") from error
    proto = _parsed(content, named)
    notes = cut_maps(proto)
    model = _deserialised(proto, named)
    _find_weights(model, path.resolve().parent, named)
    return Opened(model, model.clone() if notes else path, tuple(notes))


def _from_bytes(content: bytes, named: str) -> Opened:
    proto = _parsed(content, named)
    notes = cut_maps(proto)
    model = _deserialised(proto, named)
    _refuse_external(model, named)
    return Opened(model, model.clone() if notes else content, tuple(notes))


def _from_proto(source: onnx.ModelProto) -> Opened:
    """Opens a message; one of more than 2 GB has no bytes, and is copied."""
    named, content = "the onnx.ModelProto", _serialised(source)
    if content is not None:
        return _from_bytes(content, named)
    proto = onnx.ModelProto()
    proto.CopyFrom(source)
    notes = cut_maps(proto)
    model = _deserialised(proto, named)
    _refuse_external(model, named)
    return Opened(model, model.clone(), tuple(notes))


def _serialised(proto: onnx.ModelProto) -> bytes | None:
    """Returns the bytes of a message, None where protobuf cannot write that many."""
    try:
        content: bytes = proto.SerializeToString(deterministic=True)
    except Exception:  # of several types, none of them documented
        return None
    return content


def _refuse_external(model: ir.Model, named: str) -> None:
    """Refuses weights in files of which nobody knows where they are.

    Raises:
        SourceError: there are any.
    """
    outside = next(_external(model), None)
    if outside is not None:
        raise SourceError(
            f"the weight {outside.name!r} of {named} lies in another file, "
            f"{str(outside.location)!r}, and nothing says in which folder. Give the path of the "
            ".onnx file instead."
        )


def _from_ir(model: ir.Model) -> Opened:
    named = "the onnx_ir.Model"
    for tensor in _external(model):
        _check_weights(tensor, Path(tensor.base_dir), named)
    copy = model.clone()
    _check_contents(copy, named)
    return Opened(copy, model.clone())


def _parsed(content: bytes, named: str) -> onnx.ModelProto:
    if not content:
        raise SourceError(f"{named} is empty; expected an ONNX model.")
    other = next(
        (kind for (at, magic), kind in _OTHER_FORMATS.items() if content.startswith(magic, at)),
        None,
    )
    if other is not None:
        keras = f" {_KERAS}" if "Keras" in other else ""
        raise SourceError(f"{named} is no ONNX model but {other}.{keras}")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except Exception as error:
        raise SourceError(
            f"{named} is no ONNX model, or the file is cut short or damaged."
        ) from error
    return proto


def _deserialised(proto: onnx.ModelProto, named: str) -> ir.Model:
    if not proto.HasField("graph") or not proto.opset_import:
        raise SourceError(
            f"{named} is no ONNX model, or the file is cut short: it holds no graph, or says of "
            "no operator set which version it is written in."
        )
    if not proto.graph.output:
        raise SourceError(f"{named} has no outputs; there is nothing to explain.")
    _make_dense(proto)
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:
        raise SourceError(f"{named} is no valid ONNX model: {_told(error)}") from error
    _check_contents(model, named)
    return model


def _check_contents(model: ir.Model, named: str) -> None:
    """Refuses what has been compiled already, and a graph of which something is missing.

    Raises:
        SourceError: the model is an artefact of probegen, or reads what nothing gives.
    """
    if ONNX_METADATA_KEY in model.metadata_props:
        raise SourceError(
            f"{named} is an artefact that probegen compiled already. Compile the model that it "
            "was made from, or load it with probegen.runtime.load."
        )
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is not None and value.name and _comes_from_nowhere(value):
                raise SourceError(
                    f"{named} is no valid ONNX model: node {node.name or node.op_type!r} reads "
                    f"{value.name!r}, which is no input, no stored weight and no node's output."
                )


def _comes_from_nowhere(value: ir.Value) -> bool:
    made = value.producer() is not None or value.is_graph_input()
    return not made and not value.is_initializer()


def _told(error: Exception) -> str:
    """Returns what an exception of another library says, on one line."""
    cause = error.__cause__ or error
    said = " ".join(str(cause).split())[:300] or type(cause).__name__
    return said if said.endswith(".") else f"{said}."


# -- weights --------------------------------------------------------------------------------


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Yields the tensors whose bytes lie in other files."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
    nodes = [model.graph.all_nodes(), *(f.all_nodes() for f in model.functions.values())]
    for node in itertools.chain.from_iterable(nodes):
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                tensors = [attribute.as_tensor()]
            elif attribute.type == ir.AttributeType.TENSORS:
                tensors = list(attribute.as_tensors())
            else:
                continue
            yield from (t for t in tensors if isinstance(t, ir.ExternalTensor))


def _find_weights(model: ir.Model, folder: Path, named: str) -> None:
    for tensor in _external(model):
        tensor.base_dir = folder
        _check_weights(tensor, folder, named)


def _check_weights(tensor: ir.ExternalTensor, folder: Path, named: str) -> None:
    """Checks that the file of a weight is there and long enough.

    Raises:
        SourceError: it is not, or lies outside the folder, where onnxruntime reads nothing.
    """
    location = os.fspath(tensor.location)
    weight = f"the weight {tensor.name!r} of {named}"
    place = Path(os.path.normpath(folder / location))
    if not place.is_relative_to(os.path.normpath(folder)):
        raise SourceError(
            f"{weight} is said to lie in {location!r}, outside the model's folder. onnxruntime "
            "reads weights from that folder alone: put the file beside the model."
        )
    if not place.is_file():
        raise SourceError(
            f"{weight} lies in the file {location!r}, which is not there; expected it at "
            f"{str(place)!r}. Put it beside the model, under the name that it was exported with."
        )
    start, size = tensor.offset or 0, place.stat().st_size
    end = start + (tensor.length or tensor.nbytes)
    if end > size:
        raise SourceError(
            f"{weight} ends at byte {end} of {location!r}, which has {size} bytes only: the file "
            "is cut short, or belongs to another model."
        )


def _make_dense(proto: onnx.ModelProto) -> None:
    """Writes sparse weights out: onnx-ir knows none."""
    for graph in _graphs(proto.graph):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(
                onnx.numpy_helper.from_array(dense(sparse), name=sparse.values.name)
            )
        del graph.sparse_initializer[:]
        for node in graph.node:
            _make_constant_dense(node)
    for function in proto.functions:
        for node in function.node:
            _make_constant_dense(node)


def _make_constant_dense(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
            tensor = onnx.numpy_helper.from_array(dense(attribute.sparse_tensor))
            attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def dense(sparse: onnx.SparseTensorProto) -> npt.NDArray[np.generic]:
    """Returns a sparse tensor written out.

    Its indices are positions in the flat tensor (`[entries]`), or one an axis
    (`[entries, rank]`).
    """
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    whole = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 2:
        whole[tuple(indices.T)] = values
    else:
        whole.reshape(-1)[indices] = values
    return whole


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for inner in attribute.graphs:
                    yield from _graphs(inner)
