"""The captured forward pass as an ONNX graph: through tf2onnx, its holes mended, named, checked.

This is the only file below `probegen.graph` that knows TensorFlow. tf2onnx is asked for
inference only; what it gets wrong there is mended on the TensorFlow side before (constants
captured from layers, functions marked for XLA) or by handlers for single operations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import onnx
import onnx_ir as ir
import tensorflow as tf
import tf2onnx.optimizer
import tf2onnx.tf_loader
import tf2onnx.tfonnx
from onnx_ir.passes import common as ir_passes

from probegen.errors import ExportError, UnsupportedOpsError
from probegen.graph.autodiff import Refusal
from probegen.graph.hollow import fold_hollow, make_hollow
from probegen.graph.loops import infer_with_loops
from probegen.graph.marks import MARK, MARK_DOMAIN
from probegen.graph.mends import (
    mend_empty_inputs,
    mend_groups,
    mend_negative_padding,
    mend_scales,
)
from probegen.graph.passes.slices import narrow_slices, split_slices
from probegen.graph.passes.weights import fold_weights
from probegen.graph.tf_ops import HANDLERS, REFUSED
from probegen.instrumentation.capture import CallKey, LayerCall
from probegen.instrumentation.forward import plain_output, run_forward
from probegen.instrumentation.plan import Plan, TensorRef
from probegen.instrumentation.source import Source
from probegen.instrumentation.trace import Trace, trace_function

#: What tf2onnx writes itself; higher opsets are reached by onnx's version converter.
MIN_OPSET, TF2ONNX_MAX_OPSET = 13, 18
_SIZES_FOLLOWED = 14
_MARK_NAME = "probegen_mark_"
_WEIGHT_NAME = "probegen_weight_"
#: Number of elements from which a matrix counts as large, and any weight as medium.
_LARGE_WEIGHT, _MEDIUM_WEIGHT = 2**20, 2**14
#: Bytes of other weights up to which they are converted with the graph.
_MOST_CONVERTED = 2**25


@dataclasses.dataclass
class ForwardGraph:
    """The forward pass as ONNX, with everything a plan needs as outputs of the graph.

    Those are read from the graph each time: a pass may put another value in the place of one.

    Attributes:
        model: the ONNX model; its graph outputs are, in order, the predictions, the plain
            outputs and a target value a group.
        counts: the numbers of predictions and of plain outputs.
        sources: the tensors at which gradients are taken.
        layers: operation name -> path of the layer it came from.
    """

    model: ir.Model
    counts: tuple[int, int]
    sources: dict[TensorRef, ir.Value]
    layers: dict[str, str]

    @property
    def graph(self) -> ir.Graph:
        """The graph."""
        return self.model.graph

    @property
    def predictions(self) -> list[ir.Value]:
        """The values of the predictions."""
        return list(self.graph.outputs)[: self.counts[0]]

    @property
    def plain(self) -> list[ir.Value]:
        """The values of outputs without gradients, in the plan's order."""
        return list(self.graph.outputs)[self.counts[0] : sum(self.counts)]

    @property
    def targets(self) -> list[ir.Value]:
        """For each group of the plan, the scores or the callable's value."""
        return list(self.graph.outputs)[sum(self.counts) :]

    def layer_of(self, node_name: str) -> str:
        """Returns the path of the layer that an ONNX node came from, or `""`."""
        return layer_of(self.layers, node_name)


