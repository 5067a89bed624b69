"""Puts back NaN that onnxruntime's operators lose, where a model can make it of finite numbers.

A sample that is all padding has a mean of 0/0. In Keras its prediction is NaN, which everybody
sees; some operators of onnxruntime make a number of it, which nobody does:

- LSTM and GRU with a bias, and RNN with a rectifier: they clip the sums of their gates by
  comparisons, which NaN never passes;
- ReduceMax and ReduceMin, which keep NaN by chance, by where it stands;
- MaxPool. Here it is Keras, on a processor, that leaves NaN and -inf out, and gives the lowest
  number where there is nothing else; onnxruntime gives now one and now the other.

What is written costs time, so it stands only behind operators that may make NaN of finite
numbers: a quotient, a root or a logarithm of what is not known to be harmless, a constant that is
not finite. A request that holds NaN itself is another matter: docs/USE.md says what comes of it.

The result is multiplied by a factor that is NaN where the result is to be, and else 1: no gradient
passes the factor, and the gradient of what is no number is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import inputs_of, is_float, key_of
from probegen.graph.core.replacing import take_place
from probegen.graph.core.values import attribute, dtype_of, shape_of, subgraphs_of
from probegen.graph.vjp.edges import bounds, may_leave_numbers

#: Positions of the inputs of recurrent operators.
_X, _W, _R, _B, _LENGTHS, _INITIAL, _CELL = range(7)
_GATES: Mapping[str, int] = {"LSTM": 4, "GRU": 3, "RNN": 1}


def put_back_nan(model: ir.Model) -> None:
    """Lets operators give NaN where the model does, in subgraphs too.

    `ReduceMax(q)` -> `Mul(ReduceMax(q), Where(ReduceMax(IsNaN(q)), NaN, 1))`, q being a quotient,
    say; see the module.

    Needs: topological order, and shapes inferred.
    """
    graph = model.graph
    if not any(key_of(node) in _MENDS for node in graph.all_nodes()):
        return
    suspects: set[ir.Value] = set()
    for node in graph:
        _add_suspects(node, suspects)
    opset = graph.opset_imports.get("", 0)
    for number, node in enumerate(list(graph.all_nodes())):
        mend, owner = _MENDS.get(key_of(node)), node.graph
        if mend is not None and owner is not None and any(v in suspects for v in node.inputs):
            b = Builder(owner, opset, prefix=f"not_a_number_{number}")
            mend(b, node)


def _add_suspects(node: ir.Node, suspects: set[ir.Value]) -> None:
    """Adds what a node makes that may not be finite though the model's inputs are.

    All of a body is under suspicion that reads such a value or makes one.
    """
    if _takes_back(node, suspects):
        return
    bodies = list(subgraphs_of(node))
    nodes = [node, *(inner for body in bodies for inner in body.all_nodes())]
    if any(v in suspects for v in inputs_of(node)) or any(map(may_leave_numbers, nodes)):
        made = [v for body in bodies for v in body.inputs]
        made += [v for each in nodes for v in each.outputs]
        suspects.update(filter(is_float, made))


def _takes_back(node: ir.Node, suspects: set[ir.Value]) -> bool:
    """Tells whether a node limits what is endless at worst: `x * Min(1 / norm, 1e12)`."""
    makers = [v.producer() for v in node.inputs if v is not None and v in suspects]
    return (
        key_of(node) == "Min"
        and all(
            maker is not None
            and key_of(maker) == "Reciprocal"
            and maker.inputs[0] is not None
            and maker.inputs[0] not in suspects
            and bounds(maker.inputs[0])[0] >= 0
            for maker in makers
        )
        and not may_leave_numbers(node)
    )


# -- recurrent operators -------------------------------------------------------------------


def _recurrent(b: Builder, node: ir.Node) -> None:
    """Multiplies what a recurrent operator gives.

    A step is NaN in the units one of whose gates is, and all steps behind it are NaN whole. What
    the input adds to the gates is computed a second time: two infinities make NaN of it as well.

    Leaves: LSTM and GRU without a bias, which clip nothing; two directions in one node, which
    Keras' layers are not.
    """
    given = [*node.inputs, *[None] * _CELL][: _CELL + 1]
    x, w, r, lengths = (given[k] for k in (_X, _W, _R, _LENGTHS))
    direction = attribute(node, "direction", "forward")
    clips = given[_B] is not None or node.op_type == "RNN"
    if x is None or w is None or r is None or not clips or direction == "bidirectional":
        return
    backwards = direction == "reverse"
    count = _GATES[node.op_type]
    gates = _gates(b, x, w, count)
    if (state := given[_INITIAL]) is not None:
        started = _gates(b, state, r, count)
        gates = [_with_first(b, *each, backwards) for each in zip(gates, started, strict=True)]
    if node.op_type == "GRU" and not attribute(node, "linear_before_reset", 0):
        gates[1] = _in_row(b, gates[1])  # the reset gate goes into the candidate of every unit
    hidden = _any(b, *gates)
    cell = _any(b, gates[0], *gates[2:])  # all but the output gate, the second of LSTM
    if (state := given[_CELL]) is not None:
        started = [_flags(b, state)] * 2
        hidden, cell = (
            _with_first(b, *each, backwards) for each in zip((hidden, cell), started, strict=True)
        )
    whole, time = _in_row(b, hidden), b.const(0, ir.DataType.INT64)
    before = b.op("CumSum", whole, time, shape=whole, exclusive=1, reverse=int(backwards))
    hidden, cell = _any(b, hidden, before), _any(b, cell, before)
    last = [_last_step(b, flags, lengths, backwards) for flags in (hidden, cell)]
    _multiply(b, node, [b.unsqueeze(hidden, [1]), *last])


def _gates(b: Builder, x: ir.Value, weights: ir.Value, count: int) -> list[ir.Value]:
    """Returns for each gate where its product is NaN, in equal parts of the rows of weights.

    Args:
        b: writes.
        x: `[time, batch, columns]`.
        weights: `[1, rows, columns]`.
        count: of gates.
    """
    time, batch = (shape_of(x) or (None, None))[:2]
    rows = (shape_of(weights) or (None, None))[1]
    product = b.op("MatMul", x, b.transpose(weights, [0, 2, 1]), shape=[time, batch, rows])
    flags = _flags(b, product)
    if count == 1 or not isinstance(rows, int):
        return [flags] * count
    units = rows // count
    return [b.slice(flags, 2, k * units, (k + 1) * units) for k in range(count)]


def _in_row(b: Builder, flags: ir.Value) -> ir.Value:
    """Returns whether there is one in a row: `[time, batch, units]` -> `[time, batch, 1]`."""
    return b.reduce("ReduceMax", flags, [2], keepdims=True)


def _with_first(b: Builder, flags: ir.Value, first: ir.Value, backwards: bool) -> ir.Value:
    """Returns flags with those of the states before, `[1, batch, units]`, at the first step."""
    size = b.size(flags, 0)
    place = b.sub(size, 1) if backwards else b.ints(0)
    return _any(b, flags, b.mul(first, _is_step(b, flags, b.unsqueeze(place, [0]))))


def _last_step(b: Builder, flags: ir.Value, lengths: ir.Value | None, backwards: bool) -> ir.Value:
    """Returns the flags of the step that is run last, `[1, batch, units]`."""
    if backwards:
        return b.slice(flags, 0, 0, 1)
    if lengths is None:
        one_step = [1, *(shape_of(flags) or (None, None, None))[1:]]
        return b.op("Gather", flags, b.ints(-1), shape=one_step, axis=0)
    places = b.sub(b.unsqueeze(b.cast(lengths, ir.DataType.INT64), [0]), 1)
    return b.reduce("ReduceMax", b.mul(flags, _is_step(b, flags, places)), [0], keepdims=True)


def _is_step(b: Builder, flags: ir.Value, places: ir.Value) -> ir.Value:
    """Returns 1 at a step of each sample, else 0, `[time, batch or 1, 1]`.

    Args:
        b: writes.
        flags: `[time, batch, units]`.
        places: which step, `[1, batch or 1]`.
    """
    steps = b.count_up(b.size(flags, 0), (shape_of(flags) or (None,))[0])
    found = b.elementwise("Equal", b.unsqueeze(steps, [1]), places)
    return b.unsqueeze(b.cast(found, dtype_of(flags)), [2])


# -- maxima --------------------------------------------------------------------------------


def _reduced(b: Builder, node: ir.Node) -> None:
    """Multiplies a maximum or minimum."""
    x = node.inputs[0]
    if x is None:
        return
    y, axes = node.outputs[0], node.inputs[1:]
    is_nan = _flags(b, x)
    kept = {name: attribute(node, name) for name in node.attributes}
    found = b.op("ReduceMax", is_nan, *axes, shape=y, **kept)
    _multiply(b, node, [found])


def _pooled(b: Builder, node: ir.Node) -> None:
    """Lets a pooling read the lowest number in the place of NaN and -inf.

    `MaxPool(q)` -> `MaxPool(Where(GreaterOrEqual(q, lowest), q, lowest))`
    """
    x = node.inputs[0]
    if x is None:
        return
    lowest = float(np.finfo(dtype_of(x).numpy()).min)
    read = b.where(b.elementwise("GreaterOrEqual", x, lowest), x, lowest)
    b.insert_before(node)
    node.replace_input_with(0, read)


# -- what they are made of -----------------------------------------------------------------


def _flags(b: Builder, x: ir.Value) -> ir.Value:
    """Returns 1 where a value is NaN, else 0, in its element type."""
    is_nan = b.op("IsNaN", x, shape=x, dtype=ir.DataType.BOOL)
    return b.cast(is_nan, dtype_of(x))


def _any(b: Builder, *flags: ir.Value) -> ir.Value:
    """Returns flags that are not 0 where one of several is not, which broadcast."""
    return flags[0] if len(flags) == 1 else b.elementwise("Max", *flags)


def _multiply(b: Builder, node: ir.Node, flags: Sequence[ir.Value]) -> None:
    """Multiplies the outputs of a node by NaN where flags are not 0, and else by 1."""
    for value, flag in zip(node.outputs, flags, strict=False):
        if not (value.uses() or value.is_graph_output()):
            continue
        is_nan = b.elementwise("Greater", flag, 0.0)
        factor = b.where(is_nan, b.scalar(np.nan, value), b.scalar(1.0, value))
        times = ir.node("Mul", [value, factor], name=b.fresh("Mul"))
        take_place(value, times.outputs[0])
        times.replace_input_with(0, value)  # it reads what it stands for
        value.name = b.fresh("numbers")
        b.nodes.append(times)
    b.graph.insert_after(node, b.nodes)


#: Operator -> what sees to it that its results are NaN where the model's are.
_MENDS: Mapping[str, Callable[[Builder, ir.Node], None]] = {
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
    "MaxPool": _pooled,
}
