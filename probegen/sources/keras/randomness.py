"""Which tensors of a traced model are drawn at random.

A graph would hold one draw for ever, or draw otherwise than the model does, and the gradient is
that of one draw: so what is drawn is found here, to be refused by name. TensorFlow's own draws have
a state and are known by their operation. Those of Keras are stateless, and their seed, which a
`SeedGenerator` hands out, looks like a constant in a trace: seeds are marked when they are handed
out. A draw from a constant seed is the same each time, and no draw.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

#: What the identity is called that a seed passes when it is handed out.
_SEED = "probegen_seed"
_IS_SEED = re.compile(rf"(.*/)?{_SEED}(_\d+)?$")
#: Operations of TensorFlow that draw by a state of their own, beside `Stateful...`.
_DRAWING = frozenset(
    {
        "Multinomial",
        "ParameterizedTruncatedNormal",
        "RandomCrop",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "RngReadAndSkip",
        "SampleDistortedBoundingBox",
        "SampleDistortedBoundingBoxV2",
        "TruncatedNormal",
    }
)
_STATEFUL_DRAW = re.compile(r"Stateful(Random|Standard|Truncated|Uniform)\w*|\w*CandidateSampler")
_STATELESS_DRAW = re.compile(r"Stateless(?!RandomGet|If$|While$|Case$)\w+")
#: Operations whose result does not depend on the values they are given.
_VALUELESS = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
#: Operation that runs other functions -> how many of its inputs come before theirs.
_CALLS = {
    "PartitionedCall": 0,
    "StatefulPartitionedCall": 0,
    "If": 1,
    "StatelessIf": 1,
    "Case": 1,
    "StatelessCase": 1,
}
_LOOPS = ("While", "StatelessWhile")


@dataclasses.dataclass(frozen=True)
class Draw:
    """Where random numbers come from.

    Attributes:
        operation: the TensorFlow operation that draws; `""` while only its seed is known.
        at: the operation of the outermost graph where they arise.
        layer: path of the layer that draws, where that is known before.
    """

    operation: str
    at: Any = None
    layer: str = ""


def mark_seed(seed: Any) -> Any:
    """Returns a seed that a generator has just handed out, so that its use can be told."""
    return tf.identity(seed, name=_SEED)


def drawn(graph: Any, given: Mapping[int, Draw]) -> dict[int, Draw]:
    """Returns id -> draw for each tensor of a graph whose value is random.

    Args:
        graph: the graph.
        given: tensors that are random whatever the graph says.
    """
    return _follow(graph, given, outermost=True)


def told_to_train(model: Any) -> set[int]:
    """Returns ids of drawing layers that functional models always call with `training=True`.

    Such a model draws whenever it is called without `training`. Told `training=False`, which is
    how it is traced, Keras overrules it, and nothing is seen.
    """
    return {
        id(layer)
        for layer in _told(model)
        if any(getattr(p, "_seed_generators", None) for p in layer._flatten_layers())
    }


def by_the_batch(model: Any) -> str | None:
    """Returns the name of a layer that a functional model always has count over its batch.

    A batch normalisation called with `training=True` takes mean and variance of the samples that
    are fed together, whenever the model is called without `training`.
    """
    for layer in _told(model):
        for part in layer._flatten_layers():
            if isinstance(part, keras.layers.BatchNormalization) and part.trainable:
                return str(part.name)
    return None


def _told(model: Any) -> Iterator[Any]:
    """Yields the layers that functional models call with `training=True`."""
    for part in model._flatten_layers():
        depths = getattr(part, "_nodes_by_depth", {})
        for node in (node for nodes in depths.values() for node in nodes):
            layer, told = node.operation, node.arguments.kwargs.get("training")
            if told is True and isinstance(layer, keras.Layer) and not _trains_untold(layer):
                yield layer


def _trains_untold(layer: Any) -> bool:
    """Tells whether a layer trains by default, as augmentation does; no user asked for it then."""
    told = inspect.signature(layer.call).parameters.get("training")
    return told is not None and told.default is True


def _follow(graph: Any, given: Mapping[int, Draw], outermost: bool = False) -> dict[int, Draw]:
    """Returns id -> draw within one graph, some inputs of which are random."""
    found = dict(given)
    for op in graph.get_operations():
        read = [found.get(id(t)) for t in op.inputs]
        for tensor, draw in zip(op.outputs, _outputs(op, read), strict=True):
            if draw is not None:
                new = outermost and draw.at is None
                found[id(tensor)] = dataclasses.replace(draw, at=op) if new else draw
    return found


def _outputs(op: Any, read: Sequence[Draw | None]) -> list[Draw | None]:
    """Returns what each output of an operation is drawn by, given that for its inputs."""
    if op.type in _VALUELESS:
        return [None] * len(op.outputs)
    if op.type in _DRAWING or _STATEFUL_DRAW.fullmatch(op.type):
        return [Draw(op.type)] * len(op.outputs)
    if op.type == "Identity" and _IS_SEED.match(op.name):
        return [Draw("")]
    if op.type in _LOOPS:
        return _loop(op, read)
    if op.type in _CALLS:
        return _call(op, read)
    first = next((draw for draw in read if draw is not None), None)
    if first is not None and not first.operation and _STATELESS_DRAW.fullmatch(op.type):
        first = dataclasses.replace(first, operation=op.type, at=None)
    if first is None:
        first = _any_inside(op)
    return [first] * len(op.outputs)


def _loop(op: Any, read: Sequence[Draw | None]) -> list[Draw | None]:
    """A loop: what is random after one round is so before the next."""
    body, condition = _functions(op, "body"), _functions(op, "cond")
    state = list(read)
    while True:
        after = _through(body[0], state)
        merged = [a or b for a, b in zip(state, after, strict=True)]
        if [m is None for m in merged] == [s is None for s in state]:
            break
        state = merged
    stops = next((d for d in _through(condition[0], state) if d is not None), None)
    return [draw or stops for draw in state]


def _call(op: Any, read: Sequence[Draw | None]) -> list[Draw | None]:
    """A branch or a call: what any of its functions returns at random."""
    chooser = next((d for d in read[: _CALLS[op.type]] if d is not None), None)
    results: list[Draw | None] = [chooser] * len(op.outputs)
    for function in _functions(op):
        made = _through(function, read[_CALLS[op.type] :])
        results = [a or b for a, b in zip(results, made, strict=True)]
    return results


def _through(function: Any, read: Sequence[Draw | None]) -> list[Draw | None]:
    """Returns what each output of a function is drawn by."""
    given = {id(t): d for t, d in zip(function.inputs, read, strict=True) if d is not None}
    found = _follow(function, given)
    return [found.get(id(t)) for t in function.outputs]


def _any_inside(op: Any) -> Draw | None:
    """Returns a draw in any function that an operation holds in another way."""
    for function in _functions(op):
        inside = _follow(function, {})
        if inside:
            return next(iter(inside.values()))
    return None


def _functions(op: Any, *attributes: str) -> list[Any]:
    """Returns the graphs of the functions that an operation holds."""
    names = []
    for key, value in op.node_def.attr.items():
        if not attributes or key in attributes:
            names += [value.func.name] if value.HasField("func") else []
            names += [f.name for f in value.list.func]
    known = (op.graph._get_function(name) for name in names)
    return [_graph_of(f, op.graph) for f in known if f is not None]


def _graph_of(function: Any, around: Any) -> Any:
    """Returns the graph of a function; those of TensorFlow 1 (as `tf.scan` has) hold a text."""
    if hasattr(function, "graph"):
        return function.graph
    with around.as_default():
        return function_def_to_graph(function.definition)
