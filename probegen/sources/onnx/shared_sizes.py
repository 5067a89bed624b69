"""What a graph puts together from its open sizes, made once for all that reads it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from probegen.graph.core.size_products import factors_of, product_of
from probegen.graph.core.values import Dim, new_initializer, shape_of
from probegen.sources.onnx.known_elements import Known
from probegen.sources.onnx.names import AllNames


def share_sizes(model: ir.Model, known: Mapping[ir.Value, Known], names: AllNames) -> bool:
    """Computes each value that consists of open sizes once, from the shapes of the inputs.

    `Reshape(y, Concat(Gather(Shape(h)), 8))` with h `[batch, 96]` -> `Reshape(y, Concat(Shape(x),
    8))` with x the input of that batch; the same for all such targets.

    Needs: what is known of the graph as it is now.

    Returns:
        Whether anything was: inference may then find sizes that it could not follow before.
    """
    changed = False
    shared = _Shared(model.graph, names)
    whole = {v: content for v, content in known.items() if None not in content.reshape(-1).tolist()}
    for value, content in whole.items():
        if value.dtype != ir.DataType.INT64 or content.ndim > 1 or value.graph is not model.graph:
            continue
        for use in list(value.uses()):
            if use.node.op_type in ("If", "Loop", "Scan") or use.node.outputs[0] in whole:
                continue
            same = shared.value(content)
            if same is not None and same is not value:
                use.node.replace_input_with(use.idx, same)
                changed = True
    shared.attach()
    return changed


class _Shared:
    """Values that are put together from sizes of the inputs, each once."""

    def __init__(self, graph: ir.Graph, names: AllNames) -> None:
        self._graph, self._names = graph, names
        self._places: dict[str, tuple[ir.Value, int]] = {}
        for value in graph.inputs:
            for axis, size in enumerate(shape_of(value) or ()):
                if isinstance(size, str):
                    self._places.setdefault(size, (value, axis))
        self._made: dict[tuple[object, ...], ir.Value] = {}
        self._nodes: list[ir.Node] = []

    def value(self, content: Known) -> ir.Value | None:
        """Returns a value of that content, None where an input does not have a size of it."""
        elements = content.reshape(-1).tolist()
        if not all(factors_of(d)[1].keys() <= self._places.keys() for d in elements):
            return None
        parts = [self._part(d) for d in elements]
        whole = parts[0]
        if len(parts) > 1:
            whole = self._once(("Concat", *elements), "Concat", parts, axis=0)
        if content.ndim == 0:
            axis = self._part(0)
            whole = self._once(("Squeeze", *elements), "Squeeze", [whole, axis])
        return whole

    def _part(self, size: Dim) -> ir.Value:
        if isinstance(size, str):
            number, names = factors_of(size)
            first, *others = ([] if number == 1 else [number]) + sorted(names.elements())
            if others:
                return self._product(first, others)
            source, axis = self._places[size]
            return self._once((size,), "Shape", [source], start=axis, end=axis + 1)
        if (size,) not in self._made:
            name = self._names.values.unique(f"sizes/{size}")
            array = np.asarray([size], dtype=np.int64)
            self._made[size,] = new_initializer(self._graph, name, array)
        return self._made[size,]

    def _product(self, size: Dim, others: list[int | str]) -> ir.Value:
        whole = self._part(size)
        for other in others:
            size = product_of([size, other])
            whole = self._once((size,), "Mul", [whole, self._part(other)])
        return whole

    def _once(
        self, key: tuple[object, ...], op_type: str, inputs: list[ir.Value], **attributes: int
    ) -> ir.Value:
        if key not in self._made:
            name = "_".join(str(k) for k in (key if len(key) == 1 else key[1:])).replace(" ", "")
            node = ir.node(op_type, inputs, attributes)
            node.name = self._names.nodes.unique(f"sizes/{name}")
            result = node.outputs[0]
            result.name = self._names.values.unique(f"sizes/{name}")
            rank = 0 if op_type == "Squeeze" else 1
            result.type = ir.TensorType(ir.DataType.INT64)
            result.shape = ir.Shape([len(key) - 1 if op_type == "Concat" else 1] * rank)
            self._made[key] = result
            self._nodes.append(node)
        return self._made[key]

    def attach(self) -> None:
        """Puts what was made at the beginning of the graph."""
        if self._nodes:
            self._graph.insert_before(self._graph[0], self._nodes)
