"""Noise that graphs make: normal, without a pattern, and the same in every runtime."""

import math

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import tensorflow as tf

from probegen.graph.array_operations import OnnxOperations
from probegen.graph.core.builder import Builder
from probegen.methods.noise import (
    ROUNDS,
    halves,
    keys_of_draws,
    keys_of_tensor,
    normal_noise,
    permutation,
    uniform,
)
from probegen.methods.numpy_operations import NumpyOperations
from probegen.sources.keras.array_operations import TensorFlowOperations

OPS = NumpyOperations()
SIZE, DRAWS = 5000, 120


def twin(shape, seed, draw, tensor=0):
    """The noise by whole numbers of Python's size, written out from the description."""
    numbers = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    high, low = numbers >> 12, numbers & 4095
    own = keys_of_tensor(tensor)
    for key, extra in zip(keys_of_draws(seed, draw + 1), own, strict=True):
        mixed = (low + int(key[draw]) + int(extra)) & 4095
        high, low = low, (high + (mixed * mixed >> 6)) & 4095
    first, second = (high + 0.5) / 4096, (low + 0.5) / 4096
    return np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)


def drawn(shape, seed=0, draws=DRAWS, tensor=0, axes=None, dtype=np.float64):
    """Noise by numpy, `[draws, ...shape]`."""
    like = np.zeros(shape, dtype)
    numbers = halves(OPS, like, range(len(shape)) if axes is None else axes)
    keys = keys_of_draws(seed, draws)
    return np.stack(
        [normal_noise(OPS, numbers, [k[d] for k in keys], tensor) for d in range(draws)]
    )


NOISE = drawn((SIZE,))


@pytest.mark.parametrize("shape", [(7,), (3, 5, 2), (70, 90)])
def test_it_is_what_the_description_says(shape):
    for tensor in (0, 1):
        found = drawn(shape, seed=5, draws=2, tensor=tensor)
        np.testing.assert_allclose(found[1], twin(shape, 5, 1, tensor), atol=1e-12)


def test_it_is_normal():
    means, variances = NOISE.mean(1), NOISE.var(1)
    assert np.abs(means).max() < 4.5 / math.sqrt(SIZE)
    assert np.abs(variances - 1).max() < 4.5 * math.sqrt(2 / SIZE)
    everything = NOISE.reshape(-1)
    assert abs(everything.mean()) < 0.006
    assert abs(everything.var() - 1) < 0.01
    assert abs((everything**3).mean()) < 0.02
    assert abs((everything**4).mean() - 3) < 0.05
    assert 4 < np.abs(everything).max() < 4.3


def test_it_has_the_distribution_of_the_normal_one():
    ordered = np.sort(NOISE, axis=1)
    cumulative = 0.5 * (1 + np.vectorize(math.erf)(ordered[::10] / math.sqrt(2)))
    steps = (np.arange(SIZE) + 0.5) / SIZE
    largest = np.abs(cumulative - steps).max(1) * math.sqrt(SIZE)
    assert largest.max() < 1.95  # the limit of Kolmogorov and Smirnov at 0.001
    assert largest.mean() < 1.1


def test_the_halves_are_uniform():
    numbers = halves(OPS, np.zeros(2**16), (0,))
    high, low = numbers
    for key in (k[0] for k in keys_of_draws(3, 1)):
        mixed = (low + key) % 4096
        high, low = low, (high + np.floor(mixed * mixed / 64)) % 4096
    for half in (high, low):
        counts = np.bincount(half.astype(int) // 64, minlength=64)
        assert ((counts - 1024.0) ** 2 / 1024).sum() < 120  # 63 degrees of freedom
    assert len(np.unique(high * 4096 + low)) == 2**16  # one to one


@pytest.mark.parametrize("lag", [1, 2, 3, 28, 64, 224, 4096])
def test_neighbours_are_independent(lag):
    for values in (NOISE, NOISE**2 - 1):
        products = (values[:, lag:] * values[:, :-lag]).mean(1) / values.var()
        assert np.abs(products).max() < 5 / math.sqrt(SIZE - lag)


def test_draws_seeds_and_tensors_are_independent():
    others = [NOISE, drawn((SIZE,), seed=1, draws=20), drawn((SIZE,), draws=20, tensor=1)]
    rows = np.concatenate(others)
    found = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(found).max() < 5.5 / math.sqrt(SIZE)
    assert abs(found.std() * math.sqrt(SIZE) - 1) < 0.05
    assert np.abs(NOISE.mean(0)).max() < 5 / math.sqrt(DRAWS)  # of one element over the draws


def test_each_bit_of_an_elements_number_changes_half_of_the_bits():
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**24, 2000)

    def mixed(numbers):
        high, low = numbers >> 12, numbers & 4095
        for key in (int(k[0]) for k in keys_of_draws(0, 1)):
            inner = (low + key) & 4095
            high, low = low, (high + (inner * inner >> 6)) & 4095
        return high << 12 | low

    shares = [
        ((mixed(numbers) ^ mixed(numbers ^ 1 << bit)) >> out & 1).mean()
        for bit in range(24)
        for out in range(24)
    ]
    assert 0.44 < min(shares) <= max(shares) < 0.56


def in_onnx(x, axes, draws):
    shape = ["batch", *x.shape[1:]]
    value = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name="g")
    builder = Builder(graph, 18)
    ops = OnnxOperations(builder)
    numbers = halves(ops, value, axes)
    keys = keys_of_draws(7, draws)
    made = [
        normal_noise(ops, numbers, [builder.const(np.float32(k[d])) for k in keys], 1)
        for d in range(draws)
    ]
    builder.attach()
    graph.outputs.extend([*numbers, *made])
    data = ir.to_proto(ir.Model(graph, ir_version=9)).SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )


def test_every_implementation_gives_the_same():
    x = np.zeros((2, 9, 700), np.float32)
    high, low, *noise = in_onnx(x, (1, 2), 2)
    ops = TensorFlowOperations()
    tensor = tf.constant(x)
    by_tf = halves(ops, tensor, (1, 2))
    for ours, theirs, plain in zip((high, low), by_tf, halves(OPS, x, (1, 2)), strict=True):
        assert ours.shape == (1, 9, 700)  # the rows of a batch share it
        np.testing.assert_array_equal(ours, np.asarray(theirs))
        np.testing.assert_array_equal(ours, plain)
    keys = keys_of_draws(7, 2)
    for draw, ours in enumerate(noise):
        theirs = normal_noise(ops, by_tf, [tf.constant(k[draw]) for k in keys], 1)
        np.testing.assert_allclose(ours, np.asarray(theirs), atol=2e-6)
        np.testing.assert_allclose(ours[0], twin((9, 700), 7, draw, 1), atol=2e-6)


def test_numbers_of_16_bits_get_the_same_noise():
    found = drawn((40, 50), draws=1, dtype=np.float16)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], twin((40, 50), 0, 0), atol=2e-6)


def test_tables_that_are_stored():
    assert all(len(k) == 4 for k in keys_of_draws(2, 4))
    assert len(keys_of_draws(2, 4)) == ROUNDS
    assert uniform(3, "a", 2) == uniform(3, "a", 5)[:2]  # of a hash: no library's generator
    numbers = np.array(uniform(0, "a", 2000))
    assert 0 <= numbers.min() < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.03
    assert sorted(permutation(1, "a", 9)) == list(range(9))
    assert permutation(1, "a", 9) != permutation(2, "a", 9)
    np.testing.assert_allclose(uniform(3, "a", 1), [0.26150694], atol=1e-8)
