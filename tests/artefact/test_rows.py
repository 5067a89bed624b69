"""Where samples lie: along the axis called batch, the first, another, or none."""

from types import SimpleNamespace

import numpy as np
import pytest

from probegen.artefact.rows import (
    as_described,
    batch_axis,
    count_rows,
    one_row,
    rows_first,
    without_batch,
)

FIRST, SECOND, NONE = ("batch", "time", "unit"), ("time", "batch", "unit"), ("time", "unit")


def array(*shape):
    return np.arange(np.prod(shape)).reshape(shape)


def test_which_axis_it_is():
    assert [batch_axis(axes) for axes in (FIRST, SECOND, NONE, ())] == [0, 1, None, None]


def test_rows_come_first_and_go_back():
    value = array(3, 2, 4)
    np.testing.assert_array_equal(rows_first(value, FIRST), value)
    moved = rows_first(value, SECOND)
    np.testing.assert_array_equal(moved, value.transpose(1, 0, 2))
    back = as_described(moved, SECOND)
    np.testing.assert_array_equal(back, value)
    assert back.flags.c_contiguous
    last = ("time", "unit", "batch")
    np.testing.assert_array_equal(rows_first(value, last), value.transpose(2, 0, 1))
    np.testing.assert_array_equal(as_described(rows_first(value, last), last), value)


def test_what_has_no_batch_belongs_to_every_row():
    value = array(3, 4)
    assert rows_first(value, NONE).shape == (1, 3, 4)
    three = rows_first(value, NONE, 3)
    assert three.shape == (3, 3, 4)
    for row in three:
        np.testing.assert_array_equal(row, value)
    np.testing.assert_array_equal(as_described(three, NONE), value)
    assert one_row(value, NONE, 5) is value


@pytest.mark.parametrize("row", [0, 1])
def test_one_row(row):
    value = array(3, 2, 4)
    np.testing.assert_array_equal(one_row(value, FIRST, row), value[row])
    np.testing.assert_array_equal(one_row(value, SECOND, row), value[:, row])


def test_the_number_of_rows_is_that_of_the_first_array_that_has_some():
    specs = [SimpleNamespace(name=n, axes=a) for n, a in (("w", NONE), ("x", SECOND))]
    arrays = {"w": array(5, 4), "x": array(3, 2, 4)}
    assert count_rows(arrays, specs) == 2
    assert count_rows(arrays, specs[:1]) == 1
    assert count_rows(arrays, []) == 1


def test_sizes_without_the_batch():
    assert without_batch((3, 2, 4), SECOND) == (3, 4)
    assert without_batch((3, 4), NONE) == (3, 4)
    assert without_batch((3, 2, 4), ("axis_0", "batch", "axis_2")) == (3, 4)
    with pytest.raises(ValueError, match="zip"):
        without_batch((3, 2), SECOND)
