"""Numbers that must never change, since stored requests are made of them."""

import numpy as np

from probegen.artefact import portable_random as drawn


def test_the_bits_are_those_of_splitmix64():
    """The generator's own test vector, of seed 0."""
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert drawn.bits(0, 3).tolist() == expected


def test_numbers_are_fixed():
    np.testing.assert_array_equal(drawn.integers(3, 8, -2, 5), [0, 0, 4, 1, 1, 1, 1, 4])
    assert drawn.uniform(1, 2, -1.0, 3.0).tolist() == [2.822815179824829, 1.9947314262390137]
    expected = [-1.3122789859771729, -1.9864563941955566]
    assert drawn.normal(2, 2).astype(np.float32).tolist() == expected


def test_they_are_spread_as_they_should_be():
    normal = drawn.normal(5, 200_000)
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    uniform = drawn.uniform(5, 100_000, 2.0, 4.0)
    assert 2.0 <= uniform.min() < uniform.max() < 4.0
    assert abs(uniform.mean() - 3) < 0.01
    assert np.bincount(drawn.integers(5, 70_000, 0, 7)).std() < 200
    first, second = drawn.signs(5, 100_000, 2)
    assert set(np.unique(first)) == {-1.0, 1.0}
    assert abs((first * second).mean()) < 0.02
