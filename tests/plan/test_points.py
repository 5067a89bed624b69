"""Probe points as data and as a table."""

from probegen.plan.points import ProbePoint, ProbePoints

CONV = ProbePoint(
    "block/conv",
    "Conv2D",
    ("output", "convolution"),
    ((None, 4, 5, 3),),
    ("float16",),
    call_index=1,
    calls=2,
    probes=("activation", "gradient"),
    reason="not its weights",
    layer=object(),
)
PAIR = ProbePoint("lstm", "LSTM", ("recurrent",), ((None, 3), (None, 7)), ("float32", "int32"))
NOTHING = ProbePoint("nothing", "Layer", ("other",), (), ())
POINTS = ProbePoints([CONV, PAIR, NOTHING], "net")


def test_what_a_point_says():
    assert (CONV.role, CONV.name, CONV.dtype) == ("output", "block/conv#1", "float16")
    assert CONV.shape == (None, 4, 5, 3)
    assert (PAIR.name, PAIR.shape, PAIR.dtype) == ("lstm", ((None, 3), (None, 7)), "float32")
    assert (NOTHING.dtype, NOTHING.shape) == ("", ())


def test_points_are_a_sequence():
    assert len(POINTS) == 3
    assert POINTS[1] is PAIR
    assert list(POINTS[1:]) == [PAIR, NOTHING]
    assert POINTS[1:].model_name == "net"


def test_the_table():
    first, second, _ = POINTS.rows()
    assert first[0] == "block/conv"
    assert first[2] == "output/convolution"
    assert first[4:] == ("1", "activation, gradient (not its weights)")
    assert second[4:] == ("", "")
    lines = str(POINTS).splitlines()
    assert lines[0] == "net: 3 probe points"
    assert repr(POINTS) == str(POINTS)


def test_plain_values():
    plain = POINTS.to_json()[0]
    assert plain["name"] == "block/conv#1"
    assert plain["role"] == "output"
    assert plain["shapes"] == ((None, 4, 5, 3),)
    assert "layer" not in plain
