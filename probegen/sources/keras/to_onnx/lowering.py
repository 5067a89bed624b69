"""The captured forward pass as an ONNX graph: through tf2onnx, its holes mended, named, checked.

tf2onnx is asked for inference only; what it gets wrong there is mended on the TensorFlow side
before (constants captured from layers, functions marked for XLA), by handlers for single
operations, or on the graph that comes out.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import onnx
import onnx_ir as ir
import tensorflow as tf

from probegen.errors import ExportError
from probegen.graph.core.branches import known_branches, put_branch_in_place
from probegen.graph.core.marks import MARK, MARK_DOMAIN, MASK_NAME
from probegen.graph.core.placeholder_weights import fold_placeholders, make_placeholder
from probegen.graph.forward import ForwardGraph, open_size
from probegen.graph.shape_inference import infer_shapes
from probegen.plan.plan import Plan, TensorRef
from probegen.sources.keras.capture import Watcher
from probegen.sources.keras.forward import plain_output, run_forward
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.precision import current
from probegen.sources.keras.to_onnx.canonical import make_canonical
from probegen.sources.keras.to_onnx.conversion import convert, layer_of
from probegen.sources.keras.to_onnx.large_sums import note_large_sums
from probegen.sources.keras.to_onnx.nudged import add_nudge, settle_nudges
from probegen.sources.keras.to_onnx.put_back_nan import put_back_nan
from probegen.sources.keras.to_onnx.recurrent_layers import fused_inner_loop
from probegen.sources.keras.to_onnx.tf2onnx_fixes import (
    fix_boolean_eyes,
    fix_empty_inputs,
    fix_groups,
    fix_negative_padding,
    fix_output_shapes,
    fix_scales,
    fix_transposes,
)
from probegen.sources.keras.trace import Trace, trace_function
from probegen.stages import stage

_ELSEWHERE = "export to SavedModel (format='savedmodel'), whose gradients are TensorFlow's"
#: What tf2onnx writes itself; higher opsets are reached by onnx's version converter.
MIN_OPSET, TF2ONNX_MAX_OPSET = 13, 18
_MARK_NAME = "probegen_mark_"
_WEIGHT_NAME = "probegen_weight_"
#: Number of elements from which a matrix counts as large, and any weight as medium.
_LARGE_WEIGHT, _MEDIUM_WEIGHT = 2**20, 2**14
#: Bytes of other weights up to which they are converted with the graph.
_MOST_CONVERTED = 2**25


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What tf2onnx makes of the captured forward pass of a plan.

    Attributes:
        proto: the graph; its large weights are inputs.
        layers: operation name -> path of the layer that it came from.
        large: the variables that are inputs.
        opset: the operator set that was asked for, which may be newer than the graph's.
        with_weights: whether what the weights hold was asked for as well.
        sizes: of the tensors that are marked, by their number, as TensorFlow knows them: None where
            open. tf2onnx loses some, of a picture that is brought from any size to one, say.
    """

    proto: onnx.ModelProto
    layers: Mapping[str, str]
    large: Sequence[Any]
    opset: int
    with_weights: bool
    sizes: Sequence[tuple[int | None, ...]]


def forward_graph(
    source: KerasModel,
    plan: Plan,
    opset: int = TF2ONNX_MAX_OPSET,
    batch: int | None = None,
    *,
    placeholder_weights: bool = False,
) -> ForwardGraph:
    """Converts the captured forward pass of a plan.

    Args:
        source: the model.
        plan: what to capture.
        opset: ONNX operator set, 13 or newer.
        batch: a fixed batch size, or None for a dynamic batch.
        placeholder_weights: leave out what the weights hold, for a graph that is only looked at.

    Raises:
        UnsupportedOpsError: TensorFlow operations that have no ONNX form; lists each with the
            layer it came from.
        ExportError: strings, an opset out of range, or a failure of the conversion.
    """
    conversion = convert_forward(
        source, plan, opset, batch, placeholder_weights=placeholder_weights
    )
    return converted_graph(source, plan, conversion)


