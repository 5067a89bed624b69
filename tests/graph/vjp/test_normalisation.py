"""Gradients of normalisations."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from probegen.errors import UnsupportedOpsError
from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.vjp import BLOCKING, RULES
from tests.graph.vjp.harness import Case, check, one_node, run, tf, uniform, written


def _batch(shape, constants=(), **more):
    channels = shape[1]
    parameters = [uniform(channels, seed=i) for i in (1, 2, 3)]
    variance = uniform(channels, low=0.5, seed=4)
    return Case(
        op="BatchNormalization",
        inputs=[uniform(*shape), *parameters, variance],
        attributes={"epsilon": 2.0**-6},
        constants=constants,
        **more,
    )


BATCH = [
    _batch((2, 3, 4, 5), {1, 2, 3, 4}),
    _batch((2, 3, 4), {1, 2, 3, 4}),
    _batch((2, 3), {2, 3}),
    _batch((2, 3, 4)),
    _batch((2, 3, 4), wrt=[0]),
]


def _layer(shape, axis, scale_shape, **more):
    inputs = [uniform(*shape), uniform(*scale_shape, seed=1), uniform(*scale_shape, seed=2)]
    attributes = {"axis": axis, "epsilon": 2.0**-6}

    def by_tensorflow(x, scale, shift):
        axes = list(range(axis % len(shape), len(shape)))
        mean, variance = tf("nn.moments")(x, axes, keepdims=True)
        return (x - mean) * tf("math.rsqrt")(variance + 2.0**-6) * scale + shift

    return Case(
        op="LayerNormalization",
        inputs=inputs,
        attributes=attributes,
        numeric=False,
        tensorflow=by_tensorflow,
        **more,
    )


def _bare(shape, scale, shift):
    """A layer normalisation by known constants, which may not change anything."""
    case = _layer(shape, -1, (4,), constants={1, 2})
    return dataclasses.replace(case, inputs=[case.inputs[0], scale, shift])


LAYER = [
    _layer((2, 3, 4), -1, (4,)),
    _layer((2, 3, 4), 1, (3, 4)),
    _layer((2, 3, 4), -1, (4,), wrt=[0]),
    _bare((2, 3, 4), np.ones(4), np.zeros(4)),
    _bare((2, 3, 4), np.ones(4), np.ones(4)),
    _bare((2, 3, 4), np.full(4, 2.0), np.zeros(4)),
    Case(
        op="LayerNormalization",
        inputs=[uniform(2, 3, 4), uniform(4, seed=1)],
        constants={1},
        numeric=False,
        tensorflow=lambda x, scale: _layer((2, 3, 4), -1, (4,)).tensorflow(x, scale, 0.0),
        attributes={"epsilon": 2.0**-6},
        name="no shift",
    ),
    *(
        Case(
            op="RMSNormalization",
            inputs=[uniform(2, 3, 4), uniform(*scale_shape, seed=1)],
            attributes={"axis": axis, "epsilon": 2.0**-6},
            opset=23,
            numeric=False,
            tensorflow=lambda x, scale, axis=axis: (
                x
                * tf("math.rsqrt")(
                    tf("reduce_mean")(x * x, list(range(axis % 3, 3)), keepdims=True) + 2.0**-6
                )
                * scale
            ),
        )
        for axis, scale_shape in ((-1, (4,)), (1, (3, 4)))
    ),
]


def _groups(groups, shape, opset=21, **more):
    """GroupNormalization against TensorFlow on the grouped layout; float32, as its stages are."""

    def by_tensorflow(x, scale, shift):
        grouped = tf("reshape")(x, (shape[0], groups, -1))
        mean, variance = tf("nn.moments")(grouped, [2], keepdims=True)
        n = tf("reshape")((grouped - mean) * tf("math.rsqrt")(variance + 2.0**-6), shape)
        of_channels = (-1, *[1] * (len(shape) - 2))
        return n * tf("reshape")(scale, of_channels) + tf("reshape")(shift, of_channels)

    return Case(
        op="GroupNormalization",
        inputs=[uniform(*shape), uniform(shape[1], seed=1), uniform(shape[1], seed=2)],
        attributes={"num_groups": groups, "epsilon": 2.0**-6},
        opset=opset,
        ranks={0: len(shape)},
        double=False,
        numeric=False,
        tensorflow=by_tensorflow,
        **more,
    )


def _instance(*sizes, **more):
    """InstanceNormalization of `[2, 3, *sizes]`: over all axes but the first two."""

    def by_tensorflow(x, scale, shift):
        axes = list(range(2, 2 + len(sizes)))
        mean, variance = tf("nn.moments")(x, axes, keepdims=True)
        n = (x - mean) * tf("math.rsqrt")(variance + 2.0**-6)
        of_channels = (3, *[1] * len(sizes))
        return n * tf("reshape")(scale, of_channels) + tf("reshape")(shift, of_channels)

    return Case(
        op="InstanceNormalization",
        inputs=[uniform(2, 3, *sizes), uniform(3, seed=1), uniform(3, seed=2)],
        attributes={"epsilon": 2.0**-6},
        tensorflow=by_tensorflow,
        numeric=False,
        **more,
    )


def _with_statistics(axis, seeds, **more):
    """LayerNormalization whose mean and deviation go on."""
    return Case(
        op="LayerNormalization",
        inputs=[uniform(2, 3, 4), uniform(*(3, 4)[axis % 3 - 1 :], seed=1)],
        attributes={"axis": axis, "epsilon": 2.0**-6},
        outputs=3,
        seeds=seeds,
        double=False,
        numeric=False,
        tensorflow=lambda x, scale: _statistics(x, scale, list(range(axis % 3, 3)), seeds),
        name=f"axis {axis} outputs {seeds}",
        **more,
    )


def _statistics(x, scale, axes, seeds):
    mean, variance = tf("nn.moments")(x, axes, keepdims=True)
    inverse = tf("math.rsqrt")(variance + 2.0**-6)
    outputs = ((x - mean) * inverse * scale, mean, inverse)
    return [outputs[i] for i in seeds]


STATISTICS = [
    _with_statistics(-1, (0, 1, 2)),
    _with_statistics(1, (2,), wrt=[0]),
    _with_statistics(1, (0, 1)),
]

GROUPS = [
    _groups(2, (2, 6, 5)),
    _groups(3, (2, 6, 2, 3)),
    _groups(3, (2, 6, 2, 3), wrt=[0]),
    _instance(4, 5),
    _instance(7),
    _instance(2, 4, 3),
    _instance(4, 5, wrt=[0]),
]


def _moments(axes):
    def by_tensorflow(x):
        mean, variance = tf("nn.moments")(x, axes, keepdims=True)
        return (x - mean) / tf("sqrt")(variance)

    return by_tensorflow


def _local_response(size):
    def by_tensorflow(x):
        x = tf("cast")(tf("transpose")(x, [0, 2, 3, 1]), "float32")
        y = tf("nn.local_response_normalization")(x, size // 2, 1.5, 0.75 / size, 0.5)
        return tf("transpose")(y, [0, 3, 1, 2])

    return by_tensorflow


OTHERS = [
    Case(
        op="MeanVarianceNormalization",
        inputs=[uniform(2, 3, 4, 5)],
        attributes={"axes": [0, 2, 3]},
        double=False,
        numeric=False,
        tensorflow=_moments([0, 2, 3]),
    ),
    Case(
        op="MeanVarianceNormalization",
        inputs=[uniform(2, 3, 4)],
        attributes={"axes": [1, 2]},
        double=False,
        numeric=False,
        tensorflow=_moments([1, 2]),
    ),
    Case(
        op="MeanVarianceNormalization",
        inputs=[uniform(2, 3, 4, 5)],
        attributes={"axes": [-1, 1]},
        double=False,
        numeric=False,
        tensorflow=_moments([1, 3]),
        name="axes from the end",
    ),
    Case(op="LpNormalization", inputs=[uniform(2, 3, 4)]),
    Case(op="LpNormalization", inputs=[uniform(2, 3, 4)], attributes={"axis": 1, "p": 1}),
    *(
        Case(
            op="LRN",
            inputs=[uniform(2, 5, 2, 3)],
            attributes={"size": size, "alpha": 0.75, "beta": 0.5, "bias": 1.5},
            double=False,
            numeric=False,
            tensorflow=_local_response(size),
            name=f"size {size}",
        )
        for size in (1, 3, 5)
    ),
]

CASES = [*BATCH, *LAYER, *STATISTICS, *GROUPS, *OTHERS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


def test_kept_statistics_are_one_factor_a_channel():
    assert written(_batch((2, 3, 4), {1, 2, 3, 4})) == ["Mul"]


def test_a_layer_normalisation_gives_its_own_statistics():
    nodes = written(_layer((2, 3, 4), -1, (4,), wrt=[0]))
    assert nodes.count("ReduceMean") == 2
    assert "Sqrt" not in nodes


def test_a_layer_normalisation_that_only_normalises_gives_its_result():
    nodes = written(_bare((2, 3, 4), np.ones(4), np.zeros(4)))
    assert nodes == ["Mul", "ReduceMean", "Mul", "ReduceMean", "Sub", "Sub", "Mul"]


def test_a_mean_variance_normalisation_has_axes_by_default():
    """onnx cannot infer the shape of it without them, so that the attribute is taken out later."""
    axes = [0, 2, 3]
    case = Case(
        op="MeanVarianceNormalization", inputs=[uniform(2, 3, 4, 5)], attributes={"axes": axes}
    )
    found = []
    for given in (True, False):
        parsed = ir.from_proto(one_node(case, np.float32))
        graph = parsed.graph
        (node,) = list(graph)
        if not given:
            node.attributes.pop("axes")
        builder = Builder(graph, case.opset)
        dy = builder.const(uniform(2, 3, 4, 5, seed=3).astype(np.float32))
        (dx,) = gradients(builder, {graph.outputs[0]: dy}, list(graph.inputs), RULES, BLOCKING)
        builder.attach()
        graph.outputs[:] = [dx]
        model = ir.to_proto(parsed)
        found.append(run(model, {"x0": case.inputs[0].astype(np.float32)}, True)[dx.name])
    np.testing.assert_array_equal(found[0], found[1])


def test_training_is_refused():
    case = _batch((2, 3, 4), {1, 2, 3, 4})
    case = Case(op=case.op, inputs=case.inputs, attributes={"training_mode": 1}, outputs=3, wrt=[0])
    with pytest.raises(UnsupportedOpsError, match="BatchNormalization: it is in training mode"):
        written(case)