def forward_graph(
    plan: Plan,
    opset: int = TF2ONNX_MAX_OPSET,
    batch: int | None = None,
    *,
    hollow: bool = False,
) -> ForwardGraph:
    """Converts the captured forward pass of a plan.

    Args:
        plan: what to capture.
        opset: ONNX operator set, 13 or newer.
        batch: a fixed batch size, or None for a dynamic batch.
        hollow: leave out what the weights hold, for a graph that is only looked at.

    Raises:
        UnsupportedOpsError: TensorFlow operations that have no ONNX form; lists each with the
            layer it came from.
        ExportError: strings, an opset out of range, or a failure of the conversion.
    """
    _check_opset(opset)
    _check_dtypes(plan)
    refs = list(dict.fromkeys(o.ref for g in plan.groups for o in g.outputs if o.ref.path))
    marks: dict[CallKey, dict[int, Callable[[Any], Any]]] = {}
    for number, ref in enumerate(refs):
        marks.setdefault(ref.key, {})[ref.position] = functools.partial(_mark, number)
    large = _weights(plan.source) if hollow else _large_weights(plan.source)
    count = len(plan.source.input_specs)
    calls: list[LayerCall] = []
    inputs: list[Any] = []

    def forward(*given: Any) -> list[Any]:
        weights = list(zip(large, given[count:], strict=True))
        run = run_forward(plan, given[:count], marks, weights)
        calls[:], inputs[:] = run.calls, list(given)
        return [
            *run.outputs,
            *(plain_output(run, o) for o in plan.plain),
            *(run.target(g.target) for g in plan.groups),
        ]

    specs = [tf.TensorSpec([batch, *s.shape[1:]], s.dtype, s.name) for s in plan.source.input_specs]
    specs += [tf.TensorSpec(v.shape, v.dtype, f"{_WEIGHT_NAME}{i}") for i, v in enumerate(large)]
    function = trace_function(forward, specs, plan.source)
    _check_precision(function.graph)
    layers = Trace(plan.source, function.graph, inputs, [], calls).layers
    proto = _convert(function, inputs, layers, min(opset, TF2ONNX_MAX_OPSET))
    model = _to_ir(proto, opset, plan.source, None if hollow else large)
    marked = _marked_values(model.graph)
    sources = {ref: marked[number] for number, ref in enumerate(refs)}
    for group in plan.groups:
        for output in group.outputs:
            if output.ref.path is None:
                sources[output.ref] = model.graph.inputs[output.ref.position]
    return ForwardGraph(
        model=model,
        counts=(len(plan.source.output_names), len(plan.plain)),
        sources=sources,
        layers=layers,
    )


def _large_weights(source: Source) -> list[Any]:
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


def _weights(source: Source) -> list[Any]:
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
    """Makes initializers of the inputs that stood for weights; hollow ones for None."""
    for value in list(graph.inputs):
        number = re.match(rf"{_WEIGHT_NAME}(\d+)", value.name or "")
        if number:
            graph.inputs.remove(value)
            if large is None:
                make_hollow(graph, value)
                continue
            value.const_value = ir.tensor(large[int(number[1])].numpy(), name=value.name)
            graph.register_initializer(value)


def _mark(number: int, tensor: Any) -> Any:
    """Passes a tensor through an operation that no optimiser removes or moves things across.

    Gradients are taken at its output. Without it, tf2onnx may hand out a transposed copy beside
    the way, or fold the tensor away. What the operation does in TensorFlow plays no role here.
    """
    return tf.raw_ops.PreventGradient(input=tensor, message="", name=f"{_MARK_NAME}{number}")


def _marked_values(graph: ir.Graph) -> dict[int, ir.Value]:
    found = {}
    for node in graph:
        if node.domain == MARK_DOMAIN and node.op_type == MARK:
            number = re.search(rf"{_MARK_NAME}(\d+)", node.name or "")
            if number:
                found[int(number[1])] = node.outputs[0]
    return found


# -- TensorFlow to ONNX ------------------------------------------------------------------------


def _convert(
    function: Any, inputs: Sequence[Any], layers: Mapping[str, str], opset: int
) -> onnx.ModelProto:
    """Freezes a concrete function and hands it to tf2onnx.

    Raises:
        UnsupportedOpsError: operations that have no ONNX form.
        ExportError: the conversion failed.
    """
    input_names = [t.name for t in inputs]
    output_names = [t.name for t in function.outputs]
    with _quiet(), tf.device("/cpu:0"):
        _make_captures_constant(function)
        frozen = tf2onnx.tf_loader.from_function(function, input_names, output_names)
        if _unmark_xla(frozen):
            with tf.Graph().as_default():
                tf.import_graph_def(frozen, name="")
                frozen = tf2onnx.tf_loader.tf_optimize(input_names, output_names, frozen)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            try:
                converted = tf2onnx.tfonnx.process_tf_graph(
                    graph,
                    continue_on_error=False,
                    opset=opset,
                    custom_op_handlers=dict(HANDLERS),
                    extra_opset=[onnx.helper.make_opsetid(MARK_DOMAIN, 1)],
                    input_names=input_names,
                    output_names=output_names,
                )
            except Exception as error:
                raise ExportError(
                    f"tf2onnx cannot convert the forward pass: {error}. Export to SavedModel "
                    "instead (format='savedmodel')."
                ) from error
        _widen_scalars(converted)
        proto: onnx.ModelProto = tf2onnx.optimizer.optimize_graph(
            converted, catch_errors=False, optimizers=_optimizers()
        ).make_model("probegen")
    _check_ops(proto, layers)
    _order_outputs(proto, output_names)
    return proto


