"""Weights in int8 by onnxruntime's quantisers: of the prediction; gradients pass the same weights.

The quantisers look at the nodes of the outermost graph alone, leave a branch as it is without a
word, and would also round each gradient to 256 steps. So they get the graph without its gate, and
the nodes that the predictions need. What explains then reads the same int8 weights, through a
`DequantizeLinear`: they are stored once, and the gradient is that of the weights that predict,
passed straight through the rounding of activations.

Weights have no sign, as activations have none. Of signed ones onnxruntime adds two products in 16
bits on x86 processors that lack VNNI instructions, and cuts off what does not fit: one file would
say something else on each kind of processor, a fifth off in explanations of a small CNN.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from probegen.errors import ExportError
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import needed_for
from probegen.graph.core.values import constant_of, static_shape
from probegen.graph.passes.after.drop_unused_initializers import drop_unused_initializers

Array = npt.NDArray[Any]

#: What is quantised without samples: products with stored weights.
_DYNAMIC = ("MatMul", "Conv")
#: Domain of operators that a quantiser is not to know.
_HIDDEN = "probegen.hidden"
#: How the quantisers call what they make of a weight.
_QUANTISED, _SCALE, _ZERO = "_quantized", "_scale", "_zero_point"


def rewrite_dynamic(
    model: ir.Model, predictions: int, requests: Sequence[Mapping[str, Array]], folder: Path
) -> ir.Model:
    """Quantises weights; activations are rounded in each run by the range that they then have.

    See `probegen.quantisation.Rewrite`.
    """
    del requests
    from onnxruntime.quantization import QuantType, quantize_dynamic

    forward = needed_for(model.graph, list(model.graph.outputs)[:predictions])
    _hide([node for node in model.graph.all_nodes() if node not in forward])
    model.graph.opset_imports[_HIDDEN] = 1
    found = _rewrite(
        model,
        predictions,
        folder,
        lambda given, made, nodes: quantize_dynamic(
            given,
            made,
            op_types_to_quantize=list(_DYNAMIC),
            nodes_to_quantize=nodes,
            weight_type=QuantType.QUInt8,
        ),
    )
    _show(found.graph.all_nodes())
    del found.graph.opset_imports[_HIDDEN]
    return found


def rewrite_static(
    model: ir.Model, predictions: int, requests: Sequence[Mapping[str, Array]], folder: Path
) -> ir.Model:
    """Quantises weights and activations, whose ranges are those of the samples.

    See `probegen.quantisation.Rewrite`.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands the requests out, one after the other."""

        def __init__(self) -> None:
            self._left = iter(requests)

        def get_next(self) -> dict[str, Array] | None:
            """Returns the next one, None behind the last."""
            following = next(self._left, None)
            return None if following is None else dict(following)

    return _rewrite(
        model,
        predictions,
        folder,
        lambda given, made, nodes: quantize_static(
            given,
            made,
            Reader(),
            nodes_to_quantize=nodes,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
        ),
    )


def _rewrite(model: ir.Model, predictions: int, folder: Path, quantise: Any) -> ir.Model:
    """Has the prediction's nodes quantised, and lets what explains read the same weights.

    Raises:
        ExportError: there is nothing in it that can be quantised.
    """
    graph = model.graph
    forward = needed_for(graph, list(graph.outputs)[:predictions])
    names = [_named(node, at) for at, node in enumerate(graph) if node in forward]
    given, made = folder / "given.onnx", folder / "made.onnx"
    ir.save(model, given)
    with _quiet():
        quantise(str(given), str(made), names)
    found = ir.load(made)
    if not any(n.op_type in _WORKERS for n in found.graph):
        raise ExportError(
            "there is nothing to quantise: the model has no matrix product or convolution with a "
            "stored weight outside of loops. Use to='float16' (--to float16)."
        )
    found.graph.sort()  # which the quantisers forget where they write a Gemm as a MatMul
    _share_weights(found.graph)
    drop_unused_initializers(found)
    return found


#: What a quantiser leaves in the graph where it did something.
_WORKERS = frozenset({"MatMulInteger", "ConvInteger", "QuantizeLinear", "DequantizeLinear"})


def _hide(nodes: Iterable[ir.Node]) -> None:
    """Puts Gemms out of reach of a quantiser that writes each as a MatMul, on a turned copy."""
    for node in nodes:
        if node.op_type == "Gemm" and not node.domain:
            node.domain, node.op_type = _HIDDEN, "Hidden"


def _show(nodes: Iterable[ir.Node]) -> None:
    for node in nodes:
        if node.domain == _HIDDEN:
            node.domain, node.op_type = "", "Gemm"


def _named(node: ir.Node, at: int) -> str:
    node.name = node.name or f"node_{at}"
    return node.name


@contextlib.contextmanager
def _quiet() -> Any:
    """Keeps the quantisers from printing and logging that a model could be prepared for them."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _share_weights(graph: ir.Graph) -> None:
    """Lets what still reads a weight as float32 read the int8 one that was made of it."""
    builder = Builder(graph, graph.opset_imports[""], prefix="probegen/int8")
    stored = graph.initializers
    for name, value in list(stored.items()):
        whole, scale = stored.get(name + _QUANTISED), stored.get(name + _SCALE)
        if whole is None or scale is None or not value.uses():
            continue
        shape, step = static_shape(whole), constant_of(scale)
        if static_shape(value) != shape or step is None or step.size != 1:
            continue  # turned on the way, or a scale a channel: the float stays as well
        zero = stored.get(name + _ZERO)
        back = builder.op("DequantizeLinear", whole, scale, zero, shape=shape)
        back.type = ir.TensorType(ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(value, back)
    if builder.nodes:
        graph.insert_before(graph[0], builder.nodes)
        builder.nodes = []
