"""Tensors whose positions stand in the opposite order, of both kinds of sources."""

import keras
import onnx.parser
import pytest
from keras import layers

import probegen as pg
from probegen.errors import InstrumentError
from probegen.plan.directions import turned_round
from probegen.plan.making import make_plan
from probegen.sources import open_source


def test_turning_twice_is_not_turning():
    steps = [
        (["x"], ["a"], False),
        (["a"], ["turned"], True),
        (["turned", "weight"], ["made"], False),
        (["made"], ["back"], True),
        (["back", "a"], ["joined"], False),
        (["made", "a"], ["mixed"], False),
        (["weight"], ["constant"], True),
        (["made"], [], False),  # a vector, say the last step
        (["vector", "a"], ["gated"], False),
    ]
    assert turned_round(["x"], steps) == {"turned", "made", "mixed"}


@pytest.fixture(scope="module")
def both_ways():
    """A recurrent layer in both directions, one that runs backwards alone, and an image."""
    words, image = keras.Input((7, 3), name="words"), keras.Input((6, 5, 3), name="image")
    gru = layers.GRU(2, return_sequences=True, name="gru")
    steps = layers.Bidirectional(gru, name="both")(words)
    unrolled = layers.GRU(2, return_sequences=True, unroll=True, name="gru")
    steps = layers.Bidirectional(unrolled, name="unrolled")(steps)
    last = layers.GRU(3, return_sequences=True, go_backwards=True, name="back")(steps)
    behind = layers.Dense(2, name="behind")(last)
    plain = layers.Conv2D(2, 2, name="plain")(image[..., ::-1])
    flipped = layers.Conv2D(2, 2, name="flipped")(keras.ops.flip(plain, 2))
    again = layers.Conv2D(2, 2, name="again")(flipped[:, :, ::-1])
    pooled = [layers.GlobalAveragePooling1D()(behind), layers.GlobalAveragePooling2D()(again)]
    gate = layers.Dense(2)(layers.GRU(2, go_backwards=True)(words))[:, None, None]
    gated = layers.Multiply(name="gated")([again, gate])
    pooled.append(layers.GlobalMaxPooling2D()(gated))
    model = keras.Model([words, image], layers.Dense(2)(layers.Concatenate()(pooled)))
    return open_source(model).view


@pytest.mark.parametrize(
    "name", ["both/backward_gru", "unrolled/backward_gru", "back", "behind", "flipped"]
)
def test_maps_that_lie_the_other_way_round_are_laid_over_no_input(both_ways, name):
    """They were, and the artefacts certified: what a picture shows at the end was at the start."""
    for probe, instead in (
        (pg.GradCAM(name, upsample=True, target=0), "leave upsample out"),
        (pg.ScoreCAM(name, target=0), "ReciproCAM"),
    ):
        with pytest.raises(InstrumentError, match=f"in the opposite order: .*{instead}"):
            make_plan(both_ways, [probe])
    (spec,) = make_plan(both_ways, [pg.GradCAM(name, target=0)]).manifest.explanations
    assert spec.input is None


@pytest.mark.parametrize(
    "name", ["both/forward_gru", "both", "unrolled", "plain", "again", "gated"]
)
def test_what_is_turned_back_and_channels_that_change_places_are_laid_over_it(both_ways, name):
    probes = [pg.GradCAM(name, upsample=True, target=0), pg.ScoreCAM(name, target=0)]
    enlarged, _ = make_plan(both_ways, probes).manifest.explanations
    assert enlarged.detail["upsampled_to"] == (
        "image" if name in ("plain", "again", "gated") else "words"
    )
    assert (enlarged.input is None) == (name == "gated")  # which reads both


FLIPPED = """
<ir_version: 8, opset_import: ["" : 17]>
flipped (float[batch, 3, 7, 6] x) => (float[batch, 2] y)
<int64[1] first = {{-1}}, int64[1] end = {{-9223372036854775807}}, int64[1] along = {{{axis}}},
 int64[1] back = {{-1}}, float[2, 3, 2, 2] kernel = {{{kernel}}}>
{{
    turned = Slice (x, first, end, along, back)
    maps = Conv (turned, kernel)
    y = ReduceMean <keepdims = 0, axes = [2, 3]> (maps)
}}
"""


