"""Which axes hold channels and which hold positions."""

import pytest

from probegen.methods.axes import CHANNELS, channel_axis, position_axes, without


@pytest.mark.parametrize("name", CHANNELS)
def test_every_name_of_channels(name):
    assert channel_axis(("batch", "time", name)) == 2
    assert channel_axis(("batch", name, "time")) == 1


@pytest.mark.parametrize(
    ("axes", "channel", "positions"),
    [
        (("batch", "height", "width", "channel"), 3, (1, 2)),
        (("batch", "channel", "height", "width"), 1, (2, 3)),
        (("time", "batch", "unit"), 2, (0,)),
        (("batch", "height", "width"), None, (1, 2)),
        (("batch", "class"), 1, ()),
        (("batch",), None, ()),
        ((), None, ()),
        (("batch", "unit", "class"), 1, (2,)),
    ],
)
def test_channels_and_positions(axes, channel, positions):
    assert channel_axis(axes) == channel
    assert position_axes(axes) == positions


def test_axes_that_are_left():
    axes = ("batch", "time", "unit")
    assert without(axes, 1) == ("batch", "unit")
    assert without(axes, 0, 2) == ("time",)
    assert without(axes, None) == axes
    assert without(axes) == axes
