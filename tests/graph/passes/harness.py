"""Graphs in ONNX text, and passes applied to them: the values stay, and what is left is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import numpy_helper

from probegen.graph.shape_inference import infer_shapes

RNG = np.random.default_rng(0)
#: Two images of 16 channels; height and width differ.
IMAGES = "float[batch, 16, 6, 5] x, float[batch, 16, 6, 5] z"
#: What open sizes are in the two runs of `changed`.
RUNS: tuple[dict[str, int], ...] = (
    {"batch": 3, "time": 7, "rows": 1},
    {"batch": 1, "time": 4, "rows": 5},
)


def parsed(
    body: str,
    outputs: str = "y",
    inputs: str = IMAGES,
    opset: int = 18,
    infer: Callable[[ir.Model], object] = infer_shapes,
    **constants: np.ndarray,
) -> ir.Model:
    """Returns a model, its shapes inferred.

    Args:
        body: nodes in ONNX text.
        outputs: names of the outputs.
        inputs: inputs in ONNX text.
        opset: of the standard operators.
        infer: infers shapes; ours narrows Slices before.
        **constants: initializers; those that no node reads are left out.
    """
    results = ", ".join(f"float[] {name}" for name in outputs.split())
    imports = f'["" : {opset}, "probegen" : 1]'
    proto = onnx.parser.parse_model(
        f"<ir_version: 8, opset_import: {imports}> g ({inputs}) => ({results}) {{ {body} }}"
    )
    for value in proto.graph.output:
        value.ClearField("type")
    read = {*names_read(proto.graph), *outputs.split()}
    for name, array in constants.items():
        if name in read:
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    model = ir.from_proto(proto)
    infer(model)
    return model


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Returns the names that nodes read, those of subgraphs among them."""
    names = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names |= names_read(attribute.g)
    return names


def changed(
    model: ir.Model,
    change: Callable[[ir.Model], None],
    rtol: float = 1e-5,
    draw: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> list[str]:
    """Applies a pass, compares the outputs for two batch sizes, returns the operators left.

    Args:
        model: changed in place.
        change: the pass.
        rtol: how far outputs may be apart; sums that cancel keep the rounding of their terms.
        draw: makes floating inputs of a shape; by default of both signs, with zeros and ties.
    """
    feeds = [feeds_of(model, sizes, draw or hard) for sizes in RUNS]
    before = onnxruntime_of(model)
    expected = [before(one) for one in feeds]
    change(model)
    onnx.checker.check_model(without_marks(model), full_check=True)
    after = onnxruntime_of(model)
    for one, results in zip(feeds, expected, strict=True):
        for found, wanted in zip(after(one), results, strict=True):
            assert found.dtype == wanted.dtype
            largest = float(np.abs(wanted).max(initial=0.0)) if wanted.dtype.kind == "f" else 0.0
            atol = max(1e-5, 5e-7 * largest)
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol, strict=True)
    return operators(model)


def operators(model: ir.Model) -> list[str]:
    """Returns the operators of the graph in order, constants left out."""
    return [n.op_type for n in model.graph if n.op_type != "Constant"]


def without_marks(model: ir.Model) -> onnx.ModelProto:
    """Returns a model as a file has it; marks of ours are identities in it."""
    proto = ir.to_proto(model)
    _make_identities(proto.graph)
    return proto


def _make_identities(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.domain == "probegen":
            node.domain, node.op_type = "", "Identity"
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _make_identities(attribute.g)


def onnxruntime_of(model: ir.Model) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """Returns what runs a model: feeds by name -> outputs in order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        without_marks(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = {i.name for i in session.get_inputs()}
    return lambda feeds: session.run(None, {k: v for k, v in feeds.items() if k in names})


def feeds_of(
    model: ir.Model, sizes: dict[str, int], draw: Callable[[tuple[int, ...]], np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns something for each input, open sizes taken from `sizes`."""
    feeds = {}
    for value in model.graph.inputs:
        shape = tuple(d if isinstance(d, int) else sizes[str(d.value)] for d in value.shape)
        kind = value.dtype.numpy()
        if value.dtype == ir.DataType.BOOL:
            array = RNG.random(shape) < 0.5
        elif value.dtype.is_integer():
            array = RNG.integers(0, 3, shape)
        else:
            array = draw(shape)
        feeds[value.name] = np.asarray(array).astype(kind)
    return feeds


def hard(shape: tuple[int, ...]) -> np.ndarray:
    """Returns numbers of both signs, of which about half are ties or zeros."""
    array = RNG.uniform(-2, 2, shape)
    return np.where(RNG.random(shape) < 0.5, array, np.round(array))


def weight(*shape: int) -> np.ndarray:
    """Returns 32-bit floats between -1 and 1."""
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def node_of(model: ir.Model, output: str) -> ir.Node:
    """Returns the node that makes a value of the graph."""
    return next(n for n in model.graph if any(v.name == output for v in n.outputs))


def operator(text: str) -> str:
    """Returns the operator of a node's text: `Pad` of `Pad<mode="edge">(x, widths)`."""
    return text.replace("<", "(").partition("(")[0]
