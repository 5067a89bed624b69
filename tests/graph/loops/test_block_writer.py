"""Loops whose turn takes a block of steps, against numpy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.core.builder import Builder
from probegen.graph.loops.block_writer import BlockWriter
from probegen.graph.loops.hoist import Collected
from tests.graph.vjp.harness import run

BATCH, WIDTH, BLOCK = 2, 3, 4


@pytest.mark.parametrize("time", [1, 4, 7, 12])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("open_sizes", [False, True])
@pytest.mark.parametrize("opset", [13, 18])
def test_running_sums(time: int, backwards: bool, open_sizes: bool, opset: int) -> None:
    """Rows are put in where the run ends, so that what is collected before is a running sum."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="sums")
    kind = ir.TensorType(ir.DataType.DOUBLE)
    sizes = ["time", "batch", WIDTH] if open_sizes else [time, BATCH, WIDTH]
    x = ir.Value(name="x", type=kind, shape=ir.Shape(sizes))
    first = ir.Value(name="first", type=kind, shape=ir.Shape(sizes[1:]))
    graph.inputs.extend([x, first])
    builder = Builder(graph, opset)
    loop = BlockWriter(builder, x, BLOCK)
    blocks = loop.blocks(x, WIDTH, in_front=backwards)
    inside = loop.each(loop.read(blocks, backwards=backwards), backwards=backwards)
    total = loop.carry(first)
    sums = []
    for one in inside:
        total = loop.body.op("Add", total, one, shape=total)
        sums.append(total)
    collected = Collected(loop.join(sums, backwards=backwards), backwards)
    (last,), (stack,) = loop.finish([loop.without_tiny(total)], [collected])
    result = loop.steps_of(stack, in_front=backwards)
    graph.outputs.extend([result, last])
    builder.attach()
    values = np.random.default_rng(time).normal(size=(time, BATCH, WIDTH))
    start = np.full((BATCH, WIDTH), 0.5)
    proto = ir.to_proto(ir.Model(graph, ir_version=9))
    found = run(proto, {"x": values, "first": start})
    order = slice(None, None, -1) if backwards else slice(None)
    expected = (start + np.cumsum(values[order], axis=0))[order]
    np.testing.assert_allclose(found[str(result.name)], expected, rtol=1e-12)
    np.testing.assert_allclose(found[str(last.name)], start + values.sum(0), rtol=1e-12)