def convert_forward(
    source: KerasModel, plan: Plan, opset: int, batch: int | None, *, placeholder_weights: bool
) -> Conversion:
    """Runs tf2onnx on the captured forward pass of a plan; see `forward_graph`."""
    _check_opset(opset)
    _check_dtypes(source)
    marks = {ref: functools.partial(_mark, i) for i, ref in enumerate(_marked_refs(plan))}
    large = _weights(source) if placeholder_weights else _large_weights(source)
    count = len(source.input_specs)
    tables = [group.table for group in plan.groups if group.table is not None]
    unroll = any(not table.keeps_loops for table in tables)
    inner_loop = functools.partial(fused_inner_loop, unroll=unroll)
    seen: dict[str, Watcher] = {}
    inputs: list[Any] = []
    sizes: list[tuple[int | None, ...]] = []

    def forward(*given: Any) -> list[Any]:
        weights = list(zip(large, given[count:], strict=True))
        run = run_forward(
            source,
            plan,
            given[:count],
            marks,
            weights,
            _mark_mask,
            inner_loop=inner_loop,
            add_nudge=add_nudge,
        )
        seen["watched"], inputs[:] = run.watched, list(given)
        sizes[:] = [_sizes(run.tensor(ref)) for ref in marks]
        return [
            *run.outputs,
            *(plain_output(run, o) for o in plan.plain),
            *(run.target(g.target) for g in plan.groups),
            *run.states.values(),
        ]

    specs = [tf.TensorSpec([batch, *s.shape[1:]], s.dtype, s.name) for s in source.input_specs]
    specs += [tf.TensorSpec(v.shape, v.dtype, f"{_WEIGHT_NAME}{i}") for i, v in enumerate(large)]
    function = trace_function(forward, specs, source)
    _check_precision(function.graph)
    layers = Trace(source, function.graph, inputs, [], seen["watched"]).layers
    proto = convert(function, inputs, layers, min(opset, TF2ONNX_MAX_OPSET))
    return Conversion(proto, layers, large, opset, not placeholder_weights, sizes)


def converted_graph(source: KerasModel, plan: Plan, conversion: Conversion) -> ForwardGraph:
    """Returns the forward pass that a plan was converted to, as a graph of the caller's own.

    Raises:
        ExportError: the graph cannot be read, or not be lifted to the operator set.
    """

    def prepare(graph: ir.Graph) -> None:
        _put_in(graph, conversion.large if conversion.with_weights else None)
        name_inputs(graph, source)

    proto = onnx.ModelProto()
    proto.CopyFrom(conversion.proto)  # a tensor that is renamed in a graph is so in what it is from
    hint = "Export to SavedModel instead (format='savedmodel')."
    with stage("the graph that tf2onnx wrote cannot be read", ExportError, hint):
        model = to_ir(proto, conversion.opset, prepare)
    marked = _marked_values(model.graph)
    for number, sizes in enumerate(conversion.sizes):
        _add_sizes(marked[number], sizes)
    sources = {ref: marked[number] for number, ref in enumerate(_marked_refs(plan))}
    for position in range(len(source.input_specs)):
        sources[TensorRef(None, position=position)] = model.graph.inputs[position]
    return ForwardGraph(
        model=model,
        counts=(len(source.output_names), len(plan.plain)),
        sources=sources,
        layer_of=functools.partial(layer_of, conversion.layers),
        elsewhere=_ELSEWHERE,
        kept=sum(ref.is_aside for ref in plan.refs),
    )


def _marked_refs(plan: Plan) -> list[TensorRef]:
    """Returns the tensors that are marked on their way through the conversion."""
    return [ref for ref in plan.refs if not ref.is_input]


