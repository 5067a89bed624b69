"""Positions followed through operations, by hand."""

from probegen.plan.positions import Link, Positions, Step, Weights, batch_and_channel, weight_axes

SELF = Step(
    ("x",),
    (("w", ("N", 5, 5)),),
    kept=(Link("x", "w", ((0, 0), (1, 1))), Link("x", "w", ((1, 2),))),
)


def fed(weights=None, sizes=("N", 5, 6)):
    positions = Positions(weights or {"w": Weights(1, (2,), (), 0)})
    positions.feed("x", sizes, 0, 2)
    return positions


def test_self_attention_reads_one_stream():
    positions = fed()
    positions.follow(SELF)
    (reading,) = positions.readings()
    assert reading.queries == reading.keys != ()
    assert not reading.queries_after
    assert not reading.problem


def test_what_is_not_fed_is_not_followed():
    positions = fed()
    positions.follow(Step(("constant",), (("w", ("N", 5, 5)),)))
    assert not positions.knows("w")
    assert "does not depend on the model's inputs" in positions.readings()[0].problem


def reshaped(there, back, between=(), source=("N", 5, 6)):
    """The readings of attention behind two reshapes, and whether they are of one stream."""
    positions = fed({"w": Weights(1, (2,), (), 0)}, source)
    positions.follow(Step(("x",), (("flat", there),), reshaped=("x", "flat")))
    for step in between:
        positions.follow(step)
    name = "out" if between else "flat"
    positions.follow(Step((name,), (("y", back),), reshaped=(name, "y")))
    positions.follow(
        Step(
            ("x", "y"),
            (("w", (back[0], back[1], source[1])),),
            kept=(Link("y", "w", ((0, 0), (1, 1))), Link("x", "w", ((1, 2),))),
        )
    )
    (reading,) = positions.readings()
    return reading.queries == reading.keys


PRODUCT = Step(("flat",), (("out", (None, 8)),), kept=(Link("flat", "out", ((0, 0),)),))


def test_samples_and_steps_joined_and_told_apart_again():
    assert reshaped((None, 6), ("N", 5, 8), [PRODUCT])
    assert reshaped((None, 6), (None, None, 8), [PRODUCT], (None, None, 6))


def test_a_size_that_an_operand_tells_counts_from_there_on():
    """A sum with as many rows as a table of positions has: the heads are told from the rows."""
    positions = fed({"w": Weights(1, (2,), (), 0)}, (None, "rows", 6))
    positions.follow(Step(("x",), (("t", (5, None, 6)),), kept=(_turned("x", "t"),)))
    positions.follow(Step(("t",), (("cut", (5, None, 3)),), reshaped=("t", "cut")))
    positions.follow(Step(("cut",), (("back", (None, 5, 3)),), kept=(_turned("cut", "back"),)))
    assert positions.axes_of("back")[1] == positions.axes_of("x")[1]


def test_positions_have_the_name_of_their_number_that_the_tensor_has():
    """A table that is cut to as many positions gives them another name; heads join the samples."""
    positions = fed({"w": Weights(1, (2,), (), 0)}, ("N", "time", 6))
    positions.follow(Step(("x",), (("sum", ("N", "unk__3", 6)),), kept=(_same("x", "sum"),)))
    positions.follow(Step(("sum",), (("cut", ("N", "unk__3", 2, 3)),), reshaped=("sum", "cut")))
    turned = Link("cut", "turned", ((0, 0), (1, 2), (2, 1), (3, 3)))
    positions.follow(Step(("cut",), (("turned", ("N", 2, "unk__3", 3)),), kept=(turned,)))
    joined = Step(("turned",), (("joined", (None, "unk__3", 3)),), reshaped=("turned", "joined"))
    positions.follow(joined)
    assert positions.axes_of("joined")[1] == positions.axes_of("x")[1]


def _same(before, after):
    return Link(before, after, ((0, 0), (1, 1), (2, 2)))


def _turned(before, after):
    return Link(before, after, ((0, 1), (1, 0), (2, 2)))


def test_an_axis_that_is_cut_and_joined_again_is_the_same():
    assert reshaped(("N", 2, 4, 6), ("N", 8, 6), (), ("N", 8, 6))


def test_other_positions_after_another_cut():
    assert not reshaped(("N", 4, 2, 6), ("N", 4, 12), (), ("N", 8, 6))


