"""What random models take: inputs of each kind, and what makes floating numbers of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from fuzz.drawing import Draw

Shape = list[int | None]
#: Ids that tokens may have.
VOCABULARY = 11


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        shape: draws the sizes without the batch; those of positions are open if the flag says so.
        dtype: its element type; None for the policy's own.
        behind: code over the input `{x}` that makes floating numbers of it, one of which is taken;
            empty where it holds such. `{n}` is a small number.
    """

    shape: Callable[[Draw, bool], Shape]
    dtype: str | None = None
    behind: Sequence[str] = ()


def _vector(d: Draw, is_open: bool) -> Shape:
    del is_open
    return [d.whole(3, 8)]


def _steps(d: Draw, is_open: bool) -> Shape:
    return [None if is_open else d.whole(4, 9)]


def _series(d: Draw, is_open: bool) -> Shape:
    return [*_steps(d, is_open), d.whole(2, 5)]


def _image(d: Draw, is_open: bool) -> Shape:
    sides: Shape = [None, None] if is_open else [d.whole(5, 9), d.whole(5, 8)]
    return [*sides, d.whole(1, 4)]


def _picture(d: Draw, is_open: bool) -> Shape:
    return [*_image(d, is_open)[:2], 3]


def _volume(d: Draw, is_open: bool) -> Shape:
    del is_open
    return [d.whole(3, 5), d.whole(4, 6), d.whole(3, 5), d.whole(1, 3)]


def _waves(d: Draw, is_open: bool) -> Shape:
    del is_open
    return [d.whole(12, 20)]


def _film(d: Draw, is_open: bool) -> Shape:
    return [None if is_open else d.whole(2, 4), d.whole(4, 5), d.whole(3, 5), d.whole(1, 3)]


_LOOK_UPS = (
    f"layers.Embedding({VOCABULARY}, {{n}}, mask_zero=True)({{x}})",
    f"layers.Embedding({VOCABULARY}, {{n}}, mask_zero=True)({{x}})",
    f"layers.Embedding({VOCABULARY}, {{n}})({{x}})",
    f"layers.ReversibleEmbedding({VOCABULARY}, {{n}}, mask_zero=True)({{x}})",
    f"layers.Embedding({VOCABULARY}, {{n}})(ops.maximum({{x}} - 1, 0))",
    f"layers.Embedding({VOCABULARY}, {{n}})({{x}}) + layers.Embedding(3, {{n}})({{x}} % 3)",
    f"ops.one_hot({{x}}, {VOCABULARY})",
    f"layers.CategoryEncoding({VOCABULARY}, output_mode='one_hot')(ops.expand_dims({{x}}, -1))",
)
_COUNTS = (
    f"layers.CategoryEncoding({VOCABULARY}, output_mode='multi_hot')({{x}})",
    f"layers.CategoryEncoding({VOCABULARY}, output_mode='count')({{x}})",
    f"layers.Embedding({VOCABULARY}, {{n}})(layers.Hashing({VOCABULARY})({{x}}))",
    f"layers.Embedding({VOCABULARY + 1}, {{n}})(layers.IntegerLookup(vocabulary="
    f"list(range(1, {VOCABULARY})))({{x}}))",
    f"ops.cast({{x}}, keras.config.floatx()) / {VOCABULARY}",
)

_OF_FLOATS = f"layers.Embedding({VOCABULARY}, {{n}})(ops.clip(ops.abs({{x}}), 0, {VOCABULARY - 1}))"

#: Kind -> how often it is drawn, and what it is.
KINDS: dict[str, tuple[int, Kind]] = {
    "vector": (2, Kind(_vector)),
    "series": (5, Kind(_series)),
    "image": (5, Kind(_image)),
    "volume": (2, Kind(_volume)),
    "film": (1, Kind(_film)),
    "waves": (1, Kind(_waves)),
    "tokens": (5, Kind(_steps, "int32", _LOOK_UPS)),
    "categories": (1, Kind(_vector, "int32", _COUNTS)),
    "long tokens": (1, Kind(_steps, "int64", _LOOK_UPS[:3])),
    "bytes": (
        2,
        Kind(
            _picture,
            "uint8",
            (
                "layers.Rescaling(1 / 127.5, -1.0)({x})",
                "layers.Normalization(mean=[100.0, 120.0, 90.0], variance=[900.0] * 3)({x})",
                "layers.Resizing(6, 5)({x})",
                "layers.Rescaling(1 / 255)(layers.Resizing(5, 7)({x}))",
                "ops.cast({x}, keras.config.floatx()) / 255.0",
            ),
        ),
    ),
    "ids as floats": (1, Kind(_steps, "float32", (_OF_FLOATS,))),
    "buckets": (
        1,
        Kind(
            _vector,
            "float32",
            (
                "layers.Embedding(4, {n})(layers.Discretization([-0.5, 0.1, 0.8])({x}))"
                " + {x}[..., None]",
            ),
        ),
    ),
    "half": (1, Kind(_series, "float16", ("ops.cast({x}, keras.config.floatx())",))),
    "wide": (1, Kind(_series, "float64", ("ops.cast({x}, keras.config.floatx())",))),
}


def _text(d: Draw, is_open: bool) -> Shape:
    del d, is_open
    return []


def _words(d: Draw, is_open: bool) -> Shape:
    del is_open
    return [d.whole(3, 6)]


#: Words that texts are made of; vocabularies lack the last ones.
WORDS = ("the", "cat", "a", "dog", "runs", "and", "sleeps", "today", "seldom")
_KNOWN = list(WORDS[:6])
_CUT = f"layers.TextVectorization(vocabulary={_KNOWN}, output_sequence_length=5)({{x}})"
_LOOKED_UP = f"layers.StringLookup(vocabulary={_KNOWN})({{x}})"
#: Kinds of strings: texts, and a word at each place.
STRINGS = (
    Kind(
        _text,
        "string",
        (
            f"layers.Embedding(8, {{n}}, mask_zero=True)({_CUT})",
            f"layers.Embedding(8, {{n}})({_CUT})",
            f"layers.TextVectorization(vocabulary={_KNOWN}, output_mode='multi_hot')({{x}})",
        ),
    ),
    Kind(
        _words,
        "string",
        (
            f"layers.Embedding(7, {{n}})({_LOOKED_UP})",
            f"layers.Embedding(8, {{n}}, mask_zero=True)(layers.StringLookup(vocabulary={_KNOWN}"
            ", mask_token='')({x}))",
            f"layers.StringLookup(vocabulary={_KNOWN}, output_mode='multi_hot')({{x}})",
            "layers.Embedding(5, {n})(layers.Hashing(5)({x}))",
        ),
    ),
)


def kind_of(d: Draw) -> Kind:
    """Draws a kind."""
    return d.one([kind for weight, kind in KINDS.values() for _ in range(weight)])


def behind(d: Draw, kind: Kind, name: str) -> str:
    """Draws what makes floating numbers of an input whose kind has such."""
    return d.one(kind.behind).replace("{x}", name).replace("{n}", str(d.whole(2, 6)))
