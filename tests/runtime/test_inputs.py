"""What is fed to an artefact: every way that works, every fault and its message."""

import re

import numpy as np
import pytest

from probegen.artefact.manifest import InputSpec, Padding
from probegen.errors import InputError
from probegen.runtime.inputs import check_inputs

IMAGE = InputSpec("image", "float32", (None, 5, 7, 3), ("batch", "height", "width", "channel"))
TOKENS = InputSpec("tokens", "int32", (None, None), ("batch", "time"), vocabulary=11)
FLOAT_IDS = InputSpec("ids", "float32", (None, 4), ("batch", "time"), vocabulary=11, integer=True)
HALF = InputSpec("half", "float16", (None, 2), ("batch", "feature"))
BYTES = InputSpec("bytes", "uint8", (None, 2), ("batch", "feature"))
FLAGS = InputSpec("flags", "bool", (None, 2), ("batch", "feature"))

X = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
IDS = np.array([[0, 5, 10], [1, 2, 3]], np.int32)


def refused(x, specs, match, **options):
    with pytest.raises(InputError, match=match):
        check_inputs(x, specs, **options)


@pytest.mark.parametrize(
    "x", [X, {"image": X}, [X], (X,), X.tolist(), X.astype(">f4"), np.asfortranarray(X)]
)
def test_ways_to_give_one_input(x):
    fed = check_inputs(x, [IMAGE])["image"]
    assert fed.dtype == np.float32
    assert fed.flags.c_contiguous
    np.testing.assert_array_equal(fed, X)


@pytest.mark.parametrize("x", [{"tokens": IDS, "image": X}, [X, IDS], (X, IDS)])
def test_ways_to_give_two_inputs(x):
    fed = check_inputs(x, [IMAGE, TOKENS])
    assert list(fed) == ["image", "tokens"]
    np.testing.assert_array_equal(fed["tokens"], IDS)


def test_the_caller_may_reuse_its_buffer():
    buffer = X.copy()
    fed = check_inputs(buffer, [IMAGE])["image"]
    buffer[:] = 0
    np.testing.assert_array_equal(fed, X)


@pytest.mark.parametrize(
    ("array", "spec"),
    [
        (X.astype(np.float64), IMAGE),
        (np.full((1, 5, 7, 3), 200, np.uint8), IMAGE),
        (IDS.astype(np.int64), TOKENS),
        (IDS.astype(np.uint8), TOKENS),
        (np.array([[1, 2, 3, 10]]), FLOAT_IDS),
        (np.array([[1.0, 2.0, 3.0, 10.0]]), FLOAT_IDS),
        (np.array([[True, False]]), FLAGS),
    ],
)
def test_casts_that_keep_the_value(array, spec):
    fed = check_inputs(array, [spec])[spec.name]
    assert fed.dtype == np.dtype(spec.dtype)
    np.testing.assert_allclose(fed, array, rtol=1e-7)


def test_wrong_names():
    refused({"imgae": X}, [IMAGE], r"no input 'imgae'\. Did you mean 'image'\?")
    refused({"image": X}, [IMAGE, TOKENS], "the input 'tokens' is missing.*'image', 'tokens'")
    refused({"image": X, "target": 3}, [IMAGE], r"not an input but an argument: run\(x, target=")


def test_wrong_number():
    refused([X], [IMAGE, TOKENS], "list of 1, but the artefact has 2 inputs: 'image', 'tokens'")
    refused(X, [IMAGE, TOKENS], "got one array, but the artefact has 2 inputs: pass a dict")


def test_wrong_rank():
    expected = r"expected \[batch, height=5, width=7, channel=3\] \(rank 4\)"
    refused(X[0, 0], [IMAGE], r"'image' has the shape \(7, 3\) \(rank 2\), " + expected + r"\.$")
    refused(X[0], [IMAGE], expected + r"\. This looks like one sample without the batch axis: "
            r"pass x\[np\.newaxis\]")  # fmt: skip


def test_wrong_size():
    refused(X[:, :, :4], [IMAGE], r"the size 4 on the axis 'width' \(axis 2\), expected 7\. Its "
            r"shape is \(2, 5, 4, 3\), expected \[batch, height=5")  # fmt: skip
    refused(np.moveaxis(X, -1, 1), [IMAGE], r"channels seem to come first: pass np\.moveaxis")
    refused(np.zeros((2, 0), int), [TOKENS], "the size 0 on the axis 'time'.*expected at least 1")
    refused([X, IDS[:1]], [IMAGE, TOKENS], "same batch size, but 'image' has 2, 'tokens' has 1")


def test_fixed_batch():
    fixed = InputSpec("image", "float32", (2, 5, 7, 3), IMAGE.axes)
    assert check_inputs(X, [fixed])["image"].shape[0] == 2
    refused(X[:1], [fixed], r"size 1 on the axis 'batch' \(axis 0\), expected 2")


def test_empty_batch():
    refused(X[:0], [IMAGE], r"empty batch: its shape is \(0, 5, 7, 3\)")


