"""Tensors of the protocol: every element type as JSON and as bytes, and what is no tensor."""

import struct
import tracemalloc

import numpy as np
import pytest

from probegen.errors import InputError
from probegen.serve import datatypes
from tests.serve.support import NAMES


def nested(depth, value):
    """A value in lists in lists."""
    for _ in range(depth):
        value = [value]
    return value


VALUES = {"b": [True, False, True], "u": [0, 3, 200], "i": [-100, 0, 100], "f": [-1.5, 0.0, 3.25]}


@pytest.mark.parametrize("dtype", NAMES)
def test_every_type_of_numbers_both_ways(dtype):
    values = VALUES[np.dtype(dtype).kind]
    array = np.array(values, dtype).reshape(3, 1)
    from_json = datatypes.from_json("x", [3, 1], NAMES[dtype], values)
    raw = memoryview(array.astype(array.dtype.newbyteorder("<")).tobytes())
    from_binary = datatypes.from_binary("x", [3, 1], NAMES[dtype], raw)
    for found in (from_json, from_binary):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    assert datatypes.name_of(array) == NAMES[dtype]
    assert datatypes.to_binary(array) == bytes(raw)
    assert datatypes.to_binary(array.astype(array.dtype.newbyteorder(">"))) == bytes(raw)
    assert datatypes.to_json(array) == (values, 0)


def test_the_largest_numbers():
    for dtype in ("uint64", "int64"):
        limits = np.iinfo(dtype)
        values = [int(limits.min), int(limits.max)]
        found = datatypes.from_json("x", [2], NAMES[dtype], values)
        assert found.tolist() == values
        assert datatypes.to_json(found)[0] == values


def test_nested_lists_and_no_elements():
    nested = [[[1, 2]], [[3, 4]], [[5, 6]]]
    assert datatypes.from_json("x", [3, 1, 2], "FP32", nested).tolist() == nested
    assert datatypes.from_json("x", [0, 4], "INT8", []).shape == (0, 4)
    assert datatypes.from_binary("x", [0, 4], "INT8", memoryview(b"")).shape == (0, 4)
    assert datatypes.from_json("x", [], "FP32", [2.5]).shape == ()


def test_text():
    texts = ["", "ant", "größer", "a\nb"]
    raw = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    for found in (
        datatypes.from_json("x", [2, 2], "BYTES", texts),
        datatypes.from_json("x", [2, 2], "BYTES", [texts[:2], texts[2:]]),
        datatypes.from_binary("x", [2, 2], "BYTES", memoryview(raw)),
    ):
        assert found.ravel().tolist() == texts
        assert found.shape == (2, 2)
        assert datatypes.to_binary(found) == raw
        assert datatypes.to_json(found) == (texts, 0)


def test_a_long_text_among_many_takes_its_space_once():
    """As an array of texts these would take 4 GB, and 10**10 texts beside a long one any memory."""
    texts = ["a" * 10**6, *["b"] * 1000]
    tracemalloc.start()
    found = datatypes.from_json("x", [1001], "BYTES", texts)
    with pytest.raises(InputError, match="hold strings"):
        datatypes.from_json("x", [1001], "FP32", texts)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert found.tolist() == texts
    for none in (
        datatypes.from_json("x", [0], "BYTES", []),
        datatypes.from_binary("x", [0], "BYTES", memoryview(b"")),
    ):
        assert none.dtype.kind == "U"  # or nothing tells that it is text
    assert datatypes.from_json("x", [1], "BYTES", ["a\0"]).tolist() == ["a\0"]


