"""What handlers write with: ONNX nodes in the place of one TensorFlow operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from tf2onnx.utils import make_name

from probegen.graph.core.marks import MARK_DOMAIN

_Type = onnx.TensorProto

#: As tf2onnx calls it: its graph, the node, the node's name, and arguments that are not used.
Handler = Callable[[Any, Any, str, Any], None]

FLOATS = frozenset({_Type.FLOAT, _Type.FLOAT16, _Type.DOUBLE})
SIGNED = frozenset({_Type.INT8, _Type.INT16, _Type.INT32, _Type.INT64})
UNSIGNED = frozenset({_Type.UINT8, _Type.UINT16, _Type.UINT32, _Type.UINT64})


class Writer:
    """Writes nodes in the place of one node.

    Attributes:
        inputs: names of the node's inputs.
        dtype: element type of the node's first output.
    """

    def __init__(self, context: Any, node: Any) -> None:
        self.context, self.node = context, node
        self.dtype: int = context.get_dtype(node.output[0])
        self.inputs: list[str] = list(node.input)

    # -- what is known ---------------------------------------------------------------------

    def dtype_of(self, name: str) -> int:
        """Returns the element type of a tensor."""
        return int(self.context.get_dtype(name))

    def shape_of(self, name: str) -> list[int] | None:
        """Returns the sizes of a tensor, -1 where one is open; None where the rank is too."""
        value = self.context.get_shape(name)
        return None if value is None else [int(n) for n in value]

    def rank_of(self, name: str) -> int | None:
        """Returns the number of axes of a tensor, None where it is open."""
        shape = self.shape_of(name)
        return None if shape is None else len(shape)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Returns an attribute of the node; text as `str`."""
        value = self.node.get_attr_value(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def value_of(self, name: str) -> Any:
        """Returns what a tensor made of constants and sizes comes to, None for others."""
        return constant_value(self.context, name)

    # -- constants -------------------------------------------------------------------------

    def const(self, value: float, dtype: int | None = None) -> str:
        """Returns a scalar of the node's element type, or of another."""
        return self.array(np.array(value), dtype)

    def array(self, values: Any, dtype: int | None = None) -> str:
        """Returns a constant of the node's element type, or of another."""
        kind = onnx.helper.tensor_dtype_to_np_dtype(self.dtype if dtype is None else dtype)
        return self.constant(np.asarray(values).astype(kind))

    def indices(self, values: Any) -> str:
        """Returns a constant 1-D int64 tensor, as axes and widths need it."""
        return self.constant(np.array(values, np.int64))

    def constant(self, values: Any) -> str:
        """Returns a constant as it is."""
        made = self.context.make_const(make_name(f"{self.node.name}/const"), values)
        return str(made.output[0])

    # -- nodes -----------------------------------------------------------------------------

    def mark(self, op_type: str, name: str) -> str:
        """Writes a mark of our own on a tensor of the node's element type."""
        made = self.context.make_node(
            op_type,
            [name],
            name=make_name(f"{self.node.name}/{op_type}"),
            dtypes=[self.dtype],
            domain=MARK_DOMAIN,
        )
        return str(made.output[0])

    def op(self, op_type: str, *inputs: str, dtype: int | None = None, **attributes: Any) -> str:
        """Writes a node whose output has the node's element type, or another."""
        return self.ops(op_type, *inputs, dtypes=[dtype], **attributes)[0]

    def ops(
        self, op_type: str, *inputs: str, dtypes: Sequence[int | None], **attributes: Any
    ) -> list[str]:
        """Writes a node with as many outputs as there are element types."""
        made = self.context.make_node(
            op_type,
            list(inputs),
            attr=attributes,
            name=make_name(f"{self.node.name}/{op_type}"),
            output_count=len(dtypes),
            dtypes=[self.dtype if d is None else d for d in dtypes],
        )
        return [str(name) for name in made.output]

    def cast(self, name: str, dtype: int) -> str:
        """Returns a tensor as another element type; the tensor where it has that."""
        return (
            name if self.dtype_of(name) == dtype else self.op("Cast", name, dtype=dtype, to=dtype)
        )

    def test(self, op_type: str, *inputs: str) -> str:
        """Writes a node that gives booleans."""
        return self.op(op_type, *inputs, dtype=_Type.BOOL)

    def where(self, condition: str, one: str, other: str) -> str:
        """Returns elements of `one` where the condition holds, of `other` elsewhere."""
        return self.op("Where", condition, one, other, dtype=self.dtype_of(one))

    def unsqueeze(self, name: str, axes: Sequence[int]) -> str:
        """Returns a tensor with axes of size 1 put in."""
        return self.op("Unsqueeze", name, self.indices(axes), dtype=self.dtype_of(name))

    def reshape(self, name: str, sizes: Sequence[int]) -> str:
        """Returns a tensor with other sizes: 0 keeps one, -1 takes the rest."""
        return self.op("Reshape", name, self.indices(sizes), dtype=self.dtype_of(name))

    def sum(self, name: str, axes: Sequence[int], *, keepdims: bool = False) -> str:
        """Returns the sum along axes."""
        dtype = self.dtype_of(name)
        return self.op("ReduceSum", name, self.indices(axes), dtype=dtype, keepdims=int(keepdims))

    def sizes(self, name: str) -> str:
        """Returns the sizes of a tensor as a 1-D int64 tensor."""
        return self.op("Shape", name, dtype=_Type.INT64)

    def size(self, name: str, axis: int) -> str:
        """Returns the size of an axis counted from the front, as an int64 tensor `[1]`."""
        bounds = self.indices([axis]), self.indices([axis + 1])
        return self.op("Slice", self.sizes(name), *bounds, dtype=_Type.INT64)

    def concat(self, names: Sequence[str], axis: int = 0) -> str:
        """Returns tensors one behind the other."""
        return self.op("Concat", *names, dtype=self.dtype_of(names[0]), axis=axis)

    def finish(self, op_type: str, *inputs: str, **attributes: Any) -> None:
        """Writes the last node, under the name and with the output of the original."""
        name, outputs = self.node.name, list(self.node.output)
        shapes = [self.context.get_shape(o) for o in outputs]
        dtypes = [self.context.get_dtype(o) for o in outputs]
        self.context.remove_node(name)
        self.context.make_node(
            op_type,
            list(inputs),
            attr=attributes,
            name=name,
            outputs=outputs,
            shapes=shapes,
            dtypes=dtypes,
        )

    def give(self, *names: str) -> None:
        """Puts tensors in the place of the original's outputs, cast to their element types."""
        outputs = list(self.node.output)
        described = [(self.context.get_shape(o), self.context.get_dtype(o)) for o in outputs]
        origin = self.node.name
        self.context.remove_node(origin)
        for i, (output, name, (shape, dtype)) in enumerate(
            zip(outputs, names, described, strict=True)
        ):
            same = self.dtype_of(name) == dtype
            self.context.make_node(
                "Identity" if same else "Cast",
                [name],
                attr={} if same else {"to": dtype},
                name=origin if i == 0 else make_name(f"{origin}/output"),
                outputs=[output],
                shapes=[shape],
                dtypes=[dtype],
            )


def constant_value(context: Any, name: str) -> Any:
    """Returns what a tensor made of constants and sizes comes to, None for others."""
    node = context.get_node_by_output(name)
    if node is None:
        return None
    if node.is_const():
        return node.get_tensor_value(as_list=False)
    if node.type == "Shape":
        return np.array(context.get_shape(node.input[0]))
    inputs = [constant_value(context, i) for i in node.input] if node.type in _FOLDED else [None]
    return None if any(v is None for v in inputs) else _FOLDED[node.type](*inputs)


#: Operations between the size of an image and the scale it is resized by.
_FOLDED: Mapping[str, Callable[..., Any]] = {
    "Cast": lambda x: x,
    "Div": lambda a, b: (a / b).astype(np.float32),
    "Slice": lambda x, starts, ends, *_: x[starts[0] : ends[0]],
}


def refuse(_: Any, node: Any, __: str, ___: Any) -> None:
    """Refuses an operation that ONNX has under the same name, with the reason in `REFUSED`.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{node.type} has no form here")


def leave(_: Any, __: Any, ___: str, ____: Any) -> None:
    """Leaves an operation as it is, to be refused with the reason in `REFUSED`."""
