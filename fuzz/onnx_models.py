"""Draws random graphs with their probes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx

from fuzz.drawing import Draw
from fuzz.onnx_case import OnnxCase, Output
from fuzz.onnx_drawing import Graph, Input, NotHereError
from fuzz.onnx_nodes import ANY, MAPS, SERIES
from fuzz.probes import Seen, Subject, draw_options, draw_probes

_TRIES = 10
#: Ids that tokens may have.
_VOCABULARY = 11


def drawn(key: str) -> OnnxCase:
    """Returns the case of a key; the same one whenever it is called.

    A node that onnxruntime does not take is drawn again.

    Raises:
        ValueError: there is no such graph.
    """
    d = Draw(key)
    g = Graph(d)
    ends = [_grown(g, _input(g, n), d.whole(1, 4)) for n in range(d.one((1, 1, 1, 1, 2, 2, 3)))]
    if d.maybe(0.06):
        g.input(Input("unused", g.dtype, (2,)))
    while len(ends) > 1:
        ends = [*ends[2:], _merged(g, ends[0], ends[1])]
    end = _grown(g, ends[0], d.whole(0, 2))
    outputs = [_head(g, end, "scores")]
    if d.maybe(0.15):
        outputs.append(_head(g, end, "more"))
    names = [output.name for output in outputs]
    if d.maybe(0.08):  # a tensor inside comes out as well
        names.append(d.one([n for n in g.values if g.values[n][0].ndim > 1 and n not in names]))
    if d.maybe(0.04):
        names.append(g.inputs[0].name)
    model = g.model(dict.fromkeys(names))
    onnx.checker.check_model(model)
    subject = _subject(g, outputs)
    options = draw_options(d)
    options.pop("opset", None)  # an artefact keeps the operator set of its file
    return OnnxCase(key, model, tuple(g.inputs), tuple(outputs), draw_probes(d, subject), options)


def _subject(g: Graph, outputs: list[Output]) -> Subject:
    """Returns the graph as probes see it; nodes are told by the paths of their outputs."""
    inputs = [
        Seen(i.name, (None, *i.sizes), np.issubdtype(np.dtype(i.dtype), np.floating))
        for i in g.inputs
    ]
    seen = [Seen(o.name, (None, *g.sizes(o.name)), True, o.class_axis) for o in outputs]
    layers: dict[str, int | None] = {}
    for node in g.nodes:
        name = node.output[0]
        if name in g.values and g.values[name][0].ndim > 1 and node.op_type != "Constant":
            layers[repr(name.lstrip("/"))] = g.sizes(name)[-1]
    return Subject(inputs, seen, layers)


def _input(g: Graph, number: int) -> str:
    """Adds an input; returns it, or what it is looked up as where it holds whole numbers."""
    d = g.d
    kind = d.one(("vector", "series", "series", "image", "image", "volume", "ids"))
    name = d.one(("x", "input.1", "/features")) if number == 0 else f"x{number}"
    time = None if d.maybe(0.25) else d.whole(4, 7)
    sides = (None, None) if d.maybe(0.2) else (d.whole(4, 6), d.whole(4, 6))
    sizes: dict[str, tuple[int | None, ...]] = {
        "vector": (d.whole(3, 6),),
        "series": (time, d.whole(2, 4)),
        "image": (d.whole(1, 3), *sides),
        "volume": (2, 3, d.whole(3, 4), 3),
    }
    if kind == "ids":
        dtype = d.one(("int32", "int64"))
        ids = g.input(Input(name, dtype, (time,), 0, _VOCABULARY))
        start = len(g.nodes)
        made = g.add("Gather", g.floats(_VOCABULARY, d.whole(2, 4)), ids, axis=0)
        if not g.settled(start, made):
            raise ValueError("ids that cannot be looked up")
    else:
        made = g.input(Input(name, g.dtype, sizes[kind]))
    if kind in ("series", "ids") and number == 0 and d.maybe(0.3):
        g.input(Input("lens", "int32", (), 1, 5))
    return made


def _grown(g: Graph, at: str, count: int) -> str:
    """Returns a tensor some nodes behind another."""
    for _ in range(count):
        sizes = g.sizes(at)
        makes = [*ANY]
        if len(sizes) == 2:
            makes += [*SERIES, *SERIES]
        if len(sizes) > 1:
            makes += [*MAPS, *(MAPS if len(sizes) > 2 else ())]
        for _ in range(_TRIES):
            made = _tried(g, functools.partial(g.d.one(makes), g), at)
            if made is not None:
                at = made
                break
    return at


def _tried(g: Graph, make: Any, at: str) -> str | None:
    """Adds nodes behind a tensor; takes them back and returns None where they cannot stand."""
    nodes, weights = len(g.nodes), len(g.weights)
    try:
        made: str = make(at)
        if g.settled(nodes, made):
            return made
    except NotHereError:
        pass
    del g.nodes[nodes:], g.weights[weights:]
    return None


def _made(g: Graph, make: Any, at: str) -> str:
    made = _tried(g, make, at)
    if made is None:
        raise ValueError("it cannot be brought to an end")
    return made


def _flat(g: Graph, at: str) -> str:
    """Returns a tensor as `[batch, feature]`."""
    sizes = g.sizes(at)
    open_axes = [axis + 1 for axis, size in enumerate(sizes) if size is None]
    if len(sizes) == 1 and not open_axes:
        return at
    if open_axes:
        op = g.d.one(("ReduceMean", "ReduceMax"))
        at = _made(g, lambda x: g.along(op, x, open_axes, 18, keepdims=1), at)
    return _made(g, lambda x: g.add("Flatten", x, axis=1), at)


def _merged(g: Graph, one: str, other: str) -> str:
    parts = [_flat(g, one), _flat(g, other)]
    return _made(g, lambda x: g.add("Concat", x, parts[1], axis=1), parts[0])


def _head(g: Graph, at: str, name: str) -> Output:
    """Adds an output."""
    d = g.d
    sizes = g.sizes(at)
    classes = d.whole(2, 4)
    last = d.one(("Softmax", "Softmax", "Sigmoid", "", ""))
    by_position = len(sizes) > 1 and d.maybe(0.2)
    axis = 1
    if by_position and d.maybe(0.5) and sizes[-1] is not None:
        width, axis = sizes[-1], len(sizes)
        scores = _made(g, lambda x: g.add("MatMul", x, g.floats(width, classes)), at)
    elif by_position and sizes[0] is not None:
        kernel = (classes, sizes[0], *[1] * (len(sizes) - 1))
        scores = _made(g, lambda x: g.add("Conv", x, g.floats(*kernel)), at)
    else:
        flat = _flat(g, at)
        (width,) = g.fixed(flat, 0)
        scores = _made(
            g, lambda x: g.add("Gemm", x, g.floats(width, classes), g.floats(classes)), flat
        )
    if last == "Softmax" and g.opset < 13 and axis != len(g.sizes(scores)):
        last = ""
    given: dict[str, Any] = {"axis": axis} if last == "Softmax" else {}
    end = _made(g, lambda x: g.add(last or "Identity", x, **given), scores)
    _renamed(g, end, name)
    read = scores if last in ("Softmax", "Sigmoid") else name
    return Output(name, read, -1 if axis == len(g.sizes(name)) else axis)


def _renamed(g: Graph, old: str, new: str) -> None:
    """Gives the last node's output a name that an output of a model has."""
    node = g.nodes[-1]
    node.output[0] = new
    g.values[new] = g.values.pop(old)