def _optimizers() -> dict[str, Any]:
    """Returns tf2onnx' clean-ups but for the one that takes an Einsum apart at run time."""
    found = dict(tf2onnx.optimizer._get_optimizers())
    found.pop("einsum_optimizer", None)
    found["optimize_transpose"] = _TransposeOptimizer
    return found


class _TransposeOptimizer(tf2onnx.optimizer.TransposeOptimizer):  # type: ignore[misc]
    """tf2onnx' own, but that it knows outputs of the graph for readers.

    Where a Transpose makes an output, one node reads it as well, and that is a product with
    another Transpose, it would otherwise remove the output.
    """

    def _nodes_has_single_consumer_node(self, nodes: Sequence[Any]) -> bool:
        outputs = set(self._g.outputs)
        if any(not outputs.isdisjoint(node.output) for node in nodes):
            return False
        return bool(super()._nodes_has_single_consumer_node(nodes))


def _make_captures_constant(function: Any) -> None:
    """Turns eager tensors that layers hold into constants of the graph.

    Freezing does so for variables only; an eager tensor (the mean of a `Normalization`, say)
    would come out as an extra input.
    """
    graph = function.graph
    held = [(t, p) for t, p in graph.captures if t.dtype != tf.resource]
    for tensor, placeholder in held:
        with graph.as_default():
            constant = tf.constant(tensor.numpy())
        for op in graph.get_operations():
            for position, read in enumerate(op.inputs):
                if read is placeholder:
                    op._update_input(position, constant)


def _unmark_xla(graph_def: Any) -> bool:
    """Lets functions that Keras compiles with XLA (grouped convolutions) be inlined."""
    marked = [*graph_def.node, *graph_def.library.function]
    for function in graph_def.library.function:
        marked.extend(function.node_def)
    found = [item for item in marked if item.attr["_XlaMustCompile"].b]
    for item in marked:
        for name in ("_XlaMustCompile", "_noinline"):
            item.attr.pop(name, None)
    for item in found:
        if getattr(item, "op", "") == "StatefulPartitionedCall":
            item.op = "PartitionedCall"
    return bool(found)


def _widen_scalars(graph: Any) -> None:
    """Gives constant scalars that are added one dimension.

    tf2onnx' transpose optimiser takes them for a bias behind a convolution and fails on their
    empty shape (the `x + 3` of a hard swish).
    """
    for node in graph.get_nodes():
        if node.type != "Add":
            continue
        other = graph.get_shape(node.input[0])
        if node.inputs[1].is_const() and other:
            value = node.inputs[1].get_tensor_value(as_list=False)
            if value.shape == ():
                wide = graph.make_const(f"{node.name}_scalar", value.reshape(1))
                graph.replace_input(node, node.input[1], wide.output[0], 1)


def _check_ops(proto: onnx.ModelProto, layers: Mapping[str, str]) -> None:
    """Refuses operations that tf2onnx left as they were.

    Raises:
        UnsupportedOpsError: lists each kind with the layers it came from.
    """
    found: dict[str, list[str]] = {}
    for node in _all_nodes(proto.graph):
        if node.domain == MARK_DOMAIN:
            continue
        known = node.domain == "" and onnx.defs.has(node.op_type)
        if not known:
            found.setdefault(node.op_type, []).append(node.name)
    if not found:
        return
    lines, refusals = [], []
    for kind, names in found.items():
        where = sorted({layer_of(layers, n) for n in names} - {""})
        named = f" in layer {', '.join(map(repr, where[:5]))}" if where else ""
        lines.append(f"  {kind}{named}" + (f": {REFUSED[kind]}" if kind in REFUSED else ""))
        refusals.append(
            Refusal(kind, REFUSED.get(kind, "no ONNX form"), tuple(names), tuple(where))
        )
    raise UnsupportedOpsError(
        "these TensorFlow operations have no form in standard ONNX:\n"
        + "\n".join(lines)
        + "\nExport to SavedModel instead (format='savedmodel'), or replace the layers.",
        refusals,
    )


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attr in node.attribute:
            if attr.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attr.g)


