"""A graph that is being drawn: nodes are added, tried in onnxruntime, and taken back if refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fuzz.drawing import Draw

Array = npt.NDArray[Any]

#: Operator sets that graphs are drawn in.
OPSETS = (*range(7, 25),)
#: What they compute in, by how often.
_DTYPES = ("float32",) * 16 + ("float64",) * 3 + ("float16",) * 2
#: The domain of functions that a graph brings along, and that of onnxruntime's own operators.
FUNCTIONS, MICROSOFT = "fuzz", "com.microsoft"
#: The two feeds that nodes are tried on: samples, and what open sizes are.
_TRIALS = ((2, 6), (3, 7))
#: Elements of a sample in one tensor.
_MOST = 300
#: How often a weight of a shape that is there already is read again.
_SHARED = 0.2


class NotHereError(Exception):
    """A node cannot stand here; another one is drawn."""


@dataclasses.dataclass(frozen=True)
class Input:
    """An input: its sizes behind the batch, None where open, and the whole numbers it may hold.

    Attributes:
        name: what it is called.
        dtype: numpy's name of its element type.
        sizes: without the batch.
        low, high: the least whole number, and the one behind the largest.
    """

    name: str
    dtype: str
    sizes: tuple[int | None, ...]
    low: int = 0
    high: int = 2

    def drawn(self, rng: np.random.Generator, batch: int, open_size: int) -> Array:
        """Returns ordinary numbers."""
        shape = (batch, *(open_size if n is None else n for n in self.sizes))
        if np.issubdtype(np.dtype(self.dtype), np.floating):
            return rng.normal(0.1, 1.0, shape).astype(self.dtype)
        return rng.integers(self.low, self.high, shape).astype(self.dtype)


class Graph:
    """A graph that is being drawn.

    Args:
        d: what it is drawn from.
    """

    def __init__(self, d: Draw) -> None:
        self.d = d
        self.opset = d.one(OPSETS)
        self.dtype = d.one(_DTYPES)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.functions: dict[str, onnx.FunctionProto] = {}
        self.inputs: list[Input] = []
        self.values: dict[str, tuple[Array, ...]] = {}
        self._count = 0

    def name(self) -> str:
        """Returns a new name, sometimes as torch writes them."""
        self._count += 1
        return self.d.one((f"t{self._count}", f"/model/layer.{self._count}/out_{self._count}"))

    def input(self, made: Input) -> str:
        """Adds an input."""
        self.inputs.append(made)
        rng = np.random.default_rng(len(self.inputs))
        self.values[made.name] = tuple(made.drawn(rng, *trial) for trial in _TRIALS)
        return made.name

    def weight(self, array: Any) -> str:
        """Stores an array; as an initializer, or as a node."""
        made = np.asarray(array)
        name = self.name()
        if self.d.maybe(0.2):
            value = numpy_helper.from_array(made, name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=value))
        else:
            self.weights.append(numpy_helper.from_array(made, name))
        return name

    def floats(self, *shape: int) -> str:
        """Returns random weights of a shape: new ones, or others once more."""
        if self.d.maybe(_SHARED):
            for tensor in self.weights:
                if tuple(tensor.dims) == shape and _is_of(tensor, self.dtype):
                    return str(tensor.name)
        return self.weight(self.d.rng.normal(0, 0.7, size=shape).astype(self.dtype))

    def number(self, value: float) -> str:
        """Stores one floating number."""
        return self.weight(np.array(value, self.dtype))

    def integers(self, *values: int) -> str:
        """Stores whole numbers as a vector."""
        return self.weight(np.array(values, np.int64))

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node; returns its first output."""
        return self.several(1, op, *inputs, domain=domain, **attributes)[0]

    def several(
        self, count: int, op: str, *inputs: str, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Adds a node with some outputs."""
        outs = [self.name() for _ in range(count)]
        name = "" if self.d.maybe(0.2) else outs[0]
        self.nodes.append(
            helper.make_node(op, list(inputs), outs, name=name, domain=domain, **attributes)
        )
        return outs

    def along(self, op: str, x: str, axes: Sequence[int], since: int, **attributes: Any) -> str:
        """Adds a node whose axes are an attribute, or an input from an operator set on."""
        if self.opset >= since:
            return self.add(op, x, self.integers(*axes), **attributes)
        return self.add(op, x, axes=list(axes), **attributes)

    def needs(self, opset: int) -> None:
        """Refuses an older operator set.

        Raises:
            NotHereError: the graph is written in one.
        """
        if self.opset < opset:
            raise NotHereError

    def sizes(self, name: str) -> list[int | None]:
        """Returns the sizes of a tensor behind the batch, None where they are open."""
        one, other = (array.shape[1:] for array in self.values[name])
        return [a if a == b else None for a, b in zip(one, other, strict=True)]

    def fixed(self, name: str, *axes: int) -> list[int]:
        """Returns sizes of a tensor by axis, counted without the batch.

        Raises:
            NotHereError: one of them is open.
        """
        sizes = self.sizes(name)
        found = [sizes[axis] for axis in axes]
        if None in found:
            raise NotHereError
        return [size for size in found if size is not None]

    def settled(self, start: int, made: str) -> bool:
        """Tries the nodes from one on; tells whether they make a tensor to go on from."""
        part = self.nodes[start:]
        outs = [out for node in part for out in node.output if out]
        fed = [name for name in dict.fromkeys(read_by(part)) if name in self.values]
        found: list[tuple[Array, ...]] = []
        try:
            inputs = [_typed(name, self.values[name][0]) for name in fed]
            session = session_of(self._written(part, inputs, [named(out) for out in outs]))
            for trial in range(len(_TRIALS)):
                got = session.run(outs, {name: self.values[name][trial] for name in fed})
                found.append(tuple(map(np.asarray, got)))
        except Exception:  # whatever onnxruntime says of a graph that is none
            return False
        values = {out: tuple(trial[i] for trial in found) for i, out in enumerate(outs)}
        if not all(_fits(a, n) for a, (n, _) in zip(values[made], _TRIALS, strict=True)):
            return False
        if len({array.ndim for array in values[made]}) > 1:
            return False
        self.values |= values
        return True

    def model(self, outputs: Iterable[str]) -> onnx.ModelProto:
        """Returns the graph with some outputs."""
        inputs = []
        for made in self.inputs:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(made.dtype))
            sizes = ["batch", *(f"open_{n}" if s is None else s for n, s in enumerate(made.sizes))]
            inputs.append(helper.make_tensor_value_info(made.name, kind, sizes))
        return self._written(self.nodes, inputs, [self._described(out) for out in outputs])

    def _described(self, name: str) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(self.values[name][0].dtype)
        return helper.make_tensor_value_info(name, kind, ["batch", *self.sizes(name)])

    def _written(
        self,
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        read = set(read_by(nodes))
        weights = [tensor for tensor in self.weights if tensor.name in read]
        graph = helper.make_graph(nodes, "drawn", inputs, outputs, weights)
        opsets = [helper.make_opsetid("", self.opset)]
        domains = {node.domain for node in nodes if node.domain}
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(domains)]
        functions = list(self.functions.values()) if FUNCTIONS in domains else []
        ir_version = 10 if self.opset > 20 else 8
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=ir_version, functions=functions
        )


def read_by(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Yields the names that nodes and what they hold read, those that they make among them."""
    for node in nodes:
        yield from (name for name in node.input if name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from read_by(attribute.g.node)
                yield from (value.name for value in attribute.g.output)


def session_of(model: onnx.ModelProto) -> Any:
    """Returns a model in onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def named(name: str) -> onnx.ValueInfoProto:
    """Returns an output whose type is inferred."""
    value = onnx.ValueInfoProto()
    value.name = name
    return value


def _typed(name: str, array: Array) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, [None] * array.ndim)


def _fits(array: Array, batch: int) -> bool:
    good = 2 <= array.ndim <= 5 and array.shape[0] == batch and 0 < array.size <= batch * _MOST
    return good and np.issubdtype(array.dtype, np.floating) and bool(np.isfinite(array).all())


def _is_of(tensor: onnx.TensorProto, dtype: str) -> bool:
    kind: int = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return bool(tensor.data_type == kind and tensor.data_type != TensorProto.UNDEFINED)
