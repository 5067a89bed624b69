"""Arrays as fields of probes: what is taken, what is refused, and how they compare and print."""

import dataclasses
import json

import numpy as np
import pytest

from probegen.errors import SpecError
from probegen.methods.arrays import (
    ByName,
    StoredArray,
    is_array_like,
    parse_number_or_array,
    stored_array,
    with_array_type,
)

RNG = np.random.default_rng(0)
ROUNDED = RNG.normal(size=(3, 4, 2)).astype(np.float32)


class Tensor:
    """What other libraries' tensors are like."""

    ndim = 1

    def __array__(self, dtype=None, copy=None):
        del copy
        return np.array([1.0, 2.0], dtype)


@dataclasses.dataclass(frozen=True)
class Holder:
    a: object = 0.0
    b: object = None


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([[0.5, -1.0]], "float32"),
        (ROUNDED, "float32"),
        (ROUNDED.astype(np.float64), "float32"),
        (np.array([0.1]), "float64"),
        (np.array([1e300]), "float64"),
        (np.array([3, 4], np.uint8), "float32"),
        (np.array([True, False]), "float32"),
        (ROUNDED.astype(np.float16), "float32"),
        (Tensor(), "float32"),
    ],
)
def test_numbers_keep_their_values(value, dtype):
    found = stored_array(value, "baseline")
    assert found.values.dtype.name == dtype
    np.testing.assert_array_equal(found.values, np.asarray(value).astype(dtype))


def test_whole_numbers():
    found = stored_array([[0.0, 3.0]], "groups", whole=True)
    assert found.values.dtype == np.int32
    for wrong in ([0.5], [2**40]):
        with pytest.raises(SpecError, match="groups="):
            stored_array(wrong, "groups", whole=True)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], r"baseline= has the shape \(0,\)"),
        ([[1, 2], [3]], "cannot be read as an array"),
        (["a"], "takes an array of numbers"),
        ([1.0, float("nan")], "NaN or infinite"),
        ("nowhere.npy", "'nowhere.npy' cannot be read as an .npy file"),
        (np.array([1j]), "an array of numbers, got one of complex128"),
    ],
)
def test_what_is_refused(value, says):
    with pytest.raises(SpecError, match=says):
        stored_array(value, "baseline")


def test_a_file_is_read_when_the_field_is_made(tmp_path):
    np.save(tmp_path / "a.npy", ROUNDED)
    found = stored_array(str(tmp_path / "a.npy"), "baseline")
    (tmp_path / "a.npy").unlink()
    assert found == stored_array(ROUNDED, "baseline")


def test_content_counts_and_cannot_change():
    given = ROUNDED.copy()
    one, same = stored_array(given, "a"), stored_array(ROUNDED.astype(np.float64), "a")
    given[0] = 7
    assert one == same
    assert hash(one) == hash(same)
    assert one != stored_array(ROUNDED.reshape(4, 3, 2), "a")
    assert one != stored_array(given, "a")
    assert one != 0.0
    assert Holder(one) == Holder(same)
    assert len({Holder(one), Holder(same), Holder(0.0)}) == 2
    with pytest.raises(ValueError, match="read-only"):
        one.values[0] = 1


def test_how_they_print():
    assert repr(stored_array([[1, 2.5]], "a")) == "[[1.0, 2.5]]"
    shown = repr(stored_array(ROUNDED, "a"))
    assert shown.startswith("<float32 array of shape (3, 4, 2), ")
    assert repr(ByName((("x", 0.5),))) == "{'x': 0.5}"


@pytest.mark.parametrize(
    "values",
    [
        ROUNDED[0],
        np.tile(ROUNDED, (4, 1, 1)),
        np.array([0.1]),
        np.arange(4, dtype=np.int32),
        ROUNDED.astype(np.float16),
    ],
)
def test_text_forms_come_back(values):
    found = StoredArray(values)
    text = json.loads(json.dumps(found.plain()))
    whole = values.dtype.kind == "i"
    assert stored_array(text, "a", whole=whole) == found
    assert is_array_like(text)
    assert isinstance(text, list) == (values.size < 65 and values.dtype.itemsize > 2)


def test_what_is_meant_as_an_array():
    assert all(map(is_array_like, ([0.0], "a.NPY", ROUNDED, stored_array([1], "a"), Tensor())))
    assert not any(map(is_array_like, (0, 0.5, np.float32(1), "blur", {"image": [1]}, None)))


def test_what_is_typed():
    assert parse_number_or_array("-0.5") == -0.5
    assert parse_number_or_array("a.npy") == "a.npy"


def test_values_by_name():
    both = ByName((("image", stored_array([1, 2], "a")), ("age", 0.5)))
    assert both.names == ("image", "age")
    assert both.of("other", "age") == 0.5
    assert both.of("other") is None
    assert both.plain() == {"image": [1.0, 2.0], "age": 0.5}
    assert len({both, ByName(both.items)}) == 1


def test_arrays_take_the_type_of_the_graph():
    probe = Holder(stored_array([0.1], "a"), ByName((("x", stored_array([1], "a")), ("y", 0.5))))
    typed = with_array_type(probe, "float16")
    assert typed.a.values.dtype == np.float16
    assert typed.b.of("x").values.dtype == np.float16
    assert typed.b.of("y") == 0.5
    assert with_array_type(typed, "float16") is typed
    assert with_array_type(probe, "bfloat16") is probe
    labels = Holder(StoredArray(np.arange(3, dtype=np.int32)))
    assert with_array_type(labels, "float64") is labels
