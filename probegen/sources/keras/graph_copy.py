"""A traced function once more, operation by operation, its loops with it.

`GraphCopy` runs a graph as TensorFlow would, and creates each operation anew in the graph that is
being traced. What is known by then (sizes, counters of loops) is computed at once. So

- calls are written out;
- a loop that fills or reads lists (a recurrent layer, the gradient of a loop) is written out step
  by step, and its lists are Python's: what runs the copy needs to know no lists;
- other loops stay loops, and have the copy of their body.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import function_def_to_graph

from probegen.errors import ExportError

#: An operation of the old graph and what it reads in the new one -> its outputs.
Write = Callable[..., Any]

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
LOOPS = frozenset({"While", "StatelessWhile"})
BRANCHES = frozenset({"If", "StatelessIf"})
#: Stateful operations that a copy may hold: nothing is changed by them.
_READING = frozenset({"Placeholder", "ReadVariableOp", "ResourceGather", "VariableShape"})
#: Operations that have no part in what is computed.
_WITHOUT_RESULT = frozenset({"Placeholder", "NoOp", "Assert"})
#: Operations that give out what they read.
_HANDING_ON = frozenset({"Identity", "StopGradient", "PreventGradient"})
#: Where they lead to other graphs.
_BODIES = ("f", "body", "cond", "then_branch", "else_branch")
#: More operations than these are refused: the converter would take hours.
_MOST = 60_000


def graphs_of(graph: Any) -> Iterator[Any]:
    """Yields a graph and those of all functions that it calls."""
    yield graph
    for operation in graph.get_operations():
        if operation.type in CALLS | LOOPS | BRANCHES:
            for name in _BODIES:
                if name in operation.node_def.attr:
                    yield from graphs_of(_body(operation, name))


def holds_loops(graph: Any) -> bool:
    """Tells whether there is a loop in a graph, or in a function that it calls."""
    return any(o.type in LOOPS for inner in graphs_of(graph) for o in inner.get_operations())


def changes_states(graph: Any) -> bool:
    """Tells whether a graph changes states, whose order a copy would have to keep."""
    harmless = _READING | CALLS | LOOPS | BRANCHES | _WITHOUT_RESULT
    operations = (o for inner in graphs_of(graph) for o in inner.get_operations())
    return any(o.op_def.is_stateful and o.type not in harmless for o in operations)


class _List:
    """A list of tensors; None where nothing was put in yet.

    Attributes:
        items: the tensors.
        like: a tensor of the shape that items have; None where no shape is known.
    """

    def __init__(self, items: Sequence[Any], *before: _List) -> None:
        """Takes the items, and the lists that it is made of, whose items have the same shape."""
        self.items = tuple(items)
        known = [item for item in self.items if item is not None]
        known += [given.like for given in before if given.like is not None]
        self.like: Any = known[0] if known else None

    def filled(self) -> list[Any]:
        """Returns the items, zeros in the place of those that nothing was put in.

        Raises:
            ExportError: nobody knows the shape of an item.
        """
        return [_zeros(self) if item is None else item for item in self.items]


class GraphCopy:
    """Copies graphs into the one that is being traced; see the module."""

    def __init__(self, write: Callable[[Any], Write | None], variables: Sequence[Any]) -> None:
        """Takes what is written otherwise.

        Args:
            write: an operation -> what writes it; None for one that is copied as it is.
            variables: that are read; the copy holds their values as constants.
        """
        self._write = write
        self._variables = {v.handle._id: v for v in variables}
        self._constants: dict[tuple[int, int], Any] = {}
        self._bodies: dict[str, Any] = {}
        self._count = 0

    def run(self, graph: Any, inputs: Sequence[Any]) -> list[Any]:
        """Returns the outputs of a copy of a graph.

        Args:
            graph: a traced graph, captured inputs last.
            inputs: for each of its inputs a tensor of the new graph or one that is known; a list,
                or a variable.
        """
        new = {t.ref(): value for t, value in zip(graph.inputs, inputs, strict=True)}
        for operation in _in_order(graph):
            if operation.type in _WITHOUT_RESULT:
                continue
            made = self._made(operation, [new[tensor.ref()] for tensor in operation.inputs])
            for old, value in zip(operation.outputs, made, strict=True):
                new[old.ref()] = value
        return [new[tensor.ref()] for tensor in graph.outputs]

    def captured(self, tensor: Any) -> Any:
        """Returns what stands for a captured tensor: a variable for its handle."""
        if tensor.dtype != tf.resource:
            return tensor
        return self._variables.get(getattr(tensor, "_id", None), tensor)

    def tensor(self, value: Any) -> Any:
        """Returns a value as a tensor of the graph that is being traced."""
        if isinstance(value, tf.Variable):
            return value.handle
        if not _known(value):
            return value
        return tf.constant(value.numpy(), value.dtype)

    def _made(self, operation: Any, read: list[Any]) -> Sequence[Any]:
        kind = operation.type
        of_lists = kind in _MAKE_LISTS or any(isinstance(value, _List) for value in read)
        if kind in CALLS:
            return self.run(self._body(operation, "f"), read)
        if kind in LOOPS | BRANCHES:
            return (self._loop if kind in LOOPS else self._branch)(operation, read)
        if kind in _HANDING_ON:
            return read
        if kind in _OF_LISTS and of_lists:
            return _as_list(_OF_LISTS[kind](operation, *read))
        of_variable = read and isinstance(read[0], tf.Variable)
        return (self._of_variable if of_variable else self._created)(operation, read)

    def _created(self, operation: Any, read: list[Any]) -> Sequence[Any]:
        """Returns the outputs of an operation: computed at once, written, or created anew."""
        whole = all(t.dtype.is_integer or t.dtype.is_bool for t in operation.outputs)
        if whole and all(map(_known, read)):
            return _computed(operation, read)
        if (known := _size(operation, read)) is not None:
            return [known]
        self._count += 1
        if self._count > _MOST:
            raise ExportError(
                f"its loops, written out step by step, come to more than {_MOST} operations; make "
                "the fixed sizes smaller (sizes=, --size), or leave probes out."
            )
        tensors = [self.tensor(value) for value in read]
        write = self._write(operation)
        if write is None:
            made = _copied(operation, tensors)
        else:
            made = _as_list(write(operation, *tensors))
            for old, tensor in zip(operation.outputs, made, strict=True):
                tensor.set_shape(old.shape)
        return [_constant(tensor) if whole else tensor for tensor in made]

    def _of_variable(self, operation: Any, read: list[Any]) -> Sequence[Any]:
        variable = read[0]
        place = id(tf.compat.v1.get_default_graph()), id(variable)
        if place not in self._constants:
            with tf.init_scope():
                weights = variable.numpy()
            self._constants[place] = tf.constant(weights)
        value = self._constants[place]
        if operation.type == "ReadVariableOp":
            return [value]
        if operation.type == "VariableShape":
            return [_eager(value.shape.as_list(), operation.get_attr("out_type"))]
        if operation.type == "ResourceGather":
            batch = operation.get_attr("batch_dims")
            return [tf.gather(value, self.tensor(read[1]), batch_dims=batch)]
        raise ExportError(f"{operation.type} of a variable is not supported in LiteRT.")

    def _body(self, operation: Any, attribute: str) -> Any:
        name = operation.node_def.attr[attribute].func.name
        if name not in self._bodies:
            self._bodies[name] = _body(operation, attribute)
        return self._bodies[name]

    # -- loops and branches --------------------------------------------------------------------

    def _loop(self, operation: Any, read: list[Any]) -> list[Any]:
        cond, body = (self._body(operation, name) for name in ("cond", "body"))
        carried = [i for i, t in enumerate(body.outputs) if _origin(t) is not body.inputs[i]]
        if any(isinstance(read[i], _List) for i in carried):
            return self._written_out(cond, body, read)
        return self._kept(operation, cond, body, read, carried)

    def _written_out(self, cond: Any, body: Any, values: list[Any]) -> list[Any]:
        """Returns what a loop ends with, its steps written one after the other."""
        while True:
            (more,) = self.run(cond, values)
            if not _known(more):
                raise _open_size()
            if not more.numpy():
                return values
            values = self.run(body, values)

    def _kept(
        self, operation: Any, cond: Any, body: Any, read: list[Any], carried: list[int]
    ) -> list[Any]:
        """Returns what a loop ends with that stays one.

        What no step changes is read from around it.
        """

        def values(inner: Sequence[Any]) -> list[Any]:
            full = list(read)
            for i, value in zip(carried, inner, strict=True):
                full[i] = value
            return full

        def step(*inner: Any) -> list[Any]:
            after = self.run(body, values(inner))
            made = [tf.convert_to_tensor(self.tensor(after[i])) for i in carried]
            for tensor, before in zip(made, start, strict=True):
                tensor.set_shape(before.shape)
            return made

        start = [tf.convert_to_tensor(self.tensor(read[i])) for i in carried]
        ends = tf.while_loop(
            lambda *inner: self.tensor(self.run(cond, values(inner))[0]),
            step,
            start,
            shape_invariants=[tensor.shape for tensor in start],
            parallel_iterations=1,
            name=operation.name.rpartition("/")[2],
        )
        return values(ends)

    def _branch(self, operation: Any, read: list[Any]) -> Sequence[Any]:
        condition, *inputs = read
        sides = [self._body(operation, name) for name in ("then_branch", "else_branch")]
        if _known(condition):
            return self.run(sides[0 if condition.numpy() else 1], inputs)

        def side(graph: Any) -> Callable[[], list[Any]]:
            return lambda: [
                tf.convert_to_tensor(self.tensor(value)) for value in self.run(graph, inputs)
            ]

        return _as_list(tf.cond(condition, side(sides[0]), side(sides[1])))


def _as_list(made: Any) -> list[Any]:
    return list(made) if isinstance(made, list | tuple) else [made]


def _body(operation: Any, attribute: str) -> Any:
    """Returns the graph of a function that an operation calls."""
    name = operation.node_def.attr[attribute].func.name
    with tf.init_scope():  # where all functions are known
        definition = context.context().get_function_def(name)
        return function_def_to_graph.function_def_to_graph(definition)


def _in_order(graph: Any) -> list[Any]:
    """Returns the operations that outputs are made of, each behind what it reads.

    A graph has them in the order of their making: a loop may read lists that were made when its
    gradient was.
    """
    ordered: dict[Any, None] = {}
    waiting = [tensor.op for tensor in reversed(graph.outputs)]
    while waiting:
        operation = waiting[-1]
        before = [t.op for t in operation.inputs if t.op not in ordered]
        if operation in ordered or not before:
            ordered[waiting.pop()] = None
        else:
            waiting += before
    return list(ordered)


def _origin(tensor: Any) -> Any:
    """Returns the tensor that identities hand on."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _copied(operation: Any, read: list[Any]) -> list[Any]:
    graph = tf.compat.v1.get_default_graph()
    attributes = {k: v for k, v in operation.node_def.attr.items() if not k.startswith("_")}
    made = graph.create_op(
        operation.type,
        read,
        [tensor.dtype for tensor in operation.outputs],
        name=operation.name,
        attrs=attributes,
    )
    found: list[Any] = list(made.outputs)
    return found