def test_the_second_layer_reads_what_the_first_has_written():
    weights = {"w": Weights(1, (2,), (), 0), "v": Weights(1, (2,), (), 0)}
    positions = fed(weights)
    positions.follow(SELF)
    sums = ((("w", 2), ("x", 1)),)
    kept = (Link("w", "y", ((0, 0), (1, 1))), Link("x", "y", ((2, 2),)))
    positions.follow(Step(("w", "x"), (("y", ("N", 5, 6)),), kept, summed=sums))
    kept = (Link("y", "v", ((0, 0), (1, 1))), Link("x", "v", ((1, 2),)))
    positions.follow(Step(("y", "x"), (("v", ("N", 5, 5)),), kept))
    first, second = positions.readings()
    assert (first.queries_after, first.keys_after) == (frozenset(), frozenset())
    assert (second.queries_after, second.keys_after) == ({0}, frozenset())
    assert second.queries == second.keys == first.keys


def test_values_of_other_positions_are_a_problem():
    positions = fed()
    positions.feed("z", ("N", 5, 6), 0, 2)
    positions.follow(SELF)
    positions.follow(Step(("w", "z"), (("y", ("N", 5, 6)),), summed=((("w", 2), ("z", 1)),)))
    assert "values of other positions" in positions.readings()[0].problem


def test_what_lies_side_by_side_is_one():
    """Ids and their segments: sums of both are of the positions of both."""
    positions = fed()
    positions.feed("z", ("N", 5, 6), 0, 2)
    every = ((0, 0), (1, 1), (2, 2))
    kept = (Link("x", "s", every), Link("z", "s", every))
    positions.follow(Step(("x", "z"), (("s", ("N", 5, 6)),), kept))
    kept = (Link("s", "w", ((0, 0), (1, 1))), Link("z", "w", ((1, 2),)))
    positions.follow(Step(("s", "z"), (("w", ("N", 5, 5)),), kept))
    (reading,) = positions.readings()
    assert reading.queries == reading.keys


def test_a_mask_that_is_repeated_adds_no_positions():
    positions = fed()
    positions.feed("m", ("N", 1, 5), 0, None)
    positions.follow(SELF)
    every = ((0, 0), (1, 1), (2, 2))
    kept = (Link("w", "masked", every), Link("m", "masked", every))
    positions.follow(Step(("w", "m"), (("masked", ("N", 5, 5)),), kept))
    (reading,) = positions.readings()
    assert reading.queries == reading.keys


def test_a_mask_of_which_nothing_is_known_takes_no_positions_away():
    """Scores of the six pixels of a map, and a mask that was computed from their sizes."""
    positions = Positions({"w": Weights(1, (2,), (), 0)})
    positions.feed("x", ("N", 2, 3, 4), 0, 3)
    positions.follow(Step(("x",), (("pixels", ("N", 6, 4)),), reshaped=("x", "pixels")))
    kept = (Link("pixels", "s", ((0, 0), (1, 1))), Link("pixels", "s", ((1, 2),)))
    positions.follow(Step(("pixels",), (("s", ("N", 6, 6)),), kept))
    for size, known in ((6, True), (5, False)):
        positions.follow(Step(("x",), (("mask", ("N", 1, size)),)))
        every = ((0, 0), (1, 1), (2, 2))
        kept = (Link("mask", "w", every), Link("s", "w", every))
        positions.follow(Step(("mask", "s"), (("w", ("N", 6, 6)),), kept))
        (reading,) = positions.readings()
        assert (reading.queries == reading.keys) is known


def test_heads_are_no_positions_and_frames_are():
    def readings(source, cut):
        positions = Positions({"w": Weights(2, (3,), (1,), 0)})
        positions.feed("x", source, 0, len(source) - 1)
        positions.follow(Step(("x",), (("h", cut),), reshaped=("x", "h")))
        time, heads = (1, 2) if len(source) == 3 else (2, 1)
        kept = (
            Link("h", "w", ((0, 0), (heads, 1), (time, 2))),
            Link("h", "w", ((time, 3),)),
        )
        sizes = ("N", cut[heads], cut[time], cut[time])
        positions.follow(Step(("h",), (("w", sizes),), kept))
        return positions.readings()[0]

    assert not readings(("N", 5, 6), ("N", 5, 3, 2)).problem
    assert "frames" in readings(("N", 3, 5, 6), ("N", 3, 5, 6)).problem


def test_where_weights_have_what():
    assert weight_axes(("batch", "time", "channel"), [1]) == Weights(2, (1,), (), 0)
    assert weight_axes(("batch", "axis_1", "time", "channel"), [3]) == Weights(2, (3,), (1,), 0)
    assert weight_axes(("batch", "time"), [1]).query is None
    assert batch_and_channel(("time", "batch", "channel")) == (1, 2)
    assert batch_and_channel(("time",)) == (None, None)
