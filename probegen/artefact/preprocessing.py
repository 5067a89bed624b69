"""What stands between the picture that a server has and the tensor that a model takes.

`ImageInput` is what a user says of it; `Preprocessing` is that, resolved against one input of a
model, as the manifest stores it. The graph computes it (`graph/preprocessing.py`), and the
verification computes it anew (`sources/preprocessed_by_numpy.py`); neither is here.

The numbers are those of `tf.image.resize` on floating pictures, which is what
`keras.ops.image.resize`, `keras.layers.Resizing` and `image_dataset_from_directory` call on
TensorFlow: half-pixel centres; bicubic with Keys' kernel (a = -0.5), its offsets in steps of 1/1024
where it does not antialias. Nothing is rounded to bytes between.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from probegen.errors import SpecError, nearest
from probegen.text import amount

NEAREST, BILINEAR, BICUBIC = "nearest", "bilinear", "bicubic"
RESIZES = (NEAREST, BILINEAR, BICUBIC)
STRETCH, CROP, PAD = "stretch", "crop", "pad"
FITS = (STRETCH, CROP, PAD)
#: Sizes of what arrives that are words: any, or the one that the model takes.
ANY, OF_MODEL = "any", "model"
#: Sizes that attributions come in.
OF_INPUT = "input"
SIZES_OF_ATTRIBUTIONS = (OF_MODEL, OF_INPUT)
#: Key in the `detail` of an output that has been brought to the size of the picture that arrived.
PLACED_DETAIL = "over_input"
#: Element types that pictures arrive in.
DTYPES = ("uint8", "float32")
#: The axes of what arrives, by the name of the layout.
LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "NHWC": ("batch", "height", "width", "channel"),
    "NCHW": ("batch", "channel", "height", "width"),
}


@dataclasses.dataclass(frozen=True)
class _Preset:
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse: bool = False


#: The modes of `keras.applications.imagenet_utils.preprocess_input`. Values of "caffe" are in the
#: order blue, green, red, which the pictures are turned to first.
PRESETS: Mapping[str, _Preset] = {
    "tf": _Preset(1 / 127.5, (1.0,), (1.0,)),
    "caffe": _Preset(1.0, (103.939, 116.779, 123.68), (1.0,), reverse=True),
    "torch": _Preset(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

#: A number for all channels, or one for each in the order that the model takes them in.
PerChannel = float | Sequence[float]


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """What arrives in the place of a model's image, and how it becomes what the model takes.

    The model gets `(resized * scale - mean) / std`, in float32, with the channels in its order.

    Attributes:
        dtype: element type of what arrives: `"uint8"`, or `"float32"` with any values.
        size: height and width of what arrives: `"any"` (all pictures of a request have the same),
            a pair, or `"model"`: what the model takes, so that nothing is resized.
        resize: `"nearest"`, `"bilinear"` or `"bicubic"`, as `tf.image.resize` computes them.
        antialias: where a picture is made smaller, weigh all pixels beneath one of the model's, as
            `tf.image.resize(antialias=True)`. Pillow's filters are the same up to its rounding
            to bytes, which is left out here.
        fit: what becomes of another aspect: `"stretch"`; `"crop"` takes the largest middle part of
            the model's aspect; `"pad"` adds borders. As `keras.ops.image.resize` does with
            `crop_to_aspect_ratio` and `pad_to_aspect_ratio`.
        fill: what borders hold, in the units of what arrives.
        preset: `"tf"`, `"caffe"` or `"torch"`, the modes of Keras' `preprocess_input`, in the place
            of scale, mean and std; what arrives is red, green, blue.
        scale, mean, std: a number, or one for each channel in the model's order.
        layout: `"NHWC"` or `"NCHW"`, of what arrives; the model's own is known.
        channels: how many arrive: by default the model's; 1 for grey pictures, which a model of
            three takes three times; 4 for a model of three, which leaves the last (alpha) out.
        reverse_channels: turn the channels round: red, green, blue arrive and the model takes
            blue, green, red, or the other way round.
        to: height and width that the model gets, where its own are open.
        attributions: the size that attributions of it come in: `"model"`, that of what the model
            takes, or `"input"`: these are brought to the picture's size, linearly and with
            half-pixel centres, and lie over the part of it that the model sees. That is for
            looking at them: their numbers stay those of the model's pixels, and are no derivatives
            by the picture's.

    Raises:
        SpecError: a value is none of these; says which are.
    """

    dtype: str = "uint8"
    size: str | Sequence[int] = ANY
    resize: str = BILINEAR
    antialias: bool = False
    fit: str = STRETCH
    fill: float = 0.0
    preset: str | None = None
    scale: PerChannel | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    layout: str = "NHWC"
    channels: int | None = None
    reverse_channels: bool = False
    to: Sequence[int] | None = None
    attributions: str = OF_MODEL

    def __post_init__(self) -> None:
        _check_one_of("dtype", self.dtype, DTYPES)
        _check_one_of("resize", self.resize, RESIZES)
        _check_one_of("fit", self.fit, FITS)
        _check_one_of("attributions", self.attributions, SIZES_OF_ATTRIBUTIONS)
        _check_one_of("layout", self.layout, tuple(LAYOUTS))
        if not (isinstance(self.size, str) and self.size in (ANY, OF_MODEL)):
            _check_pair("size", self.size, f"{ANY!r}, {OF_MODEL!r} or ")
        if self.to is not None:
            _check_pair("to", self.to, "")
        for name in ("antialias", "reverse_channels"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, getattr(self, name), "True or False")
        if self.antialias and self.resize == NEAREST:
            raise SpecError(
                "pg.ImageInput: resize='nearest' takes single pixels, so antialias=True has no "
                "meaning; use resize='bilinear' or 'bicubic', or leave antialias out."
            )
        if not _is_number(self.fill):
            raise _wrong("fill", self.fill, "a number")
        if self.channels is not None and (type(self.channels) is not int or self.channels < 1):
            raise _wrong("channels", self.channels, "a whole number of at least 1")
        for name in ("scale", "mean", "std"):
            _check_per_channel(name, getattr(self, name))
        if self.preset is not None:
            _check_one_of("preset", self.preset, tuple(PRESETS))
            given = [n for n in ("scale", "mean", "std") if getattr(self, n) is not None]
            if given:
                raise SpecError(
                    f"pg.ImageInput: preset={self.preset!r} says scale, mean and std; leave "
                    f"{' and '.join(given)} out, or the preset."
                )


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What becomes of an image on its way to the model, as the manifest stores it.

    Attributes:
        dtype: element type that the model takes.
        shape: what the model takes, the batch among it; None where a size is open.
        axes: a name for each of these dimensions.
        resize: how it is resized, None where it is not.
        antialias: see `ImageInput`.
        fit: see `ImageInput`.
        fill: see `ImageInput`.
        scale, mean, std: a number, or one for each channel in the model's order.
        channels: for each channel of the model, which one of what arrives.
        attributions: see `ImageInput`.
    """

    dtype: str
    shape: tuple[int | None, ...]
    axes: tuple[str, ...]
    resize: str | None
    antialias: bool
    fit: str
    fill: float
    scale: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: tuple[int, ...]
    attributions: str = OF_MODEL

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width that the model takes."""
        return self.shape[self.axes.index("height")], self.shape[self.axes.index("width")]

    def window(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Returns which part of a picture the model sees: first row, rows; first column, columns.

        With borders the first is negative, and the part is larger than the picture.
        """
        rows, columns = self.size
        if self.resize is None or self.fit == STRETCH or rows is None or columns is None:
            return (0, height), (0, width)
        high = _in_float32(width * rows, columns)
        wide = _in_float32(height * columns, rows)
        if self.fit == CROP:
            high, wide = max(1, min(height, high)), max(1, min(width, wide))
            return ((height - high) // 2, high), ((width - wide) // 2, wide)
        # Keras adds as many lines behind as in front, and leaves out one that is over.
        top, left = max(0, high - height) // 2, max(0, wide - width) // 2
        return (-top, height + 2 * top), (-left, width + 2 * left)


def _in_float32(product: int, by: int) -> int:
    """Returns a quotient cut to a whole number, computed in float32 as Keras does."""
    return int(np.float32(product) / np.float32(by))


def resolved(
    asked: ImageInput,
    name: str,
    dtype: str,
    shape: Sequence[int | None],
    axes: Sequence[str],
) -> tuple[Preprocessing, tuple[int | None, ...], tuple[str, ...]]:
    """Returns what becomes of what arrives at an input, and the shape and axes of what arrives.

    Args:
        asked: what the user says.
        name: of the input.
        dtype: of the input.
        shape: of the input, the batch among it.
        axes: a name for each of its dimensions.

    Raises:
        SpecError: the input takes no images, or other ones; says what would work.
    """
    sizes = dict(zip(axes, shape, strict=True))
    if set(axes) != set(LAYOUTS["NHWC"]) or len(axes) != len(LAYOUTS["NHWC"]):
        raise SpecError(
            f"preprocess= is for images, and the input {name!r} takes [{', '.join(axes)}]: "
            "expected batch, height, width and channel in some order. Where an ONNX file's axes "
            "are told wrongly, say them with inputs= (--axes)."
        )
    if not dtype.startswith(("float", "bfloat")):
        raise SpecError(
            f"preprocess= makes floating numbers of pictures, and the input {name!r} takes "
            f"{dtype}: the model does that itself. Leave preprocess= (--preprocess) out; probes "
            "explain the first floating tensor."
        )
    own, channels = (sizes["height"], sizes["width"]), sizes["channel"]
    wanted = _wanted_size(asked, name, own)
    if channels is None:
        raise SpecError(
            f"preprocess= needs to know how many channels the input {name!r} takes, and the model "
            "leaves that open; compile a model that says it."
        )
    taken = _channels(asked, name, channels)
    preset = PRESETS[asked.preset] if asked.preset is not None else None
    figures = {
        "scale": _per_channel(preset.scale if preset else asked.scale, 1.0),
        "mean": _per_channel(preset.mean if preset else asked.mean, 0.0),
        "std": _per_channel(preset.std if preset else asked.std, 1.0),
    }
    for what, values in figures.items():
        if len(values) not in (1, channels):
            said = f"preset={asked.preset!r}" if preset else f"{what}="
            raise SpecError(
                f"pg.ImageInput: {said} has {amount(len(values), 'number')}, and the input "
                f"{name!r} takes {channels} channels; give one number, or one for each."
            )
    arriving: dict[str, int | None] = {"batch": sizes["batch"]}
    arriving["channel"] = channels if asked.channels is None else asked.channels
    if asked.size == ANY:
        arriving["height"] = arriving["width"] = None
    elif asked.size == OF_MODEL:
        arriving["height"], arriving["width"] = own
    else:
        arriving["height"], arriving["width"] = (int(n) for n in asked.size)
    same = asked.size == OF_MODEL or wanted == (arriving["height"], arriving["width"])
    sizes["height"], sizes["width"] = wanted
    described = Preprocessing(
        dtype=dtype,
        shape=tuple(sizes[axis] for axis in axes),
        axes=tuple(axes),
        resize=None if same else asked.resize,
        antialias=asked.antialias and not same,
        fit=STRETCH if same else asked.fit,
        fill=float(asked.fill),
        channels=taken,
        attributions=OF_MODEL if same else asked.attributions,
        **figures,
    )
    layout = LAYOUTS[asked.layout]
    return described, tuple(arriving[axis] for axis in layout), layout


def _wanted_size(
    asked: ImageInput, name: str, own: tuple[int | None, int | None]
) -> tuple[int | None, int | None]:
    """Returns height and width that the model gets.

    Raises:
        SpecError: they are open, or others than the model's.
    """
    if asked.to is not None:
        to = (int(asked.to[0]), int(asked.to[1]))
        if any(n is not None and n != m for n, m in zip(own, to, strict=True)):
            raise SpecError(
                f"pg.ImageInput: to={to}, and the input {name!r} takes {own[0]}x{own[1]}; leave "
                "to= out."
            )
        if asked.size == OF_MODEL:
            raise SpecError(
                "pg.ImageInput: size='model' resizes nothing, so to= has no meaning; give size= "
                "'any' or a pair, or leave to= out."
            )
        return to
    if None in own and asked.size != OF_MODEL:
        raise SpecError(
            f"pg.ImageInput: the input {name!r} takes images of any size: say to=(height, width) "
            "for what pictures are resized to, or size='model' to resize nothing."
        )
    return own


def _channels(asked: ImageInput, name: str, channels: int) -> tuple[int, ...]:
    """Returns for each channel of the model which one of what arrives.

    Raises:
        SpecError: what arrives has others.
    """
    given = channels if asked.channels is None else asked.channels
    reverse = asked.reverse_channels
    if asked.preset is not None:
        reverse = reverse != PRESETS[asked.preset].reverse
    if given == channels:
        order = tuple(range(channels))
    elif (given, channels) == (1, 3):
        order = (0, 0, 0)
    elif (given, channels) == (4, 3):
        order = (0, 1, 2)
    else:
        raise SpecError(
            f"pg.ImageInput: channels={given}, and the input {name!r} takes {channels}. Grey (1) "
            "and alpha (4) can become 3; what else there is has to be converted before."
        )
    return order[::-1] if reverse else order


def _per_channel(value: PerChannel | None, usual: float) -> tuple[float, ...]:
    if value is None:
        return (usual,)
    if isinstance(value, int | float):
        return (float(value),)
    return tuple(float(v) for v in value)


def _check_one_of(field: str, value: Any, known: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in known:
        hint = nearest(value, known) if isinstance(value, str) else ""
        raise _wrong(field, value, " or ".join(map(repr, known)), hint)


def _check_pair(field: str, value: Any, others: str) -> None:
    pair = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(pair) != 2 or any(type(n) is not int or n < 1 for n in pair):
        raise _wrong(field, value, f"{others}a pair (height, width)")


def _check_per_channel(field: str, value: Any) -> None:
    if value is None:
        return
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not numbers or not all(_is_number(n) for n in numbers):
        raise _wrong(field, value, "a number, or one for each channel")
    if field != "mean" and 0 in numbers:
        raise _wrong(field, value, "numbers other than 0")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(field: str, value: Any, expected: str, hint: str = "") -> SpecError:
    return SpecError(f"pg.ImageInput: {field}= takes {expected}, got {value!r}.{hint}")


def wrong_preprocessing(
    found: Preprocessing, axes: Sequence[str], shape: Sequence[int | None]
) -> str | None:
    """Returns what is wrong with what a manifest says, None where nothing is.

    Args:
        found: as read, its types right.
        axes: of what arrives.
        shape: of what arrives.
    """
    return next(_wrongs(found, axes, shape), None)


def _wrongs(
    found: Preprocessing, axes: Sequence[str], shape: Sequence[int | None]
) -> Iterator[str]:
    known = sorted(LAYOUTS["NHWC"])
    if sorted(axes) != known or sorted(found.axes) != known or len(found.shape) != len(found.axes):
        yield f"is preprocessed from {list(axes)} to {list(found.axes)}, which are no images"
        return
    if any(n is not None and n < 1 for n in found.shape):
        yield f"is brought to the shape {list(found.shape)}"
    if found.resize is not None and (found.resize not in RESIZES or None in found.size):
        yield f"is resized by {found.resize!r} to {list(found.size)}"
    if found.fit not in FITS:
        yield f"is fitted by {found.fit!r}, which is unknown"
    arriving, count = shape[axes.index("channel")], found.shape[found.axes.index("channel")]
    if len(found.channels) != count or any(not 0 <= c < (arriving or 0) for c in found.channels):
        yield f"takes the channels {list(found.channels)} of {arriving} for {count}"
    if any(len(v) not in (1, count) for v in (found.scale, found.mean, found.std)):
        yield f"has scale, mean or std of other numbers than 1 or {count}"
    if found.attributions not in SIZES_OF_ATTRIBUTIONS:
        yield f"has attributions of the size {found.attributions!r}"
    if 0 in found.std:
        yield "is divided by 0"