# -- what is known -----------------------------------------------------------------------------


def _known(value: Any) -> bool:
    return tf.is_tensor(value) and hasattr(value, "numpy") and not isinstance(value, tf.Variable)


def _eager(value: Any, dtype: Any) -> Any:
    with tf.init_scope():
        return tf.constant(value, dtype)


def _computed(operation: Any, read: list[Any]) -> list[Any]:
    """Returns the outputs of an operation of whole numbers that are known."""
    if operation.type == "Const":
        return [_eager(tf.make_ndarray(operation.get_attr("value")), operation.outputs[0].dtype)]
    flat: list[Any] = []
    for attribute in operation.op_def.attr:
        value = operation.get_attr(attribute.name)
        if attribute.type in ("type", "list(type)"):
            several = isinstance(value, list)
            value = [t.as_datatype_enum for t in value] if several else value.as_datatype_enum
        flat += [attribute.name, value]
    with tf.init_scope():
        made = execute.execute(
            operation.type, len(operation.outputs), read, tuple(flat), context.context()
        )
    return list(made)


def _constant(tensor: Any) -> Any:
    """Returns a tensor of whole numbers, known where it can be told."""
    if _known(tensor) or not (tensor.dtype.is_integer or tensor.dtype.is_bool):
        return tensor
    value = tf.get_static_value(tensor)
    return tensor if value is None else _eager(value, tensor.dtype)


