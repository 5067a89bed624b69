"""Gradients of Fourier transforms."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from probegen.errors import UnsupportedOpsError
from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.vjp import BLOCKING, RULES
from tests.graph.vjp.harness import Case, check, one_node, run, uniform, written


def dft(shape, *, length=None, axis=None, opset=20, constants=(1, 2), **attributes):
    """Returns a transform; up to opset 19 the axis is an attribute."""
    inputs = [uniform(*shape), None if length is None else np.array(length)]
    if axis is not None and opset >= 20:
        inputs.append(np.array(axis))
    elif axis is not None:
        attributes["axis"] = axis
    sizes = {i: f"size_{i}" for i in range(len(shape) - 1)}
    opened = {} if length is not None else {"batch": {0: sizes}}
    return Case(
        op="DFT",
        inputs=inputs,
        attributes=attributes,
        constants=constants,
        opset=opset,
        open_all=False,
        **opened,
        name=f"length {length} axis {axis} {attributes}",
    )


TRANSFORMS = [
    dft((2, 5, 1)),
    dft((2, 6, 2), axis=1),
    dft((2, 5, 2), inverse=1),
    dft((2, 5, 1), onesided=1),
    dft((2, 6, 1), onesided=1),
    dft((2, 5, 1), length=7, onesided=1),
    dft((2, 6, 2), length=4),
    dft((2, 6, 2), length=9, inverse=1),
    dft((3, 4, 5, 2), axis=-3),
    dft((2, 5, 3, 1), axis=1, opset=18),
    dft((2, 5, 1), opset=17, onesided=1),
]

FRAMES = [
    Case(
        op="STFT",
        inputs=[uniform(2, 11, 1), np.array(3), *more],
        attributes=attributes,
        constants=(1, 2, 3),
        open_all=False,
        name=name,
    )
    for name, more, attributes in (
        ("window", [uniform(4, low=0.5, high=1.5, seed=1)], {"onesided": 1}),
        ("length", [None, np.array(5)], {"onesided": 1}),
        ("all", [uniform(4, low=0.5, high=1.5, seed=1), np.array(4)], {"onesided": 0}),
    )
] + [
    Case(
        op="STFT",
        inputs=[uniform(2, 9, 1), np.array(2), uniform(4, low=0.5, high=1.5, seed=1)],
        attributes={"onesided": 1},
        constants=(1,),
        batch={},
        open_all=False,
        name="learned window",
    ),
    # As PyTorch writes it: a real signal without the axis of its parts.
    Case(
        op="STFT",
        inputs=[uniform(2, 11), np.array(3), uniform(4, low=0.5, high=1.5, seed=1), np.array(4)],
        attributes={"onesided": 1},
        constants=(1, 2, 3),
        open_all=False,
        name="two axes",
    ),
]

CASES = [*TRANSFORMS, *FRAMES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


@pytest.mark.parametrize("length", [7, 8])
def test_a_real_signal_from_half_a_spectrum(length):
    """Against numpy: onnxruntime and onnx's inference do not agree on the size of the signal."""
    half = length // 2 + 1
    case = dft((2, half, 2), length=length, inverse=1, onesided=1)
    parsed = ir.from_proto(one_node(case, np.float64))
    graph = parsed.graph
    builder = Builder(graph, case.opset)
    dy = uniform(2, length, 1, seed=3)
    seeds = {graph.outputs[0]: builder.const(dy)}
    (dx,) = gradients(builder, seeds, list(graph.inputs), RULES, BLOCKING)
    builder.attach()
    graph.outputs[:] = [dx]
    graph.remove(graph[0], safe=False)
    found = run(ir.to_proto(parsed), {"x0": case.inputs[0]}, need_kernels=True)[dx.name]
    expected = np.zeros((2, half, 2))
    for k, part in np.ndindex(half, 2):
        unit = np.zeros(half, complex)
        unit[k] = 1j if part else 1
        expected[:, k, part] = dy[..., 0] @ np.fft.irfft(unit, length)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (dft((2, 5, 1), length=5, constants=()), "its length is computed at run time"),
        (dft((2, 5, 1), axis=1, constants=()), "its axis is computed at run time"),
    ],
    ids=str,
)
def test_refusals(case, reason):
    with pytest.raises(UnsupportedOpsError, match=f"DFT: {reason}"):
        written(case, {})