def test_bfloat16_comes_as_the_numbers_that_it_holds():
    values = np.float32([1.0, -2.5, 3.140625, 1e30])
    raw = memoryview((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    found = datatypes.from_binary("x", [4], "BF16", raw)
    np.testing.assert_allclose(found, values, rtol=2**-7)
    assert found.dtype == np.float32


def test_what_json_has_no_number_for():
    array = np.float32([[1, np.nan], [np.inf, -np.inf]])
    assert datatypes.to_json(array) == ([1.0, None, None, None], 3)
    assert np.isnan(np.frombuffer(datatypes.to_binary(array), "<f4")[1])


@pytest.mark.parametrize(
    ("shape", "datatype", "data", "message"),
    [
        ([2], "FLOAT32", [1, 2], r"datatype 'FLOAT32'; the protocol has BOOL, .* BF16\."),
        ([2], "fp32", [1, 2], r"Did you mean 'FP32'"),
        ([2], None, [1, 2], "has no datatype; the protocol has BOOL"),
        ([2], ["FP32"], [1, 2], r"datatype \"\['FP32'\]\""),
        ([1] * 33, "FP32", [1], "expected a list of sizes"),
        ([0, 2**30, 2**30], "FP32", [], "expected a list of sizes"),
        ("2", "FP32", [1, 2], "expected a list of sizes"),
        (None, "FP32", [1, 2], "expected a list of sizes"),
        ([-1], "FP32", [1], "expected a list of sizes"),
        ([True], "FP32", [1], "expected a list of sizes"),
        ([2**30, 2**30], "FP32", [1], "expected a list of sizes"),
        ([3], "FP32", [1, 2], r"has 2 elements in the shape \[2\]; its shape \[3\] takes 3"),
        ([2, 1], "FP32", [[1, 2]], r"has 2 elements in the shape \[1, 2\]; its shape \[2, 1\]"),
        ([2, 2], "FP32", [[1, 2], [3]], "no regular array"),
        ([2], "INT32", [1.5, 2], "hold numbers with decimals, and its datatype is INT32"),
        ([1], "UINT8", [256], "do not fit into UINT8, which goes from 0 to 255"),
        ([1], "UINT8", [-1], "do not fit into UINT8"),
        ([1], "INT64", [2**70], "INT64"),
        ([1], "BOOL", [1], "hold whole numbers, and its datatype is BOOL"),
        ([1], "FP32", ["1"], "hold strings, and its datatype is FP32"),
        ([2], "FP32", [1.5, True], "hold booleans, and its datatype is FP32"),
        ([1], "FP32", [None], "hold null"),
        ([1], "FP32", {"a": 1}, "hold objects"),
        ([2], "FP32", [1, 1e39], r"do not fit into FP32, whose largest number is 3\.4028e\+38"),
        ([2], "FP16", [1, 70000], r"do not fit into FP16, whose largest number is 65504"),
        ([1], "BF16", [10**40], "do not fit into BF16"),
        ([1], "FP64", [10**400], "no regular array"),
        ([1], "FP32", nested(40, 1.5), "lists more than 32 deep"),
        ([1], "BYTES", nested(900, "a"), "lists more than 32 deep"),
        ([1], "BYTES", [1], "expected a list of strings"),
        ([1], "BYTES", "a", "expected a list of strings"),
    ],
)
def test_json_that_is_no_such_tensor(shape, datatype, data, message):
    with pytest.raises(InputError, match=message):
        datatypes.from_json("x", shape, datatype, data)


@pytest.mark.parametrize(
    ("shape", "datatype", "raw", "message"),
    [
        ([3], "FP32", b"\0" * 11, r"has 11 bytes; the shape \[3\] of FP32 takes 12"),
        ([1], "BYTES", b"\5\0\0\0abc", "which are not 1 elements of BYTES"),
        ([1], "BYTES", b"\1\0\0", "which are not 1 elements of BYTES"),
        ([1], "BYTES", b"\1\0\0\0ab", "which are not 1 elements of BYTES"),
        ([2], "BYTES", b"\1\0\0\0a", "which are not 2 elements of BYTES"),
        ([1], "BYTES", b"\1\0\0\0\xff", "element 0 is no UTF-8"),
        ([1], "BYTES", b"\xff\xff\xff\xff", "which are not 1 elements of BYTES"),
    ],
)
def test_bytes_that_are_no_such_tensor(shape, datatype, raw, message):
    with pytest.raises(InputError, match=message):
        datatypes.from_binary("x", shape, datatype, memoryview(raw))
