"""Methods with gradients of their own at rectifiers, by TensorFlow's tape on the untouched model.

While such a method is asked for, each activation that is a rectifier gets another gradient. Where
a model could hold a rectifier that is spelled in several layers, nothing is known of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
import tensorflow as tf
from keras import activations, layers

import probegen as pg

#: Method -> what arrives before a rectifier: (its slope, what it scales large numbers by, what
#: arrives behind it).
RULES: dict[type, Callable[[Any, float, Any], Any]] = {
    pg.GuidedBackprop: lambda slope, _, g: tf.nn.relu(slope) * tf.nn.relu(g),
    pg.Deconvnet: lambda _, scale, g: tf.cast(scale, g.dtype) * tf.nn.relu(g),
}

#: What SELU scales large numbers by; all others leave them as they are.
_SELU = 1.0507009873554805
_RECTIFIERS = frozenset(
    {
        *(activations.relu, activations.relu6, activations.leaky_relu, activations.elu),
        *(activations.selu, activations.celu, activations.softplus, activations.mish),
        *(activations.gelu, activations.silu, activations.hard_silu),
    }
)
#: Functions that keep their gradient.
_OTHERS = frozenset(
    {activations.linear, activations.sigmoid, activations.tanh, activations.softsign}
    | {activations.softmax, activations.hard_sigmoid}
)
#: Layers with an activation behind what mixes channels or positions.
_WITH_ACTIVATION = (
    *(layers.Dense, layers.EinsumDense, layers.Conv1D, layers.Conv2D, layers.Conv3D),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D, layers.SeparableConv1D),
    *(layers.SeparableConv2D, layers.Conv1DTranspose, layers.Conv2DTranspose),
    layers.Conv3DTranspose,
)
#: Layers that are rectifiers by themselves.
_OF_ONE = (layers.LeakyReLU, layers.ELU, layers.PReLU)
#: Layers that run a cell.
_RECURRENT = (layers.LSTM, layers.GRU, layers.SimpleRNN)
_MIXING = (
    *(layers.Embedding, layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector),
    *(layers.LayerNormalization, layers.GroupNormalization, layers.Softmax, layers.Concatenate),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D),
    *(layers.AveragePooling3D, layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    *(layers.GlobalAveragePooling3D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D, layers.Cropping1D),
    *(layers.Cropping2D, layers.Cropping3D, layers.UpSampling1D, layers.UpSampling2D),
    *(layers.UpSampling3D, layers.MultiHeadAttention),
)
_ELEMENTWISE = (
    *(layers.InputLayer, layers.Dropout, layers.Identity, layers.GaussianNoise),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.ActivityRegularization, layers.BatchNormalization, layers.Rescaling),
    *(layers.Activation, layers.ReLU, *_OF_ONE),
)
#: What the functions of a layer or a cell are called.
_ACTIVATIONS = ("activation", "recurrent_activation")
_JOINS = (layers.Add, layers.Subtract, layers.Average, layers.Multiply)
#: Operations behind a last layer by which its scores are computed anew, and others of one tensor
#: that move, join or weigh elements.
_OPERATIONS = frozenset(
    {"Matmul", "Cast", "GetItem", "Reshape", "Transpose", "Flip", "Roll", "Concatenate"}
    | {"Repeat", "Tile", "ExpandDims", "Squeeze", "Mean", "Sum", "Cumsum", "Pad", "Swapaxes"}
)


def is_known(network: Any) -> bool:
    """Tells whether each rectifier of a functional model is one layer's activation, and plain."""
    operations = getattr(network, "operations", None)
    return operations is not None and all(_is_known(operation) for operation in operations)


def _is_known(operation: Any) -> bool:
    kind = type(operation)
    if isinstance(operation, keras.Model):
        return is_known(getattr(operation, "_functional", operation))
    if kind in _JOINS or kind.__name__ in ("Add", "Subtract"):
        return all(
            len(node.input_tensors) == 1 or any(_is_apart(x) for x in node.input_tensors)
            for node in operation._inbound_nodes
        )
    if kind is layers.ReLU:
        return not (operation.negative_slope or operation.threshold)
    if kind is layers.Bidirectional:
        return all(_is_known(one) for one in (operation.forward_layer, operation.backward_layer))
    if kind in _RECURRENT:
        used = [getattr(operation.cell, name, None) for name in _ACTIVATIONS]
        return all(f is None or f in _RECTIFIERS | _OTHERS for f in used)
    if kind in (*_WITH_ACTIVATION, layers.Activation):
        return operation.activation in _RECTIFIERS | _OTHERS
    if kind in (*_MIXING, *_ELEMENTWISE):
        return True
    return not isinstance(operation, keras.Layer) and kind.__name__ in _OPERATIONS


def _is_apart(tensor: Any) -> bool:
    """Tells whether a tensor is made by a mixing layer for one reader alone.

    What joins it with others is then no function of one tensor, element by element.
    """
    maker = tensor._keras_history.operation
    outer = maker._outbound_nodes
    return type(maker) in (*_WITH_ACTIVATION, *_MIXING) and len(outer) == 1


@contextlib.contextmanager
def bent(network: Any, probe: Any) -> Iterator[None]:
    """Lets the rectifiers of a model have the gradients of a method; of others nothing changes."""
    rule = RULES.get(type(probe))
    with contextlib.ExitStack() as stack:
        for layer in network._flatten_layers() if rule is not None else ():
            if type(layer) in (*_OF_ONE, layers.ReLU):
                stack.enter_context(mock.patch.object(layer, "call", _bent(layer.call, rule)))
            elif type(layer) not in (*_RECURRENT, layers.Bidirectional):  # their cells stand beside
                for name in _ACTIVATIONS:
                    used: Any = getattr(layer, name, None)
                    if used in _RECTIFIERS:
                        changed = _bent(used, rule, _SELU if used is activations.selu else 1.0)
                        stack.enter_context(mock.patch.object(layer, name, changed))
        yield


def _bent(function: Callable[[Any], Any], rule: Any, scale: float = 1.0) -> Callable[[Any], Any]:
    def called(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = function(x)
        slope = tape.gradient(result, x)

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def passed(x: Any) -> Any:
            del x
            return tf.identity(result), lambda g: rule(slope, scale, g)

        return passed(x)

    return called
