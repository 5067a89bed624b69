"""The selector grammar, on plain probe points."""

import pytest

from probegen.errors import SelectionError
from probegen.plan.points import ProbePoint
from probegen.plan.selectors import select, select_one


class Layer:
    pass


FIRST, SHARED = Layer(), Layer()


def point(path, cls, role, index=0, calls=1, layer=None):
    return ProbePoint(path, cls, (role,), ((None, 3),), ("float32",), index, calls, layer=layer)


POINTS = [
    point("stem", "Conv2D", "convolution", layer=FIRST),
    point("block/conv1_out", "Conv2D", "convolution"),
    point("block/mha", "MultiHeadAttention", "attention"),
    point("shared", "Dense", "dense", 0, 2, SHARED),
    point("shared", "Dense", "dense", 1, 2, SHARED),
]
LAYERS = [FIRST, Layer(), SHARED]


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("stem", ["stem"]),
        ("*", ["stem", "block/conv1_out", "block/mha", "shared#0", "shared#1"]),
        ("block/conv*_out", ["block/conv1_out"]),
        ("*conv1*", ["block/conv1_out"]),
        ("/block/*", ["block/conv1_out", "block/mha"]),
        ("shared", ["shared#0", "shared#1"]),
        ("shared#1", ["shared#1"]),
        ("re:^block/.*a$", ["block/mha"]),
        ("type:Conv2D", ["stem", "block/conv1_out"]),
        ("type:*Attention", ["block/mha"]),
        ("role:attention", ["block/mha"]),
        (-1, ["shared#0", "shared#1"]),
        (0, ["stem"]),
        (SHARED, ["shared#0", "shared#1"]),
        (lambda p: p.path.startswith("block"), ["block/conv1_out", "block/mha"]),
        (["shared#0", "stem"], ["stem", "shared#0"]),
    ],
)
def test_grammar(selector, names):
    assert [p.name for p in select(POINTS, selector, LAYERS)] == names


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("sten", "Did you mean 'stem'"),
        ("mha", "'block/mha'"),
        ("shared#2", "'shared' has the calls 'shared#0', 'shared#1'"),
        ("type:Conv3D", "'Conv2D'"),
        ("role:atention", "Did you mean 'attention'"),
        ("role:pooling", "no layer matches"),
        ("re:(", "no regular expression"),
        (7, "out of range; the model has 3 layers"),
        ([], "empty"),
        (1.5, "no selector"),
    ],
)
def test_refusals_name_what_is_near(selector, says):
    with pytest.raises(SelectionError, match=says):
        select(POINTS, selector, LAYERS)


def test_one_layer_is_wanted():
    with pytest.raises(SelectionError, match=r"takes one layer.*'shared#0', 'shared#1'"):
        select_one(POINTS, "shared", LAYERS, "GradCAM")
    assert select_one(POINTS, "shared#1", LAYERS, "GradCAM").call_index == 1
