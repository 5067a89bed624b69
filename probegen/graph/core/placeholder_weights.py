"""Placeholders: constants of which shape and type count and the content does not.

A graph whose weights are placeholders says what it would compute and how much of it, and costs
neither the time nor the memory that its weights would.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.core.values import constant_of, static_shape

#: Stands for every element: a number that no rule and no pass has a shorter form for.
_ANY = 0.5


class PlaceholderTensor(ir.Tensor):  # type: ignore[type-arg]
    """A tensor that repeats one number and holds it once."""

    def __init__(self, shape: tuple[int, ...], dtype: ir.DataType, name: str | None) -> None:
        """Makes a tensor of a shape and an element type."""
        content: Any = np.broadcast_to(np.array(_ANY).astype(dtype.numpy()), shape)
        super().__init__(content, dtype=dtype, name=name)


def make_placeholder(graph: ir.Graph, value: ir.Value) -> None:
    """Makes an initializer with placeholder content of a value of known shape and element type.

    Raises:
        ValueError: one of the two is not known.
    """
    shape, dtype = static_shape(value), value.dtype
    if shape is None or dtype is None:
        raise ValueError(f"{value.name!r} has no known shape and element type")
    value.const_value = PlaceholderTensor(shape, dtype, value.name)
    graph.register_initializer(value)


def is_placeholder(value: ir.Value | None) -> bool:
    """Tells whether a value is a constant with placeholder content."""
    return value is not None and isinstance(value.const_value, PlaceholderTensor)


def fold_placeholders(graph: ir.Graph) -> None:
    """Makes placeholders of what is computed from placeholders and other constants alone.

    With their content the conversion would have folded these. Needs shapes inferred; what has
    an open shape stays.
    """
    for node in list(graph):
        if not any(map(is_placeholder, node.inputs)):
            continue
        constant = all(
            v is None or is_placeholder(v) or constant_of(v) is not None for v in node.inputs
        )
        if not constant or any(static_shape(v) is None or v.dtype is None for v in node.outputs):
            continue
        for value in node.outputs:
            folded = ir.Value(name=f"{value.name}/placeholder", type=value.type, shape=value.shape)
            make_placeholder(graph, folded)
            value.replace_all_uses_with(folded)
        graph.remove(node, safe=True)
