"""What axes are called."""

import pytest

from probegen.plan import axes


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((), ()),
        ((None,), ("batch",)),
        ((None, None), ("batch", "channel")),
        ((None, None, None), ("batch", "time", "channel")),
        ((None,) * 4, ("batch", "height", "width", "channel")),
        ((None,) * 5, ("batch", "depth", "height", "width", "channel")),
        ((None,) * 6, ("batch", "axis_1", "axis_2", "axis_3", "axis_4", "channel")),
        ((None, "channel"), ("batch", "channel")),
        ((None, "channel", None, None), ("batch", "channel", "height", "width")),
        ((None, "channel", None, None, None), ("batch", "channel", "depth", "height", "width")),
        ((None, "time", None, None), ("batch", "time", "axis_2", "channel")),
        ((None, None, "time"), ("batch", "axis_1", "time")),
        ((None, None, "head", None), ("batch", "axis_1", "head", "channel")),
    ],
)
def test_axes_without_a_name_get_the_usual_one(told, expected):
    assert axes.complete(told) == expected


@pytest.mark.parametrize(
    ("names", "shape", "expected"),
    [
        (("batch", "class"), (None, 3), (("batch", "class"), (None, 3), (0, 1))),
        (
            ("time", "batch", "class"),
            (5, None, 3),
            (("batch", "time", "class"), (None, 5, 3), (1, 0, 2)),
        ),
        (
            ("class", "time", "batch"),
            (3, 5, None),
            (("batch", "class", "time"), (None, 3, 5), (2, 0, 1)),
        ),
        (("time", "class"), (5, 3), (("batch", "time", "class"), (1, 5, 3), (0, 1, 2))),
        ((), (), (("batch",), (1,), (0,))),
    ],
)
def test_the_batch_comes_first(names, shape, expected):
    assert axes.with_batch_first(names, shape) == expected


@pytest.mark.parametrize(
    ("names", "tokens", "expected"),
    [
        (("batch", "channel"), False, ("batch", "feature")),
        (("batch", "time", "channel"), False, ("batch", "time", "feature")),
        (("batch", "height", "width", "channel"), False, ("batch", "height", "width", "channel")),
        (("batch", "channel"), True, ("batch", "time")),
        (("batch", "time", "channel"), True, ("batch", "time", "axis_2")),
        (("time", "batch"), True, ("time", "batch")),
        (("channel", "batch", "time"), True, ("time", "batch", "axis_2")),
        (("batch",), True, ("batch",)),
    ],
)
def test_axes_of_inputs(names, tokens, expected):
    assert axes.input_axes(names, tokens) == expected


def test_axes_of_what_is_looked_up():
    assert axes.look_up_axes(2) == ("batch", "channel")
    assert axes.look_up_axes(3) == ("batch", "time", "channel")
    assert axes.look_up_axes(4) == ("batch", "time", "axis_2", "channel")


def test_channels_are_called_after_what_the_tensor_is():
    vector, sequence = ("batch", "channel"), ("batch", "time", "channel")
    first = ("batch", "channel", "height", "width")
    assert axes.activation_axes(vector) == ("batch", "unit")
    assert axes.activation_axes(sequence) == sequence
    assert axes.gradient_axes(vector, embedding=False) == ("batch", "unit")
    assert axes.gradient_axes(vector, embedding=True) == ("batch", "embedding")
    assert axes.gradient_axes(sequence, embedding=True) == ("batch", "time", "embedding")
    assert axes.prediction_axes(vector, classes=True) == ("batch", "class")
    assert axes.prediction_axes(vector, classes=False) == ("batch", "unit")
    assert axes.prediction_axes(sequence, classes=True) == ("batch", "step", "class")
    assert axes.prediction_axes(("batch", "time"), classes=True) == ("batch", "time")
    maps = ("batch", "class", "height", "width")
    assert axes.prediction_axes(first, classes=True) == maps


@pytest.mark.parametrize(
    ("rank", "keys", "expected"),
    [
        (2, (), ("batch", "key")),
        (3, (), ("batch", "query", "key")),
        (3, (1,), ("batch", "key", "query")),
        (4, (), ("batch", "head", "query", "key")),
        (4, (2,), ("batch", "head", "key", "query")),
        (5, (4,), ("batch", "axis_1", "head", "query", "key")),
        (6, (5,), ("batch", "axis_1", "axis_2", "head", "query", "key")),
        (5, (4, 3), ("batch", "query_0", "query_1", "key_0", "key_1")),
        (6, (4, 5), ("batch", "head", "query_0", "query_1", "key_0", "key_1")),
    ],
)
def test_axes_of_attention(rank, keys, expected):
    given = ("batch", *(f"axis_{i}" for i in range(1, rank)))
    assert axes.attention_axes(given, keys) == expected


def test_heads_in_groups_are_heads():
    given = ("batch", *axes.GROUPED_HEADS, "axis_3", "axis_4")
    found = axes.attention_axes(given, (4,))
    assert found == ("batch", "head_0", "head_1", "query", "key")


def test_attention_within_windows_keeps_these_and_the_batch_where_they_are():
    given = ("axis_0", "batch", "window", "axis_3", "axis_4")
    expected = ("head", "batch", "window", "query", "key")
    assert axes.attention_axes(given) == axes.attention_axes(given, (4,)) == expected
    rest = ("head", "batch", "window", "key", "query")
    assert axes.attention_axes(given, (3,)) == rest