def _sizes(tensor: Any) -> tuple[int | None, ...]:
    return () if tensor.shape.rank is None else tuple(tensor.shape)


def _add_sizes(value: ir.Value, sizes: Sequence[int | None]) -> None:
    """Gives a value the sizes that are known of it, where it has none of its own."""
    own = [None] * len(sizes) if value.shape is None else list(value.shape)
    if len(own) == len(sizes) and any(size is not None for size in sizes):
        value.shape = ir.Shape(
            [mine if size is None else size for mine, size in zip(own, sizes, strict=True)]
        )


def _large_weights(source: KerasModel) -> list[Any]:
    """Returns the variables that stay out of the conversion, to be put in afterwards.

    Freezing and converting copy every constant some thirty times, and hold no more than 2 GB.
    Matrices (of Dense, Embedding) come out as they went in, so the large ones travel as inputs.
    Kernels of convolutions, which are transposed on the way, do so where there is much of them.
    """
    variables = list({id(v): v for v in source.model.variables}.values())
    large = [v for v in variables if len(v.shape) == 2 and math.prod(v.shape) >= _LARGE_WEIGHT]
    taken = {id(v) for v in large}
    rest = [v for v in variables if id(v) not in taken]
    if sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in rest) <= _MOST_CONVERTED:
        return large
    return large + [
        v
        for v in _weights(source)
        if id(v) not in taken
        and math.prod(v.shape) >= _MEDIUM_WEIGHT
        and tf.as_dtype(v.dtype).is_floating
    ]


def _weights(source: KerasModel) -> list[Any]:
    """Returns the variables whose content no conversion needs: all but vectors and numbers.

    Loops of recurrent layers are told from what their weights hold, so these stay in.
    """
    layers = [
        layer for layer in source.model._flatten_layers() if isinstance(layer, keras.layers.RNN)
    ]
    kept = {id(v) for layer in layers for v in layer.variables}
    variables = {id(v): v for v in source.model.variables if id(v) not in kept}.values()
    return [v for v in variables if len(v.shape) >= 2]


def _put_in(graph: ir.Graph, large: Sequence[Any] | None) -> None:
    """Makes initializers of the inputs that stood for weights; placeholders for None."""
    for value in list(graph.inputs):
        number = re.match(rf"{_WEIGHT_NAME}(\d+)", value.name or "")
        if number:
            graph.inputs.remove(value)
            if large is None:
                make_placeholder(graph, value)
                continue
            value.const_value = ir.tensor(large[int(number[1])].numpy(), name=value.name)
            graph.register_initializer(value)


def _mark(number: int, tensor: Any) -> Any:
    """Passes a tensor through an operation that no optimiser removes or moves things across.

    Gradients are taken at its output. Without it, tf2onnx may hand out a transposed copy beside
    the way, or fold the tensor away. What the operation does in TensorFlow plays no role here.
    The message keeps TensorFlow from joining two marks, where layers compute the same (`Reshape`
    and `Flatten` of one tensor).
    """
    name = f"{_MARK_NAME}{number}"
    return tf.raw_ops.PreventGradient(input=tensor, message=name, name=name)


def _mark_mask(mask: Any) -> Any:
    """Marks a mask; where a path moves the input, it is held."""
    return tf.raw_ops.PreventGradient(input=mask, message="", name=MASK_NAME)


def _marked_values(graph: ir.Graph) -> dict[int, ir.Value]:
    found = {}
    for node in graph:
        if node.domain == MARK_DOMAIN and node.op_type == MARK:
            number = re.search(rf"{_MARK_NAME}(\d+)", node.name or "")
            if number:
                found[int(number[1])] = node.outputs[0]
    return found


# -- ONNX to the representation that is differentiated -----------------------------------------


