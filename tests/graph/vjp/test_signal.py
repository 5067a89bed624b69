"""Gradients of Fourier transforms."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import Case, check, uniform, written


def dft(shape, *, length=None, axis=None, opset=20, constants=(1, 2), **attributes):
    """Returns a transform; up to opset 19 the axis is an attribute."""
    inputs = [uniform(*shape), None if length is None else np.array(length)]
    if axis is not None and opset >= 20:
        inputs.append(np.array(axis))
    elif axis is not None:
        attributes["axis"] = axis
    return Case(
        op="DFT",
        inputs=inputs,
        attributes=attributes,
        constants=constants,
        opset=opset,
        open_all=False,
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
    )
]

CASES = [*TRANSFORMS, *FRAMES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


def half_spectrum(dys, x, *_):
    """Returns the gradient of `numpy.fft.irfft` by its own matrix."""
    (dy,) = dys
    length = dy.shape[1]
    found = np.zeros_like(x)
    for k, part in np.ndindex(x.shape[1], 2):
        unit = np.zeros(x.shape[1], complex)
        unit[k] = 1j if part else 1
        found[:, k, part] = dy[..., 0] @ np.fft.irfft(unit, length)
    return [found]


@pytest.mark.parametrize("length", [7, 8])
def test_a_real_signal_from_half_a_spectrum(length):
    """onnxruntime writes another size than the specification has, so that numpy is asked."""
    half = length // 2 + 1
    case = dft((2, half, 2), length=length, inverse=1, onesided=1)
    nodes = written(case, {})
    assert nodes.count("DFT") == 1
    x = uniform(2, half, 2)
    dy = uniform(2, length, 1, seed=3)
    spectrum = np.fft.rfft(dy[..., 0])
    times = np.full(half, 2.0 / length)
    times[0] /= 2
    if length % 2 == 0:
        times[-1] /= 2
    direct = np.stack([spectrum.real * times, spectrum.imag * times], axis=-1)
    np.testing.assert_allclose(direct, half_spectrum([dy], x)[0], atol=1e-12)


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
