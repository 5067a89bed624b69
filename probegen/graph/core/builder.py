"""The small graph builder that everything in `probegen.graph` writes ONNX nodes with.

A builder collects new nodes; the graph it belongs to is not changed until `attach` puts them
at its end (or the gate puts them into a branch). Values carry shape and dtype as far as the
caller knows them, so that later rules can decide at compile time what would otherwise cost
nodes at run time.

Sizes are known in three degrees: a number, the name of an open size (two values that carry
one name have one size there), or nothing. Every helper writes the constant form where the
degree allows it and the form decided at run time where it does not; none assumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.replacing import take_place
from probegen.graph.core.values import (
    Dim,
    _names_in,
    broadcast,
    dims_of,
    dtype_of,
    rank_of,
    same_shape,
    shape_of,
    static_shape,
)

#: A size to reshape to: a number, or the size of an axis (not negative) of a value.
Size = int | tuple[ir.Value, int]


class Builder:
    """Collects new nodes over the values of one graph.

    Attributes:
        graph: the graph whose values may be used; constants become its initializers.
        opset: version of the standard operators that nodes are written for, 13 or later.
        nodes: what was written so far, in topological order, owned by no graph yet.
        forward: the graph whose nodes gradients are taken of: its own, or for the body of a loop
            that holds a backward pass alone, the graph around.
    """

    def __init__(
        self,
        graph: ir.Graph,
        opset: int,
        prefix: str = "probegen",
        taken: set[str] | None = None,
    ) -> None:
        """Makes a builder.

        Args:
            graph: see the class.
            opset: see the class.
            prefix: what names of new values begin with.
            taken: the names that are taken, where they are known; those that the builder takes
                are added.
        """
        self.graph = graph
        self.opset = opset
        self.nodes: list[ir.Node] = []
        self.forward = graph
        self._prefix = prefix
        self._taken = taken
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    # -- writing -------------------------------------------------------------------------

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        shape: Sequence[Dim] | ir.Value | None = None,
        dtype: ir.DataType | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Writes one node with one output and returns that output.

        Args:
            op_type: ONNX operator.
            *inputs: its inputs; None leaves an optional one out.
            shape: what is known of the output's shape, or a value that has the same.
            dtype: the output's element type; that of the first input by default.
            domain: operator domain.
            **attributes: plain Python values, `ir.Attr` or graphs; None leaves one out.
        """
        return self.ops(
            op_type, *inputs, outputs=1, shapes=[shape], dtype=dtype, domain=domain, **attributes
        )[0]

    def ops(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int,
        shapes: Sequence[Sequence[Dim] | ir.Value | None] | None = None,
        dtype: ir.DataType | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Writes one node with several outputs; see `op`."""
        node = ir.node(
            op_type,
            inputs,
            attributes={k: v for k, v in attributes.items() if v is not None},
            domain=domain,
            num_outputs=outputs,
            name=self.fresh(op_type),
        )
        if dtype is None and inputs and inputs[0] is not None:
            dtype = inputs[0].dtype
        for position, value in enumerate(node.outputs):
            shape = shapes[position] if shapes is not None else None
            self._describe(value, op_type, shape, dtype)
        self.nodes.append(node)
        return tuple(node.outputs)

    def again(
        self,
        node: ir.Node,
        operands: Sequence[ir.Value | None],
        shapes: Sequence[Sequence[Dim] | None],
        changes: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[ir.Value, ...]:
        """Writes the operator of a node once more, on other operands; returns its outputs.

        Its attributes go along whatever they are called: EyeLike has one called `dtype`.

        Args:
            node: any node.
            operands: what it reads in the place of its inputs.
            shapes: of its outputs, whose element types are those of the node's.
            changes: attributes in the place of its own.
        """
        made = ir.node(
            node.op_type,
            list(operands),
            attributes={**node.attributes, **changes},
            domain=node.domain,
            num_outputs=len(node.outputs),
            name=self.fresh(node.op_type),
        )
        for value, original, shape in zip(made.outputs, node.outputs, shapes, strict=True):
            self._describe(value, node.op_type, shape, None)
            value.type = original.type
        self.nodes.append(made)
        return tuple(made.outputs)

    def output(
        self, node: ir.Node, index: int, shape: Sequence[Dim] | ir.Value | None, dtype: ir.DataType
    ) -> ir.Value:
        """Returns output `index` of a forward node, asking the node for it where it has none.

        Optional outputs (indices of a pooling, the mean of a normalisation) cost a runtime
        little and a backward pass much if they are to be found again. This is the one way in
        which a builder touches a forward node.
        """
        if index >= len(node.outputs):
            node.resize_outputs(index + 1)
        value = node.outputs[index]
        if not value.name:
            self._describe(value, f"{node.op_type}_{index}", shape, dtype)
        return value

    def const(self, array: npt.ArrayLike, dtype: ir.DataType | None = None) -> ir.Value:
        """Returns an initializer with the given content; equal contents share one."""
        data = np.asarray(array)
        if dtype is not None:
            data = data.astype(dtype.numpy())
        key = (data.dtype.name, data.shape, data.tobytes())
        found = self._constants.get(key)
        if found is None:
            name = self.fresh("const")
            found = ir.Value(
                name=name,
                shape=ir.Shape(data.shape),
                const_value=ir.Tensor(data, name=name),
            )
            found.dtype = ir.DataType.from_numpy(data.dtype)
            self.graph.register_initializer(found)
            self._constants[key] = found
        return found

    def ints(self, *values: int) -> ir.Value:
        """Returns a constant 1-D int64 tensor, as axes, shapes and paddings need it."""
        return self.const(np.asarray(values, dtype=np.int64))

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """Returns a constant scalar of the element type of `like`."""
        return self.const(number, dtype_of(like))

    # -- arithmetic ----------------------------------------------------------------------

    def elementwise(
        self,
        op_type: str,
        *operands: ir.Value | float,
        shape: Sequence[Dim] | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Writes an operator that broadcasts its operands, of which one at least is a value.

        Numbers become scalars of the first value's element type. Comparisons give bool. The
        result's shape is what the operands broadcast to, or `shape` where that is known better.
        """
        first = next(o for o in operands if isinstance(o, ir.Value))
        values = [o if isinstance(o, ir.Value) else self.scalar(o, first) for o in operands]
        dtype = ir.DataType.BOOL if op_type in _COMPARISONS else first.dtype
        shape = broadcast(*(shape_of(v) for v in values)) if shape is None else shape
        return self.op(op_type, *values, shape=shape, dtype=dtype, **attributes)

    def add(self, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        """Returns a + b; adding the number 0 writes nothing."""
        return _neutral(0, a, b) or self.elementwise("Add", a, b)

    def sub(self, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        """Returns a - b."""
        return self.elementwise("Sub", a, b)

    def mul(self, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        """Returns a * b; multiplying by the number 1 writes nothing."""
        return _neutral(1, a, b) or self.elementwise("Mul", a, b)

    def div(self, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        """Returns a / b."""
        return self.elementwise("Div", a, b)

    def neg(self, a: ir.Value) -> ir.Value:
        """Returns -a."""
        return self.elementwise("Neg", a)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Writes a Cast, or nothing where `value` has that element type."""
        if value.dtype == dtype:
            return value
        return self.op("Cast", value, shape=value, dtype=dtype, to=int(dtype))

    def where(self, condition: ir.Value, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        """Returns a where `condition` holds, else b; one of them is a value."""
        first = a if isinstance(a, ir.Value) else b
        if not isinstance(first, ir.Value):
            raise TypeError("one of the two choices has to be a value")
        values = [o if isinstance(o, ir.Value) else self.scalar(o, first) for o in (a, b)]
        shape = broadcast(*(shape_of(v) for v in (condition, *values)))
        return self.op("Where", condition, *values, shape=shape, dtype=first.dtype)

    def reduce(
        self, op_type: str, value: ir.Value, axes: Sequence[int], keepdims: bool
    ) -> ir.Value:
        """Writes a reduction over `axes` (not negative), or nothing where there are none.

        The axes are an input or an attribute, as the operator has it at this opset.
        """
        if not axes:
            return value
        shape = shape_of(value)
        kept: list[Dim] | None = None
        if shape is not None:
            kept = [1 if i in axes else d for i, d in enumerate(shape) if keepdims or i not in axes]
        if op_type == "ReduceSum" or self.opset >= 18:
            return self.op(op_type, value, self.ints(*axes), shape=kept, keepdims=int(keepdims))
        return self.op(op_type, value, shape=kept, axes=list(axes), keepdims=int(keepdims))

    def reduce_sum(self, value: ir.Value, axes: Sequence[int], keepdims: bool) -> ir.Value:
        """Writes a ReduceSum over `axes` (not negative), or nothing where there are none."""
        return self.reduce("ReduceSum", value, axes, keepdims)

    # -- shapes --------------------------------------------------------------------------

    def reshape(self, value: ir.Value, sizes: Sequence[Size]) -> ir.Value:
        """Writes a Reshape to `sizes`, of which one number may be -1; 0 means no elements.

        The target is constant where at most one size is open that is not found at the same
        place in `value`: a Reshape copies such a size, and infers one other.
        """
        dims = [self._dim(size) for size in sizes]
        known = [None if dim == -1 else dim for dim in dims]
        given = shape_of(value) or ()
        target: list[int] = []
        for i, dim in enumerate(dims):
            if isinstance(dim, int):
                target.append(dim)
            else:
                copied = dim is not None and i < len(given) and given[i] == dim
                target.append(0 if copied else -1)
        if target.count(-1) <= 1 and 0 not in dims:
            return self.op("Reshape", value, self.ints(*target), shape=known)
        # A size of 0, known or met at run time, is a size here and no request to copy one.
        literal = 1 if self.opset >= 14 and -1 not in dims else None
        return self.op("Reshape", value, self._size_vector(sizes), shape=known, allowzero=literal)

    def reshape_like(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Writes a Reshape of `value` to the shape of `like`, or nothing where they agree."""
        if same_shape(value, like):
            return value
        if like.shape is None:
            return self.op("Reshape", value, self.shape_value(like))
        return self.reshape(value, [(like, axis) for axis in range(rank_of(like))])

    def _dim(self, size: Size) -> Dim:
        """Returns a size of `reshape` as far as it is known."""
        if isinstance(size, int):
            return size
        shape = shape_of(size[0])
        return None if shape is None else shape[size[1]]

    def _size_vector(self, sizes: Sequence[Size]) -> ir.Value:
        """Returns sizes as a 1-D int64 tensor that is put together at run time."""
        if all(isinstance(self._dim(size), int) for size in sizes):
            return self.ints(*(d for d in map(self._dim, sizes) if isinstance(d, int)))
        values = {size[0] for size in sizes if isinstance(size, tuple)}
        if len(values) == 1:
            like = values.pop()
            if list(sizes) == [(like, axis) for axis in range(rank_of(like))]:
                return self.shape_value(like)
        pieces = [self.ints(s) if isinstance(s, int) else self.size(*s) for s in sizes]
        return self.concat(pieces, axis=0)

    def shape_value(self, value: ir.Value) -> ir.Value:
        """Returns the run-time shape of `value` as a 1-D int64 tensor, constant where static."""
        static = static_shape(value)
        if static is not None:
            return self.ints(*static)
        rank = None if value.shape is None else [len(value.shape)]
        return self.op("Shape", value, shape=rank, dtype=ir.DataType.INT64)

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """Returns the size of one axis (not negative) as int64 `[1]`, constant where static."""
        shape = shape_of(value)
        dim = None if shape is None else shape[axis]
        if isinstance(dim, int):
            return self.ints(dim)
        if self.opset >= 15:
            return self.op(
                "Shape", value, shape=[1], dtype=ir.DataType.INT64, start=axis, end=axis + 1
            )
        return self.op("Gather", self.shape_value(value), self.ints(axis), shape=[1], axis=0)

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """Writes a Transpose, or nothing where `perm` changes nothing."""
        if list(perm) == sorted(perm):
            return value
        shape = shape_of(value)
        moved = None if shape is None else [shape[p] for p in perm]
        return self.op("Transpose", value, shape=moved, perm=list(perm))

    def unsqueeze(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Writes an Unsqueeze; `axes` (sorted, not negative) are positions in the result."""
        if not axes:
            return value
        shape = shape_of(value)
        widened: list[Dim] | None = None
        if shape is not None:
            rest = iter(shape)
            widened = [1 if i in axes else next(rest) for i in range(len(shape) + len(axes))]
        return self.op("Unsqueeze", value, self.ints(*axes), shape=widened)

    def squeeze(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Writes a Squeeze of `axes` (not negative), or nothing where there are none."""
        if not axes:
            return value
        shape = shape_of(value)
        kept = None if shape is None else [d for i, d in enumerate(shape) if i not in axes]
        return self.op("Squeeze", value, self.ints(*axes), shape=kept)

    def concat(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """Writes a Concat along `axis` (not negative), or nothing for a single value."""
        if len(values) == 1:
            return values[0]
        shapes = [shape_of(v) for v in values]
        joined: list[Dim] | None = None
        if shapes[0] is not None:
            sizes = [None if s is None else s[axis] for s in shapes]
            known = [d for d in sizes if isinstance(d, int)]
            joined = list(shapes[0])
            joined[axis] = sum(known) if len(known) == len(sizes) else None
        return self.op("Concat", *values, shape=joined, axis=axis)

    def slice(self, value: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
        """Writes a Slice of one axis: `value[start:stop]` with 0 <= start <= stop <= size."""
        shape = shape_of(value)
        cut: list[Dim] | None = None
        if shape is not None:
            cut = list(shape)
            cut[axis] = stop - start
        bounds = (self.ints(start), self.ints(stop), self.ints(axis))
        return self.op("Slice", value, *bounds, shape=cut)

    def pad(self, value: ir.Value, before: Sequence[int], after: Sequence[int]) -> ir.Value:
        """Writes a Pad with zeros, or nothing where all widths are 0."""
        if not any((*before, *after)):
            return value
        shape = shape_of(value)
        grown: list[Dim] | None = None
        if shape is not None:
            grown = [
                d if not lo + hi else d + lo + hi if isinstance(d, int) else None
                for d, lo, hi in zip(shape, before, after, strict=True)
            ]
        return self.op("Pad", value, self.ints(*before, *after), shape=grown)

    def expand(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Broadcasts `value` to the shape of `like`, both of one rank.

        Nothing is written where the shapes are known to agree. The target is constant as far
        as possible: a 1 in it leaves an axis alone that has its full size already.
        """
        if same_shape(value, like):
            return value
        given, wanted = shape_of(value), shape_of(like)
        if given is None or wanted is None:
            return self.op("Expand", value, self.shape_value(like), shape=like)
        target: list[int] = []
        for have, want in zip(given, wanted, strict=True):
            if isinstance(want, int):
                target.append(want)
            elif want is not None and have == want:
                target.append(1)
            else:
                return self.op("Expand", value, self.shape_value(like), shape=like)
        return self.op("Expand", value, self.ints(*target), shape=like)

    def unbroadcast(
        self, gradient: ir.Value, like: ir.Value, shape: Sequence[Dim] | None = None
    ) -> ir.Value:
        """Sums `gradient` down to the shape of `like`, undoing numpy broadcasting.

        Nothing is written where the shapes are known to agree. Where it is open whether an
        axis was broadcast (its sizes carry different names), the sum is decided at run time.

        Args:
            gradient: what to sum.
            like: a value whose shape broadcasts to that of `gradient`.
            shape: the shape of `gradient`, where it is known better than the value knows it.

        Raises:
            UnknownShapeError: one of the two ranks is unknown.
        """
        of_gradient = dims_of(gradient) if shape is None else tuple(shape)
        of_like = dims_of(like)
        if of_gradient == of_like and None not in of_like:
            return gradient
        extra = len(of_gradient) - len(of_like)
        axes = []
        for i, (have, want) in enumerate(zip(of_gradient[extra:], of_like, strict=True)):
            if want == 1 and have != 1:
                axes.append(extra + i)
            elif not isinstance(want, int) and have != 1 and (want is None or have != want):
                return self._unbroadcast_at_run_time(gradient, like, of_gradient)
        leading = list(range(extra))
        if not axes:
            return self.reduce_sum(gradient, leading, keepdims=False)
        summed = self.reduce_sum(gradient, leading + axes, keepdims=True)
        return self.squeeze(summed, leading)

    def _unbroadcast_at_run_time(
        self, gradient: ir.Value, like: ir.Value, shape: Sequence[Dim]
    ) -> ir.Value:
        """Sums over axes of which the sizes say at run time how often they were repeated.

        Each such axis of size n is split in two, the size m that `like` has and n / m, and the
        second is summed over, be it 1. So the axes of the sum are constants: OpenVINO takes no
        others.
        """
        rank = rank_of(like)
        extra = len(shape) - rank
        gradient = self.reduce_sum(gradient, list(range(extra)), keepdims=False)
        open_axes = [
            i
            for i, (have, want) in enumerate(zip(shape[extra:], dims_of(like), strict=True))
            if have != 1 and (want in (None, 1) or (isinstance(want, str) and have != want))
        ]
        have, want = self.shape_value(gradient), self.shape_value(like)
        repeats = self.elementwise(
            "Div", have, self.elementwise("Max", want, self.ints(*[1] * rank))
        )
        both = self.concat([want, repeats], axis=0)
        places = [p for i in range(rank) for p in ([i, rank + i] if i in open_axes else [i])]
        sizes = self.op("Gather", both, self.ints(*places), shape=[len(places)], axis=0)
        literal = 1 if self.opset >= 14 else None
        apart = self.op("Reshape", gradient, sizes, shape=[None] * len(places), allowzero=literal)
        return self.op(
            "ReduceSum",
            apart,
            self.ints(*(i for i, p in enumerate(places) if p >= rank)),
            shape=like,
            keepdims=0,
        )

    def count_up(self, end: ir.Value, size: Dim = None) -> ir.Value:
        """Writes 0, 1, 2... below a number.

        Args:
            end: the number, int64 `[]` or `[1]`.
            size: the same as a size, where it is known.
        """
        zero, one = self.const(np.int64(0)), self.const(np.int64(1))
        if shape_of(end):  # `[1]`
            end = self.squeeze(end, [0])
        return self.op("Range", zero, end, one, shape=[size], dtype=ir.DataType.INT64)

    def zeros(self, sizes: Sequence[Size], dtype: ir.DataType) -> ir.Value:
        """Returns zeros of the given sizes (of which none is -1) and element type."""
        return self._zeros(self._size_vector(sizes), [self._dim(size) for size in sizes], dtype)

    def zeros_like(self, value: ir.Value) -> ir.Value:
        """Returns zeros of the shape and element type of `value`."""
        return self._zeros(self.shape_value(value), value, dtype_of(value))

    def _zeros(
        self, sizes: ir.Value, shape: Sequence[Dim] | ir.Value, dtype: ir.DataType
    ) -> ir.Value:
        # ConstantOfShape learnt this one type late.
        late = dtype == ir.DataType.BFLOAT16 and self.opset < 20
        first = ir.DataType.FLOAT if late else dtype
        zero = ir.Tensor(np.zeros(1, dtype=first.numpy()))
        zeros = self.op("ConstantOfShape", sizes, shape=shape, dtype=first, value=zero)
        return self.cast(zeros, dtype)

    # -- finishing -----------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """Returns a name that no value or node of the graph has."""
        if self._taken is None:  # Asked for late: most passes over a graph write nothing into it.
            self._taken = _names_in(self.graph)
        while True:
            name = f"{self._prefix}/{hint}_{self._count}"
            self._count += 1
            if name not in self._taken:
                # What is given up half-way leaves constants behind, which have their names.
                self._taken.add(name)
                return name

    def attach(self) -> None:
        """Puts the collected nodes at the end of the graph."""
        self.graph.extend(self.nodes)
        self.nodes = []

    def insert_before(self, node: ir.Node) -> None:
        """Puts the collected nodes before a node of the graph, or of one inside of it.

        Raises:
            TypeError: it stands in none, or in a function.
        """
        if not isinstance(node.graph, ir.Graph):
            raise TypeError(f"{node.name!r} belongs to no graph")
        node.graph.insert_before(node, self.nodes)
        self.nodes = []

    def replace(self, node: ir.Node, results: Sequence[ir.Value | None]) -> list[ir.Node]:
        """Puts the collected nodes in the place of a node, which is taken out.

        What stands for an output has its name then. What other nodes make, or stands for an output
        before already, keeps its own; where an output of the graph needs a name, or one collected
        here would have two, an Identity has it.

        Args:
            node: a node of the graph, or of one inside of it.
            results: for each output of the node what stands for it, None for one that nothing
                reads.

        Returns:
            The nodes that stand there now.

        Raises:
            TypeError: the node stands in no graph, or in a function.
        """
        collected = {value for made in self.nodes for value in made.outputs}
        nameless = set(collected)
        for old, result in zip(node.outputs, results, strict=True):
            new = result
            if new is None:
                continue
            if new not in nameless and (old.is_graph_output() or new in collected):
                new = self.op("Identity", new, shape=new)
                nameless.add(new)
            if new in nameless and old.name:
                nameless.discard(new)
                take_place(old, new)
            else:
                ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        nodes = self.nodes
        self.insert_before(node)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
        return nodes

    def _describe(
        self,
        value: ir.Value,
        hint: str,
        shape: Sequence[Dim] | ir.Value | None,
        dtype: ir.DataType | None,
    ) -> None:
        """Names a new value and notes what is known of it."""
        value.name = self.fresh(hint)
        if dtype is not None:
            value.dtype = dtype
        if isinstance(shape, ir.Value):
            shape = shape_of(shape)
        if shape is not None:
            value.shape = ir.Shape(list(shape))


_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})


def _neutral(number: float, a: ir.Value | float, b: ir.Value | float) -> ir.Value | None:
    """Returns the operand that an operation with the neutral `number` leaves as it is."""
    if isinstance(a, ir.Value) and not isinstance(b, ir.Value) and b == number:
        return a
    if isinstance(b, ir.Value) and not isinstance(a, ir.Value) and a == number:
        return b
    return None