def _order_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    by_name = {o.name: o for o in proto.graph.output}
    ordered = [by_name[n] for n in names]
    del proto.graph.output[:]
    proto.graph.output.extend(ordered)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps tf2onnx from logging what is checked and reported here."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


# -- ONNX to the representation that is differentiated -----------------------------------------


def _to_ir(
    proto: onnx.ModelProto, opset: int, source: Source, large: Sequence[Any] | None
) -> ir.Model:
    if opset > TF2ONNX_MAX_OPSET:
        try:
            proto = onnx.version_converter.convert_version(proto, opset)
        except Exception as error:
            raise ExportError(f"onnx cannot lift the graph to opset {opset}: {error}") from error
    model = ir.serde.deserialize_model(proto)
    _put_in(model.graph, large)
    name_inputs(model.graph, source)
    mend_negative_padding(model.graph)
    mend_empty_inputs(model.graph)
    infer_shapes(model)
    fold_hollow(model.graph)
    fold_weights(model.graph)
    mend_groups(model.graph)
    if mend_scales(model.graph):
        infer_shapes(model)
    split_slices(model.graph)
    return model


def name_inputs(graph: ir.Graph, source: Source) -> None:
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


def open_size(name: str, axis: int) -> str:
    """Returns what the open size of an input's axis behind the batch is called."""
    return f"{name}_size_{axis}"


def infer_shapes(model: ir.Model) -> None:
    """Infers element types and shapes anew: tf2onnx leaves most out and some contradictory."""
    marks = [n for n in model.graph.all_nodes() if n.domain == MARK_DOMAIN]
    kinds = [n.op_type for n in marks]
    for node in marks:  # onnx knows no marks; to it they are what they do
        node.domain, node.op_type = "", "Identity"
    narrow_slices(model.graph)
    imports = model.graph.opset_imports
    written = imports.get("", 0)
    # Only from here on inference follows the sizes of a Reshape that are computed.
    imports[""] = max(written, _SIZES_FOLLOWED)
    infer_with_loops(
        model, ir_passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    )
    imports[""] = written
    for node, kind in zip(marks, kinds, strict=True):
        node.domain, node.op_type = MARK_DOMAIN, kind


def layer_of(layers: Mapping[str, str], node_name: str) -> str:
    """Returns the path of the layer that an ONNX node came from, or `""`.

    tf2onnx names nodes after the operations they came from and appends to the names. What is
    inside a loop is known by the scope it stands in: by what all layers in that scope share.
    """
    name = re.sub(r"__\d+$", "", node_name)
    while "/" in name:  # the outermost scope is the model's own
        if name in layers:
            return layers[name]
        inside = [path for op, path in layers.items() if op.startswith(name + "/")]
        shared = os.path.commonpath(inside) if inside else ""
        if shared:
            return shared
        name = name.rpartition("/")[0]
    return layers.get(name, "")


def _check_opset(opset: int) -> None:
    newest = onnx.defs.onnx_opset_version()
    if not isinstance(opset, int) or not MIN_OPSET <= opset <= newest:
        raise ExportError(
            f"opset={opset!r} is out of range; the installed onnx and tf2onnx write "
            f"opsets {MIN_OPSET} to {newest}."
        )


def _check_dtypes(plan: Plan) -> None:
    for name, spec in zip(plan.source.input_names, plan.source.input_specs, strict=True):
        if spec.dtype == tf.string:
            raise ExportError(
                f"input {name!r} takes strings, which ONNX runtimes cannot preprocess as Keras "
                "does. Split the model: keep the text layers in front, and compile the part that "
                f"takes numbers ({_after_strings(plan)})."
            )


def _check_precision(graph: Any) -> None:
    if any(t.dtype == tf.bfloat16 for op in graph.get_operations() for t in op.outputs):
        raise ExportError(
            "the model computes in bfloat16, for which onnxruntime has next to no operators on "
            "CPU. Load it under another dtype policy (keras.config.set_dtype_policy('float32') "
            "or 'mixed_float16'), or export to SavedModel (format='savedmodel')."
        )


def _after_strings(plan: Plan) -> str:
    layers = [
        layer
        for layer in plan.source.model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    numeric = [layer.name for layer in layers if layer.compute_dtype != "string"]
    return f"from {numeric[0]!r} on" if numeric else "what follows the lookup"