def _size(operation: Any, read: Sequence[Any]) -> Any:
    """Returns one size of a tensor where it is known, though others are open."""
    if operation.type != "StridedSlice" or not all(map(_known, read[1:])):
        return None
    shape = read[0]
    if _known(shape) or shape.op.type != "Shape" or operation.get_attr("shrink_axis_mask") != 1:
        return None
    sizes = shape.op.inputs[0].shape
    size = None if sizes.rank is None else sizes[int(read[1].numpy()[0])]
    return None if size is None else _eager(size, operation.outputs[0].dtype)


# -- lists -------------------------------------------------------------------------------------


def _zeros(given: _List) -> Any:
    """Returns the zeros that an item is which nothing was put in.

    Raises:
        ExportError: nothing is in the list that tells its shape.
    """
    if given.like is not None:
        return tf.zeros_like(given.like)
    raise ExportError(
        "a loop reads a list that nothing was put in, of items of unknown shape, which is not "
        "supported in LiteRT."
    )


def _open_size() -> ExportError:
    return ExportError(
        "a loop over an open size (the steps of a recurrent layer, say) can be written for LiteRT "
        "of a fixed size alone: say which, sizes={'time': 20} (--size time=20), by the names that "
        "the artefact's inputs have for their axes."
    )


def _count(value: Any) -> int:
    if not _known(value):
        raise _open_size()
    return int(value.numpy())