def test_ragged():
    refused([[1, 2], [3]], [TOKENS], r"rows differ in length\. Pad them to \[batch, time\]")


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.full(X.shape, "a"), "string"),
        (np.full(X.shape, None), "object"),
        (X.astype(complex), "complex"),
        (np.full(X.shape, b"a"), "bytes"),
    ],
)
def test_no_numbers(array, kind):
    refused(array, [IMAGE], f"element type {kind}, expected float32. Convert it to numbers")


def test_floats_are_not_rounded():
    refused(IDS.astype(float), [TOKENS], r"is float64, expected int32: floats are not rounded "
            r"silently.*x\.astype\('int32'\)")  # fmt: skip
    refused(np.array([[1, 0]]), [FLAGS], "is int64, expected bool: pass x != 0")


def test_values_that_do_not_fit():
    wide = InputSpec("n", "int32", (None, 2), ("batch", "feature"))
    refused([[0, 2**31]], [wide], r"the value 2147483648 at \[0, 1\] does not fit into int32")
    refused([[0, -1], [256, 3]], [BYTES], r"the value -1 at \[0, 1\] does not fit into uint8.*"
            r"from 0 to 255 \(2 such values\)")  # fmt: skip
    refused([[1.0, 1e6]], [HALF], r"the value 1000000\.0 at \[0, 1\] does not fit into float16")
    assert np.isinf(check_inputs([[1.0, np.inf]], [HALF])["half"][0, 1])


def test_vocabulary():
    refused([[1, 2], [11, 3]], [TOKENS], r"value 11 at \[1, 0\] is out of the vocabulary: ids go "
            "from 0 to 10")  # fmt: skip
    refused([[1, -1]], [TOKENS], r"value -1 at \[0, 1\] is out of the vocabulary")
    refused([[1, 2, 3, 11.0]], [FLOAT_IDS], r"value 11\.0 at \[0, 3\] is out of the vocabulary")
    refused([[1, 2, 3.5, 4]], [FLOAT_IDS], r"value 3\.5 at \[0, 2\] is not a whole number")
    refused([[1, 2, np.nan, 4]], [FLOAT_IDS], r"value nan at \[0, 2\] is not a whole number")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_only_on_request(bad):
    x = X.copy()
    x[1, 2, 3, 1] = x[1, 4, 0, 0] = bad
    np.testing.assert_array_equal(check_inputs(x, [IMAGE])["image"], x)
    refused(x, [IMAGE], re.escape(f"the value {bad} at [1, 2, 3, 1] is not finite")
            + r".*\(2 such values\)", check_finite=True)  # fmt: skip


def test_type_that_numpy_lacks():
    spec = InputSpec("x", "bfloat17", (None, 2), ("batch", "feature"))
    refused([[1.0, 2.0]], [spec], "bfloat17, which numpy cannot hold")


TEXT = InputSpec("text", "string", (None, 2), ("batch", "feature"))


@pytest.mark.parametrize(
    "x", [[["a", "bc"]], np.array([["a", "bc"]], object), [[b"a", "bc"]], np.array([[b"a", b"bc"]])]
)
def test_ways_to_give_text(x):
    fed = check_inputs({"text": x}, [TEXT])["text"]
    assert fed.dtype.kind == "U"
    assert fed.tolist() == [["a", "bc"]]


@pytest.mark.parametrize(
    ("x", "says"),
    [
        ([["a", 3]], "input 'text' takes strings, got int 3"),
        (np.array([["a", None]], object), "takes strings, got NoneType None"),
        ([["a", "b\0"]], "ends in a zero byte"),
        ([["a", "b\ud800"]], "holds half of a surrogate pair"),
        ([["a"]], r"has the size 1 on the axis 'feature'"),
    ],
)
def test_what_is_no_text(x, says):
    refused({"text": np.array(x, object)}, [TEXT], says)


# -- sequences ---------------------------------------------------------------------------------

MASKED = InputSpec(
    "ids", "int32", (None, None), ("batch", "time"), 9, padding=Padding("mask", (0.0,)), longest=5
)
MASK = InputSpec("mask", "bool", (None, 1, None), ("batch", "axis_1", "feature"))


def test_a_sequence_longer_than_the_positions():
    assert check_inputs([np.ones((3, 5), int), np.ones((3, 1, 5), bool)], [MASKED, MASK])
    with pytest.raises(
        InputError, match=r"'ids' has 6 entries .* 'time'.* positions for 5 at most"
    ):
        check_inputs([np.ones((3, 6), int), np.ones((3, 1, 6), bool)], [MASKED, MASK])


def test_an_empty_sequence():
    with pytest.raises(InputError, match=r"size 0 on the axis 'time' .*expected at least 1"):
        check_inputs([np.ones((3, 0), int), np.ones((3, 1, 0), bool)], [MASKED, MASK])


def test_a_mask_of_other_positions():
    with pytest.raises(InputError, match=r"'mask' \(3, 1, 4\) says which positions of 'ids'"):
        check_inputs([np.ones((3, 5), int), np.ones((3, 1, 4), bool)], [MASKED, MASK])


def test_ids_below_and_beyond_the_vocabulary():
    for wrong in (-1, 9):
        with pytest.raises(InputError, match=f"the value {wrong} .*ids go from 0 to 8"):
            check_inputs([np.full((3, 5), wrong), np.ones((3, 1, 5), bool)], [MASKED, MASK])
