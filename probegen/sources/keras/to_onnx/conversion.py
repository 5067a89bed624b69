"""TensorFlow to ONNX: a concrete function through tf2onnx, with handlers of ours.

tf2onnx recognises patterns and simplifies on its way, wrongly in places; those steps are left
out here. Whatever goes wrong comes out as one of our errors, with the layer where that can be
told.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import onnx
import tensorflow as tf
import tf2onnx.graph
import tf2onnx.handler
import tf2onnx.optimizer
import tf2onnx.optimizer.optimizer_base
import tf2onnx.tf_loader
import tf2onnx.tfonnx
from tensorflow.python.framework import convert_to_constants
from tf2onnx.optimizer import back_to_back_optimizer

from probegen.errors import ExportError, ProbegenError, Refusal, UnsupportedOpsError
from probegen.graph.core.marks import MARK_DOMAIN
from probegen.sources.keras.to_onnx.handlers import HANDLERS, REFUSED, signals
from probegen.sources.keras.to_onnx.tf2onnx_transposes import TransposeOptimizer

#: Patterns of tf2onnx that are left alone, and what it makes of them.
_LEFT_ALONE = {
    "rewrite_flatten": "reshape(x, [shape(y)[0], -1]) is taken for flatten(x) with any y",
    "rewrite_thresholded_relu": "x * (x < 1) is taken for x * (x > 1)",
    "rewrite_leakyrelu": "maximum(a * x, x) fails where a is a vector",
    "rewrite_gemm": "matmul(x, y) + z fails where z has more axes",
    "rewriter_lstm_tf2": "an LSTM of float64 or float16, which onnxruntime has not",
}
#: Operations that give nothing out and write into a variable.
_ASSIGNMENTS = frozenset({"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"})
_INSTEAD = "Export to SavedModel instead (format='savedmodel'), or replace the layer."


class _HandlerError(Exception):
    """A handler failed; tells where.

    Attributes:
        kind: the TensorFlow operation.
        node: its name.
    """

    def __init__(self, kind: str, node: str) -> None:
        super().__init__(f"{kind} {node}")
        self.kind, self.node = kind, node


def convert(
    function: Any, inputs: Sequence[Any], layers: Mapping[str, str], opset: int
) -> onnx.ModelProto:
    """Freezes a concrete function and hands it to tf2onnx.

    Args:
        function: a concrete function.
        inputs: those of its tensors that become inputs.
        layers: operation name -> path of the layer it came from.
        opset: of ONNX, 18 at most.

    Raises:
        UnsupportedOpsError: operations that have no ONNX form.
        ExportError: the conversion failed.
    """
    input_names = [t.name for t in inputs]
    output_names = [t.name for t in function.outputs]
    try:
        with _quiet(), tf.device("/cpu:0"), _guarded():
            proto = _converted(function, input_names, output_names, opset)
    except ProbegenError:
        raise
    except _HandlerError as error:
        raise _refusal(error, layers) from error
    except Exception as error:
        raise ExportError(
            f"tf2onnx cannot convert the forward pass: {_told(error)}. Export to SavedModel "
            "instead (format='savedmodel')."
        ) from error
    _check_ops(proto, layers)
    _order_outputs(proto, output_names)
    return proto


def _converted(
    function: Any, input_names: list[str], output_names: list[str], opset: int
) -> onnx.ModelProto:
    _make_captures_constant(function)
    frozen = _frozen(function)
    _unmark_xla(frozen)
    with tf.Graph().as_default():
        tf.import_graph_def(frozen, name="")
        frozen = tf2onnx.tf_loader.tf_optimize(input_names, output_names, frozen)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        _keep_lengths(graph, function.graph)
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph,
            continue_on_error=False,
            opset=opset,
            custom_op_handlers=dict(HANDLERS),
            extra_opset=[onnx.helper.make_opsetid(MARK_DOMAIN, 1)],
            input_names=input_names,
            output_names=output_names,
        )
    converted.delete_unused_nodes(converted.outputs)
    _widen_scalars(converted)
    proto: onnx.ModelProto = tf2onnx.optimizer.optimize_graph(
        converted, catch_errors=False, optimizers=_optimizers()
    ).make_model("probegen")
    return proto


def _keep_lengths(frozen: Any, traced: Any) -> None:
    """Gives complex tensors the sizes that they had when the model was traced.

    Fourier transforms are written for one length. A frozen graph has its sizes inferred anew, which
    finds fewer of them: none behind the product of a Dense layer on a sequence.
    """
    known = {op.name: op for op in traced.get_operations()}
    for op in frozen.get_operations():
        before = known.get(op.name)
        if before is None or before.type != op.type:
            continue
        for tensor, same in zip(op.outputs, before.outputs, strict=True):
            if tensor.dtype.is_complex and tensor.shape.is_compatible_with(same.shape):
                tensor.set_shape(same.shape)


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Leaves out patterns that tf2onnx takes for others, and lets a failure tell its place."""
    create = tf2onnx.handler.tf_op.create_mapping

    def create_guarded(*args: Any) -> Any:
        return _Guarded(create(*args))

    with contextlib.ExitStack() as stack:
        for name in _LEFT_ALONE:
            stack.enter_context(mock.patch.object(tf2onnx.tfonnx, name, _as_it_is))
        name, merge = "rewrite_conv2d_with_pad", tf2onnx.tfonnx.rewrite_conv2d_with_pad
        stack.enter_context(
            mock.patch.object(tf2onnx.tfonnx, name, _of_convolutions_without_padding(merge))
        )
        stack.enter_context(
            mock.patch.object(tf2onnx.handler.tf_op, "create_mapping", create_guarded)
        )
        stack.enter_context(
            mock.patch.object(tf2onnx.optimizer.optimizer_base.GraphOptimizerBase, "optimize", _run)
        )
        forget = tf2onnx.graph.Graph._unregister_input_name
        stack.enter_context(
            mock.patch.object(
                tf2onnx.graph.Graph, "_unregister_input_name", _forget_the_last_reader(forget)
            )
        )
        yield