def _reserve(_: Any, __: Any, count: Any) -> _List:
    return _List([None] * _count(count))


def _from_tensor(_: Any, tensor: Any, __: Any) -> _List:
    if tensor.shape[0] is None:
        raise _open_size()
    return _List(tf.unstack(tensor, axis=0))


def _set_item(_: Any, given: _List, index: Any, item: Any) -> _List:
    items, at = list(given.items), _count(index)
    items += [None] * (at + 1 - len(items))
    items[at] = item
    return _List(items, given)


def _get_item(_: Any, given: _List, index: Any, __: Any) -> Any:
    item = given.items[_count(index)]
    return _zeros(given) if item is None else item


def _pop(_: Any, given: _List, __: Any) -> list[Any]:
    last = given.items[-1]
    return [_List(given.items[:-1], given), _zeros(given) if last is None else last]


def _stack(_: Any, given: _List, __: Any) -> Any:
    return tf.stack(given.filled())


def _add(_: Any, *lists: _List) -> _List:
    found = []
    for items in itertools.zip_longest(*(given.items for given in lists)):
        there = [item for item in items if item is not None]
        found.append(sum(there[1:], there[0]) if there else None)
    return _List(found, *lists)


_OF_LISTS: Mapping[str, Write] = {
    "EmptyTensorList": lambda *_: _List([]),
    "TensorListReserve": _reserve,
    "TensorListFromTensor": _from_tensor,
    "TensorListSetItem": _set_item,
    "TensorListGetItem": _get_item,
    "TensorListStack": _stack,
    "TensorListPushBack": lambda _, given, item: _List([*given.items, item], given),
    "TensorListPopBack": _pop,
    "TensorListLength": lambda _, given: _eager(len(given.items), tf.int32),
    "TensorListElementShape": lambda op, _: _eager(-1, op.outputs[0].dtype),
    "AddN": _add,
    "ZerosLike": lambda _, given: _List([None] * len(given.items), given),
}
#: Those of them that read no list.
_MAKE_LISTS = frozenset({"EmptyTensorList", "TensorListReserve", "TensorListFromTensor"})