@pytest.mark.parametrize("axis", [1, 3])
def test_a_slice_backwards_turns_positions_and_no_channels(axis):
    text = FLIPPED.format(axis=axis, kernel=", ".join(["0.5"] * 24))
    view = open_source(onnx.parser.parse_model(text)).view
    probe = pg.GradCAM("maps", upsample=True, target=0)
    if axis == 1:
        assert make_plan(view, [probe]).manifest.explanations[0].input == "x"
    else:
        with pytest.raises(InstrumentError, match="in the opposite order"):
            make_plan(view, [probe])


#: As exporters write a dense layer: steps joined with the batch.
DENSE = """
<ir_version: 8, opset_import: ["" : 17]>
dense (float[batch, 5, 3] x) => (float[batch, 2] y)
<int64[1] first = {{-1}}, int64[1] end = {{-9223372036854775807}}, int64[1] along = {{{axis}}},
 int64[1] back = {{-1}}, int64[2] joined = {{-1, 3}}, int64[3] apart = {{-1, 5, 2}},
 float[3, 2] matrix = {{0.5, -1.0, 2.0, 0.25, -0.5, 1.5}}, float[2] bias = {{0.5, -0.5}}>
{{
    turned = Slice (x, first, end, along, back)
    rows = Reshape (turned, joined)
    product = MatMul (rows, matrix)
    added = Add (product, bias)
    each = Relu (added)
    maps = Reshape (each, apart)
    y = ReduceMean <keepdims = 0, axes = [1]> (maps)
}}
"""
#: Ids have two axes, of which one is time.
IDS = """
<ir_version: 8, opset_import: ["" : 17]>
words (int64[batch, 5] x) => (float[batch, 2] y)
<int64[1] first = {-1}, int64[1] end = {-9223372036854775807}, int64[1] along = {1},
 int64[1] back = {-1}, float[3, 2] table = {0.5, -1.0, 2.0, 0.25, -0.5, 1.5}>
{
    turned = Slice (x, first, end, along, back)
    looked_up = Gather (table, turned)
    maps = Relu (looked_up)
    y = ReduceMean <keepdims = 0, axes = [1]> (maps)
}
"""
#: What a reversal leaves behind in a vector has no order.
VECTOR = """
<ir_version: 8, opset_import: ["" : 17]>
vector (float[batch, 5, 3] x) => (float[batch, 2] y)
<int64[1] first = {-1}, int64[1] end = {-9223372036854775807}, int64[1] along = {1},
 int64[1] back = {-1}, int64[2] flat = {-1, 15}, int64[3] apart = {-1, 5, 3},
 float[2, 3, 1] kernel = {0.5, -1.0, 2.0, 0.25, -0.5, 1.5}>
{
    turned = Slice (x, first, end, along, back)
    vector = Reshape (turned, flat)
    drawn = Reshape (vector, apart)
    steps = Transpose <perm = [0, 2, 1]> (drawn)
    maps = Conv (steps, kernel)
    y = ReduceMean <keepdims = 0, axes = [2]> (maps)
}
"""


@pytest.mark.parametrize("text", [DENSE.format(axis=1), IDS])
def test_time_joined_with_the_batch_and_ids_are_followed(text):
    view = open_source(onnx.parser.parse_model(text)).view
    with pytest.raises(InstrumentError, match="in the opposite order"):
        make_plan(view, [pg.GradCAM("maps", upsample=True, target=0)])


@pytest.mark.parametrize("text", [DENSE.format(axis=2), VECTOR])
def test_channels_that_change_places_and_vectors_turn_nothing(text):
    view = open_source(onnx.parser.parse_model(text)).view
    probe = pg.GradCAM("maps", upsample=True, target=0)
    assert make_plan(view, [probe]).manifest.explanations[0].detail["upsampled_to"] == "x"