def to_ir(
    proto: onnx.ModelProto, opset: int, prepare: Callable[[ir.Graph], None] | None = None
) -> ir.Model:
    """Returns a converted graph mended and with shapes inferred, in the opset asked for.

    Args:
        proto: what the conversion wrote.
        opset: lifts the graph where tf2onnx does not write it.
        prepare: names the inputs, and puts in what was kept out of the conversion.

    Raises:
        ExportError: the graph cannot be lifted.
    """
    if opset > TF2ONNX_MAX_OPSET:
        try:
            proto = onnx.version_converter.convert_version(proto, opset)
        except Exception as error:
            raise ExportError(f"onnx cannot lift the graph to opset {opset}: {error}") from error
    model = ir.serde.deserialize_model(proto)
    make_canonical(model)
    if prepare is not None:
        prepare(model.graph)
    for node, branch in known_branches(model.graph):
        put_branch_in_place(node, branch)
    fix_negative_padding(model.graph)
    fix_empty_inputs(model.graph)
    fix_boolean_eyes(model.graph)
    infer_shapes(model)
    while fix_scales(model.graph):  # before anything goes by shapes; one behind another in turn
        infer_shapes(model)
    fold_placeholders(model.graph)
    fix_groups(model.graph)
    fix_output_shapes(model.graph)
    fix_transposes(model.graph)
    note_large_sums(model.graph)
    settle_nudges(model.graph)
    put_back_nan(model)
    return model


def name_inputs(graph: ir.Graph, source: KerasModel) -> None:
    """Gives the inputs the model's own names and their open sizes readable ones.

    Every open batch size is called `batch`, so that rules can tell that two of them agree.
    """
    for value, name, spec in zip(graph.inputs, source.input_names, source.input_specs, strict=True):
        value.name = name
        sizes = list(value.shape) if value.shape is not None else list(spec.shape)
        value.shape = ir.Shape(
            [
                size if isinstance(size, int) else "batch" if i == 0 else open_size(name, i)
                for i, size in enumerate(sizes)
            ]
        )


def _check_opset(opset: int) -> None:
    newest = onnx.defs.onnx_opset_version()
    if not isinstance(opset, int) or not MIN_OPSET <= opset <= newest:
        raise ExportError(
            f"opset={opset!r} is out of range; the installed onnx and tf2onnx write "
            f"opsets {MIN_OPSET} to {newest}."
        )


def _check_dtypes(source: KerasModel) -> None:
    for name, spec in zip(source.input_names, source.input_specs, strict=True):
        if spec.dtype == tf.string:
            raise ExportError(
                f"input {name!r} takes strings, which ONNX runtimes cannot preprocess as Keras "
                "does. Split the model: keep the text layers in front, and compile the part that "
                f"takes numbers ({_after_strings(source)})."
            )


def _check_precision(graph: Any) -> None:
    coarse = [
        op
        for op in graph.get_operations()
        if any(t.dtype == tf.bfloat16 for t in op.outputs) and not _is_cast_constant(op)
    ]
    if not coarse:
        return
    advice = (
        "Compile it in float32 (pg.compile(..., precision='float32'), --precision float32)"
        if current() is None
        else f"Its layers compute in float32, but {coarse[0].name!r} casts to it by itself: let it "
        "cast to the type of what it is given"
    )
    raise ExportError(
        "the model computes in bfloat16, for which onnxruntime has next to no operators on CPU. "
        f"{advice}, or export to SavedModel (format='savedmodel')."
    )


def _is_cast_constant(op: Any) -> bool:
    """Tells whether an operation is a constant that is cast before anything computes with it."""
    users = [user for t in op.outputs for user in t.consumers()]
    return op.type == "Const" and all(user.type == "Cast" for user in users)


def _after_strings(source: KerasModel) -> str:
    layers = [
        layer for layer in source.model.layers if not isinstance(layer, keras.layers.InputLayer)
    ]
    numeric = [layer.name for layer in layers if layer.compute_dtype != "string"]
    return f"from {numeric[0]!r} on" if numeric else "what follows the lookup"