def _run(optimizer: Any, graph: Any, iteration: int) -> Any:
    """Runs one of tf2onnx' clean-ups.

    tf2onnx' own brings what each node looks like as ONNX up to date and counts operators before and
    after, at each round of each clean-up, which costs more than these do. No clean-up reads that,
    and all of it is written once more where the graph becomes a model.
    """
    optimizer.opt_iteration = iteration
    graph = optimizer._optimize(graph)
    does_not_say = isinstance(optimizer, _BackToBackOptimizer)
    if optimizer.graph_been_opt or does_not_say:
        graph.delete_unused_nodes(graph.outputs)
    return graph


def _forget_the_last_reader(forget: Callable[..., None]) -> Callable[..., None]:
    """Returns what a graph does when a node is removed that reads an input.

    tf2onnx' own forgets, with the first of several nodes of a loop's body that read one value from
    outside, that the body reads it at all. Its optimiser may then remove what makes the value,
    in an order of chance.
    """

    def forget_the_last(graph: Any, name: str, node: Any, only_graph: bool = False) -> None:
        others = (n for n in graph.get_nodes() if n is not node)
        if graph.parent_graph is not None and (
            graph._input_to_graph.get(name) or any(name in n.input for n in others)
        ):
            return
        forget(graph, name, node, only_graph)

    return forget_the_last


