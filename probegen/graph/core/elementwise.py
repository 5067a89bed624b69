"""Functions of one tensor, element by element, however many nodes they are spelled in.

Models spell SiLU as `Mul(x, Sigmoid(x))`, GELU as six nodes around `Erf`, a leaky rectifier as
`Max(x, Mul(x, 0.1))`. What counts is the function and not its spelling: `function_of_one` finds
the one tensor that a node is a function of, and the nodes on the way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.composite_ops import COMPOSITE_DOMAIN, GELU, GELU_C, GELU_CUBIC
from probegen.graph.core.marks import MARK, MARK_DOMAIN
from probegen.graph.core.queries import key_of
from probegen.graph.core.values import attribute, constant_of, shape_of

Array = npt.NDArray[Any]
#: Computes a node from the arrays of its inputs.
_Compute = Callable[[ir.Node, list[Any]], Any]

#: How many nodes a function may be spelled in: the error function of 64 bits takes 150.
_MOST_NODES = 256


@dataclasses.dataclass(frozen=True)
class FunctionOfOne:
    """A function of one tensor, taken element by element, with all else constant.

    Attributes:
        entry: the tensor.
        nodes: what computes it, in order; the last one gives the result.
    """

    entry: ir.Value
    nodes: tuple[ir.Node, ...]

    @property
    def result(self) -> ir.Value:
        """The result."""
        return self.nodes[-1].outputs[0]

    @property
    def inner(self) -> list[ir.Value]:
        """The tensors between the entry and the result."""
        return [v for node in self.nodes[:-1] for v in node.outputs]

    def at(self, x: Array) -> Array:
        """Returns the function at some points, in float64.

        Args:
            x: the points, along the first axis; the others are broadcast to the constants.
        """
        return np.asarray(self.values_at(x)[self.result], np.float64)

    def values_at(self, x: Array) -> dict[ir.Value, Any]:
        """Returns the entry, the tensors between and the result at some points; see `at`."""
        values: dict[ir.Value, Any] = {self.entry: np.asarray(x, np.float64)}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                read = [_array(values, v) for v in node.inputs]
                values[node.outputs[0]] = COMPUTED[key_of(node)](node, read)
        return values

    @property
    def constant_rank(self) -> int:
        """The largest rank of a constant in it."""
        arrays = [constant_of(v) for node in self.nodes for v in node.inputs]
        return max((a.ndim for a in arrays if a is not None), default=0)


def function_of_one(node: ir.Node) -> FunctionOfOne | None:
    """Returns the function of the nearest one tensor that a node is, None where it is none.

    For a node with one varying input that is the node alone.
    """
    if key_of(node) not in COMPUTED:
        return None
    varying = list(dict.fromkeys(_varying(node)))
    if not varying:
        return None
    found = (varying[0], [node]) if len(varying) == 1 else _nearest(node, varying)
    if found is None:
        return None
    entry, nodes = found
    inside = [entry, *(v for n in nodes for v in n.outputs[:1])]
    shapes = [shape_of(v) for v in inside]
    if any(s is None or s != shapes[0] for s in shapes):
        return None  # something is broadcast, or may be
    return FunctionOfOne(entry, tuple(nodes))


def _nearest(node: ir.Node, varying: list[ir.Value]) -> tuple[ir.Value, list[ir.Node]] | None:
    """Returns the nearest tensor through which all ways to a node lead, and the nodes on them."""
    graph = node.graph
    if graph is None:
        return None
    position = {n: i for i, n in enumerate(graph)}
    open_ends, nodes = set(varying), [node]
    while len(open_ends) > 1:
        last = max(open_ends, key=lambda v: position.get(v.producer(), -1))  # type: ignore[arg-type]
        made_by = last.producer()
        if made_by is None or made_by not in position or len(nodes) > _MOST_NODES:
            return None
        if key_of(made_by) not in COMPUTED or last is not made_by.outputs[0]:
            return None
        open_ends.remove(last)
        open_ends.update(_varying(made_by))
        nodes.append(made_by)
    return open_ends.pop(), nodes[::-1]


def _varying(node: ir.Node) -> list[ir.Value]:
    return [v for v in node.inputs if v is not None and _known(v) is None]


def _array(values: Mapping[ir.Value, Any], value: ir.Value | None) -> Any:
    return values[value] if value is not None and value in values else _known(value)


def _known(value: ir.Value | None) -> Array | None:
    """Returns a constant, or the one number in all of a tensor; None for what varies.

    Zeros like x are such a tensor: its shape is open where x's is, its elements are known.
    """
    node = None if value is None else value.producer()
    if node is not None and key_of(node) == "ConstantOfShape":
        filling = attribute(node, "value")
        return np.zeros(()) if filling is None else np.asarray(filling.numpy()).reshape(())
    known = constant_of(value)
    return None if known is None else np.asarray(known)


# -- what nodes compute ------------------------------------------------------------------------


def _of(function: Callable[..., Any]) -> _Compute:
    """Returns how a node is computed that has no attributes."""
    return lambda _, read: function(*read)


def _number(node: ir.Node, name: str, default: float) -> float:
    return float(attribute(node, name, default))


def _is_infinite(node: ir.Node, read: list[Any]) -> Any:
    sides = {"detect_positive": np.isposinf, "detect_negative": np.isneginf}
    asked = [test(read[0]) for name, test in sides.items() if attribute(node, name, 1)]
    return np.any(asked, axis=0) if asked else np.zeros(np.shape(read[0]), bool)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Any) -> Any:
    return np.logaddexp(0.0, x)


def _cast(node: ir.Node, read: list[Any]) -> Any:
    to = ir.DataType(int(attribute(node, "to")))
    if to == ir.DataType.BOOL:
        return read[0] != 0
    return np.asarray(read[0], np.float64)


def _clip(_: ir.Node, read: list[Any]) -> Any:
    bounds = [*read[1:], None, None][:2]
    low, high = (
        (-np.inf if bounds[0] is None else bounds[0]),
        (np.inf if bounds[1] is None else bounds[1]),
    )
    return np.minimum(np.maximum(read[0], low), high)


def _celu(node: ir.Node, read: list[Any]) -> Any:
    alpha = _number(node, "alpha", 1.0)
    return np.maximum(read[0], 0) + np.minimum(0, alpha * np.expm1(read[0] / alpha))


def _selu(node: ir.Node, read: list[Any]) -> Any:
    alpha = _number(node, "alpha", 1.67326319217681884765625)
    gamma = _number(node, "gamma", 1.05070102214813232421875)
    return gamma * np.where(read[0] > 0, read[0], alpha * np.expm1(np.minimum(read[0], 0)))


def _elu(node: ir.Node, read: list[Any]) -> Any:
    low = _number(node, "alpha", 1.0) * np.expm1(np.minimum(read[0], 0))
    return np.where(read[0] > 0, read[0], low)


def _leaky(node: ir.Node, read: list[Any]) -> Any:
    return np.where(read[0] > 0, read[0], _number(node, "alpha", 0.01) * read[0])


def _hard_sigmoid(node: ir.Node, read: list[Any]) -> Any:
    return np.clip(_number(node, "alpha", 0.2) * read[0] + _number(node, "beta", 0.5), 0, 1)


def _gelu(node: ir.Node, read: list[Any]) -> Any:
    x = read[0]
    if attribute(node, "approximate", "none") == "tanh":
        return x * (1 + np.tanh(GELU_C * (x + GELU_CUBIC * x**3))) / 2
    return x * (1 + _erf(x * math.sqrt(0.5))) / 2


def _sum(_: ir.Node, read: list[Any]) -> Any:
    return sum(read[1:], start=read[0])


_erf = np.vectorize(math.erf, otypes=[np.float64])

#: Operators that work element by element -> what they compute.
COMPUTED: Mapping[str, _Compute] = {
    "Add": _of(np.add),
    "Sub": _of(np.subtract),
    "Mul": _of(np.multiply),
    "Div": _of(np.divide),
    "Pow": _of(np.power),
    "Sum": _sum,
    "Max": lambda _, read: np.maximum.reduce(np.broadcast_arrays(*read)),
    "Min": lambda _, read: np.minimum.reduce(np.broadcast_arrays(*read)),
    "Where": _of(np.where),
    "Greater": _of(np.greater),
    "GreaterOrEqual": _of(np.greater_equal),
    "Less": _of(np.less),
    "LessOrEqual": _of(np.less_equal),
    "Equal": _of(np.equal),
    "Not": _of(np.logical_not),
    "IsInf": _is_infinite,
    "IsNaN": _of(np.isnan),
    "And": _of(np.logical_and),
    "Or": _of(np.logical_or),
    "Cast": _cast,
    "Identity": _of(lambda x: x),
    f"{MARK_DOMAIN}::{MARK}": _of(lambda x: x),
    "Neg": _of(np.negative),
    "Abs": _of(np.abs),
    "Sign": _of(np.sign),
    "Reciprocal": _of(lambda x: 1 / x),
    "Sqrt": _of(np.sqrt),
    "Exp": _of(np.exp),
    "Log": _of(np.log),
    "Erf": _of(_erf),
    "Tanh": _of(np.tanh),
    "Sigmoid": _of(_sigmoid),
    "Softplus": _of(_softplus),
    "Softsign": _of(lambda x: x / (1 + np.abs(x))),
    "Sin": _of(np.sin),
    "Cos": _of(np.cos),
    "Atan": _of(np.arctan),
    "HardSigmoid": _hard_sigmoid,
    "Relu": _of(lambda x: np.maximum(x, 0)),
    "LeakyRelu": _leaky,
    "PRelu": _of(lambda x, slope: np.where(x > 0, x, slope * x)),
    "ThresholdedRelu": lambda n, read: np.where(read[0] > _number(n, "alpha", 1.0), read[0], 0),
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "HardSwish": _of(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Swish": lambda n, read: read[0] * _sigmoid(_number(n, "alpha", 1.0) * read[0]),
    "Mish": _of(lambda x: x * np.tanh(_softplus(x))),
    "Clip": _clip,
    "Gelu": _gelu,
    f"{COMPOSITE_DOMAIN}::{GELU}": _gelu,
}
