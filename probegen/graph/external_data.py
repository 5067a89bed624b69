"""Moves the large weights of a finished model into a file beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.artefact.weights_file import HEADER_BYTES, METADATA_KEY, ExternalData, data_path
from probegen.errors import ExportError

#: What protobuf can hold, and what is left of it for everything but tensors.
PROTOBUF_LIMIT = 2**31 - 1
_ROOM = 2**26
#: Smaller tensors stay in the model, where shape inference finds them.
_SMALLEST = 1024
#: Large tensors start where every system can map a file into memory, the others at cache lines.
_LARGE, _LARGE_ALIGNMENT, _ALIGNMENT = 2**20, 2**16, 2**6


def wants_external_data(model: ir.Model, asked: bool | None) -> bool:
    """Decides whether a model's weights go into a file of their own.

    Args:
        model: the finished model.
        asked: True and False decide; None leaves it to the size.

    Raises:
        ExportError: False was asked, and the model does not fit into one file.
    """
    size = weight_bytes(model)
    fits = size <= PROTOBUF_LIMIT - _ROOM
    if asked is False and not fits:
        raise ExportError(
            f"the model's weights take {size / 1e9:.2f} GB, and protobuf's limit for one ONNX "
            f"file is {PROTOBUF_LIMIT / 1e9:.2f} GB. Leave external_data=False "
            "(--no-external-data) out, and they are written to a second file beside it."
        )
    return not fits if asked is None else asked


def weight_bytes(model: ir.Model) -> int:
    """Returns what all weights of a model take, wherever they lie."""
    return sum(map(_bytes, _tensors(model)))


def fits_one_message(model: ir.Model) -> bool:
    """Tells whether protobuf holds a model as it lies in memory, weights in files left out."""
    inside = (t for t in _tensors(model) if not isinstance(t, ir.ExternalTensor))
    return sum(map(_bytes, inside)) <= PROTOBUF_LIMIT - _ROOM


def take_out_weights(model: ir.Model) -> dict[str, npt.NDArray[Any]]:
    """Takes the large weights that lie in memory out of a model, which then fits one message.

    They look like weights in a file that there is not. Those of graphs within the model's become
    weights of the model's own graph: onnxruntime takes no others from outside.

    Returns:
        Name of a weight -> its content, not copied.
    """
    taken: dict[str, npt.NDArray[Any]] = {}
    main = model.graph
    for value in list(_initializers(model)):
        tensor = value.const_value
        if tensor is None or isinstance(tensor, ir.ExternalTensor) or _bytes(tensor) < _LARGE:
            continue
        place = value
        if value.graph is not main:
            if value.is_graph_output():
                continue
            name = f"probegen/outside_{len(taken)}"
            place = ir.Value(name=name, type=value.type, shape=value.shape, const_value=tensor)
            main.register_initializer(place)
            value.replace_all_uses_with(place)
        name = str(place.name)
        taken[name] = np.asarray(tensor.numpy(), order="C")
        shape = ir.Shape(tensor.shape.numpy())
        place.const_value = ir.ExternalTensor(
            "in memory", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name, base_dir=""
        )
        if place is not value and value.graph is not None:
            value.graph.initializers.pop(str(value.name))
    return taken


def write_external_data(model: ir.Model, path: Path) -> ExternalData:
    """Writes the weights to `path` + `.data`, and refers to them in the model.

    The model keeps no weights in memory after that, and can be saved at `path` as often as
    needed. It says in its metadata which data it needs.

    Args:
        model: the finished model; changed in place.
        path: where the model is to be saved; the folder exists.
    """
    place = data_path(path)
    offsets: list[tuple[ir.Value, ir.TensorProtocol, int]] = []
    with place.open("w+b") as file:
        file.write(bytes(HEADER_BYTES))
        for value in _initializers(model):
            tensor = value.const_value
            if tensor is None or _bytes(tensor) < _SMALLEST:
                continue
            alignment = _LARGE_ALIGNMENT if tensor.nbytes >= _LARGE else _ALIGNMENT
            file.write(bytes(-file.tell() % alignment))
            offsets.append((value, tensor, file.tell()))
            _write(tensor, file)
        size = file.tell()
        file.seek(HEADER_BYTES)
        data = ExternalData(place.name, size, hashlib.file_digest(file, "sha256").hexdigest())
        file.seek(0)
        file.write(data.header())
    for value, tensor, offset in offsets:
        value.const_value = ir.ExternalTensor(
            place.name,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
            base_dir=place.parent,
        )
    model.metadata_props[METADATA_KEY] = data.to_json()
    return data


def read_small_weights(model: ir.Model, whole: int) -> None:
    """Reads weights that lie in files: all where they take no more than `whole`, else small ones.

    A model that is handed over in memory has no path, without which onnxruntime's optimiser reads
    no file: it fails on the first weight that it wants to fold into another.
    """
    tensors = list(external_tensors(model))
    limit = whole if sum(map(_bytes, tensors)) <= whole else _LARGE
    for value in _initializers(model):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and _bytes(tensor) <= limit:
            value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Yields the initializers whose bytes lie in files."""
    for value in _initializers(model):
        if isinstance(value.const_value, ir.ExternalTensor):
            yield value.const_value


def bring_inside(model: ir.Model, path: Path) -> None:
    """Reads all weights that lie in files of others, such as the one beside the source model.

    An artefact needs no file but its own: `path` + `.data`, where that was written.

    Args:
        model: the finished model; changed in place.
        path: where it is to be saved.
    """
    own = data_path(path)
    for value in _initializers(model):
        value.const_value = _inside(value.const_value, own)
    for node, name, tensor in _held_by_nodes(model):
        if isinstance(tensor, ir.ExternalTensor):
            node.attributes[name] = ir.AttrTensor(name, _read(tensor))


def _inside(tensor: ir.TensorProtocol | None, own: Path) -> ir.TensorProtocol | None:
    if not isinstance(tensor, ir.ExternalTensor) or Path(tensor.path) == own:
        return tensor
    return _read(tensor)


def _read(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _bytes(tensor: ir.TensorProtocol | None) -> int:
    """Returns the size of a tensor; strings, which cannot lie in a data file, count nothing."""
    return 0 if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.nbytes


def _write(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    """Writes the bytes of a tensor, without a copy of them where it holds an array."""
    if isinstance(tensor, ir.Tensor):
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    """Yields the initializers of the graph and of those within it."""
    for graph in model.graphs():
        yield from graph.initializers.values()


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol | None]:
    """Yields the initializers, and the tensors that nodes hold, which stay in the model."""
    yield from (value.const_value for value in _initializers(model))
    yield from (tensor for _, _, tensor in _held_by_nodes(model))


def _held_by_nodes(model: ir.Model) -> Iterator[tuple[ir.Node, str, ir.TensorProtocol]]:
    """Yields nodes, the name of an attribute, and the tensor that it is."""
    for graph in model.graphs():
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR:
                    yield node, name, attribute.as_tensor()