def _of_convolutions_without_padding(merge: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Returns what merges padding layers into convolutions, without those that pad by themselves.

    tf2onnx puts the layer's widths in the place of those that a dilated convolution has.
    """

    def merged(graph: Any, ops: Sequence[Any]) -> Any:
        merge(graph, [op for op in ops if not any(op.get_attr_value("explicit_paddings", []))])
        return ops

    return merged


def _as_it_is(_: Any, ops: Any) -> Any:
    return ops


class _Guarded(dict[str, Any]):
    """tf2onnx' table of handlers, each of which says what it was at when it failed."""

    def get(self, key: str, default: Any = None) -> Any:
        """Returns a handler and its arguments."""
        entry = super().get(key)
        if entry is None and _is_known(key, onnx.defs.onnx_opset_version()):
            entry = _another_of_that_name, {}
        if entry is None:
            return default
        handler, arguments = entry
        return functools.partial(_telling, handler, key), arguments


def _another_of_that_name(*_: Any, **__: Any) -> None:
    """Refuses an operation without a handler, which would pass for the one of ONNX."""
    raise ValueError("the operator that ONNX has by that name is another one")


def _telling(
    handler: Callable[..., Any], kind: str, context: Any, node: Any, **arguments: Any
) -> Any:
    name = node.name
    try:
        if kind not in signals.HANDLED and signals.is_complex(context, node):
            return signals.arithmetic(context, node, kind)
        return handler(context, node, **arguments)
    except ProbegenError:
        raise
    except Exception as error:
        raise _HandlerError(kind, name) from error


def _refusal(error: _HandlerError, layers: Mapping[str, str]) -> UnsupportedOpsError:
    """Returns the error for an operation whose handler failed."""
    where = layer_of(layers, error.node)
    kind, cause = error.kind, error.__cause__
    reason = REFUSED.get(kind) or f"cannot be converted here ({_told(cause)})"
    return UnsupportedOpsError(
        "these TensorFlow operations have no form in standard ONNX:",
        [Refusal(kind, reason, (error.node,), (where,) if where else (), _INSTEAD)],
    )


def _told(error: object) -> str:
    """Returns what an exception says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _optimizers() -> dict[str, Any]:
    """Returns tf2onnx' clean-ups, less four.

    One takes an Einsum apart at run time. One joins repeated nodes and keeps the one that it
    happens to meet first; `canonical` does so in an order that is the same each time. One is for
    Upsample, an operator that no opset has that is written here. One makes global poolings of means
    and maxima, below opset 18 alone: means are joined by a pass of ours in any opset, and of equal
    maxima a pooling has the first one where TensorFlow's gradient goes to each.
    """
    optimizers = dict(tf2onnx.optimizer._get_optimizers())
    for left_out in (
        *("einsum_optimizer", "merge_duplication", "remove_redundant_upsample"),
        "global_pool_optimizer",
    ):
        optimizers.pop(left_out, None)
    optimizers["remove_back_to_back"] = _BackToBackOptimizer
    optimizers["optimize_transpose"] = TransposeOptimizer
    return optimizers


class _BackToBackOptimizer(tf2onnx.optimizer.BackToBackOptimizer):
    """tf2onnx' own, but for Casts.

    It leaves out the first of two, and with it the rounding of a detour over 16 bits or integers.
    """

    def _optimize_at_current_graph_level(self, g: Any) -> Any:
        pairs = back_to_back_optimizer._func_map
        without = {kinds: made for kinds, made in pairs.items() if "Cast" not in kinds}
        with mock.patch.object(back_to_back_optimizer, "_func_map", without):
            return super()._optimize_at_current_graph_level(g)


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


def _frozen(function: Any) -> Any:
    """Returns the graph of a concrete function with constants in the place of its variables.

    TensorFlow's own way to do so makes a function of that graph again, which takes longer than all
    the rest, and which nobody here calls.
    """
    data = convert_to_constants._FunctionConverterDataInEager(
        func=function, lower_control_flow=False, aggressive_inlining=True
    )
    graph_def, _ = convert_to_constants._replace_variables_by_constants(converter_data=data)
    _drop_assignments(graph_def)
    return tf2onnx.tf_loader.fix_freezing_errors_part2(graph_def)


def _drop_assignments(graph_def: Any) -> None:
    """Removes what writes into variables, which are constants by now: counters of calls, say."""
    dropped = set()
    for place in reversed(range(len(graph_def.node))):
        if graph_def.node[place].op in _ASSIGNMENTS:
            dropped.add(f"^{graph_def.node[place].name}")
            del graph_def.node[place]
    if dropped:
        for node in graph_def.node:
            node.input[:] = [name for name in node.input if name not in dropped]


def _unmark_xla(graph_def: Any) -> None:
    """Lets functions that Keras compiles with XLA (grouped convolutions) be inlined."""
    marked = [*graph_def.node, *graph_def.library.function]
    for function in graph_def.library.function:
        marked.extend(function.node_def)
    compiled = [item for item in marked if item.attr["_XlaMustCompile"].b]
    for item in marked:
        for name in ("_XlaMustCompile", "_noinline"):
            item.attr.pop(name, None)
    for item in compiled:
        if getattr(item, "op", "") == "StatefulPartitionedCall":
            item.op = "PartitionedCall"


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
    left: dict[str, list[str]] = {}
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    for node in _all_nodes(proto.graph):
        if node.domain == MARK_DOMAIN:
            continue
        if node.domain or not _is_known(node.op_type, opsets[""]):
            left.setdefault(node.op_type, []).append(node.name)
    if not left:
        return
    refusals = [
        Refusal(kind, REFUSED.get(kind, "no ONNX form"), tuple(names), advice=_INSTEAD)
        for kind, names in left.items()
    ]
    raise UnsupportedOpsError(
        "these TensorFlow operations have no form in standard ONNX:",
        [r.in_layers(functools.partial(layer_of, layers)) for r in refusals],
    )


def _is_known(op_type: str, opset: int) -> bool:
    """Tells whether ONNX has an operator, in this opset."""
    try:
        onnx.defs.get_schema(op_type, opset)
    except onnx.defs.SchemaError:
        return False
    return True


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
    """Keeps tf2onnx from logging what is checked and reported here, and TensorFlow with it.

    TensorFlow warns of the table of a text layer, which is no part of what is converted.
    """
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


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
