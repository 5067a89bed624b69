"""Images, read by Pillow as Keras' own `load_img` does, for an input of height, width and channels.

Modes are Pillow's; values go from 0 to 255 whatever the file's depth is. An image stands as its
EXIF data say. Where an input has a fixed size, the image is resized to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.manifest import InputSpec
from probegen.errors import InputError
from probegen.runtime.inputs import Array, describe
from probegen.text import amount

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: Modes of more than eight bits: Pillow's `convert` would cut them off at 255.
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_MOST_16_BIT = 65535.0
_ORIENTATION = 0x0112


def read(path: Path, specs: Sequence[InputSpec], say: Callable[[str], None]) -> Array:
    """Returns an image as a batch of one sample of the artefact's input.

    Args:
        path: the file.
        specs: the artefact's inputs, of which there must be one.
        say: called with what was changed on the way.

    Raises:
        InputError: it is damaged or too large, or the input takes no images.
    """
    places = _places(path, specs)
    wanted = specs[0]
    height, width = (wanted.shape[places[axis]] for axis in ("height", "width"))
    channels = wanted.shape[places["channel"]] if "channel" in places else 1
    if channels is None:
        channels = 3
    if channels not in _MODES:
        raise InputError(f"the input {wanted.name!r} has {channels} channels, no image has.")
    if "height" not in wanted.axes:
        sizes = describe(wanted.axes, wanted.shape)
        say(f"the input {wanted.name!r} takes {sizes}: the picture is read as grey values")
    image = _opened(path, say)
    image = _in_mode(path, image, _MODES[channels], say)
    if height and width and image.size != (width, height):
        say(f"resized {image.size[1]}x{image.size[0]} to {height}x{width}")
        image = _resized(image, (width, height))
    pixels = np.asarray(image, dtype=np.float32)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., np.newaxis], channels, -1)
    if "channel" not in places:
        return pixels[np.newaxis, ..., 0]
    order = sorted(("height", "width", "channel"), key=places.__getitem__)
    sample = pixels.transpose([("height", "width", "channel").index(axis) for axis in order])
    if wanted.dtype.startswith(("float", "bfloat")):
        return sample[np.newaxis]
    return np.rint(sample[np.newaxis]).astype(np.int64)


def _places(path: Path, specs: Sequence[InputSpec]) -> dict[str, int]:
    """Returns the positions of height, width and channel in the artefact's input."""
    wanted = specs[0]
    if len(specs) > 1:
        raise InputError(
            f"{path} is an image, and the artefact has {amount(len(specs), 'input')}: "
            f"{', '.join(repr(s.name) for s in specs)}. Pass them in an .npz file."
        )
    axes = wanted.axes
    if {"height", "width"} <= set(axes) and "depth" not in axes and "time" not in axes:
        places: dict[str, int] = {
            axis: axes.index(axis) for axis in ("height", "width", "channel") if axis in axes
        }
        if len(places) == len(axes) - 1:
            return places
    if len(axes) == 3 and None not in wanted.shape[1:]:
        return {"height": 1, "width": 2}  # one value a pixel; MNIST is often fed so
    raise InputError(
        f"{path} is an image; the input {wanted.name!r} takes {describe(axes, wanted.shape)}, not "
        "images."
    )


def _opened(path: Path, say: Callable[[str], None]) -> Any:
    """Returns the first picture of a file, whole and upright."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError  # matplotlib brings it
    except ImportError as error:
        raise InputError(
            f"{path} is an image, which Pillow reads, and Pillow cannot be imported ({error}): "
            "pip install pillow"
        ) from error
    if not path.stat().st_size:
        raise InputError(f"{path} is empty: it is no image that can be read.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that it reads nonetheless
            image = Image.open(path)
            frames = getattr(image, "n_frames", 1)
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1) != 1
            upright = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path} has more pixels than an image is read with ({error}). Make it smaller first; "
            "models take far smaller ones."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is no image that can be read: it is damaged, or of a kind that this Pillow "
            "was built without. A PNG can always be read."
        ) from error
    except Exception as error:  # Pillow's plugins raise a dozen kinds of a damaged file
        what = "it needs more memory than there is" if isinstance(error, MemoryError) else error
        raise InputError(f"{path} is no image that can be read: {what}") from error
    if frames > 1:
        say(f"{path.name} holds {frames} pictures; the first is taken")
    if turned:
        say(f"{path.name} is turned upright, as its EXIF data say")
    return upright


def _in_mode(path: Path, image: Any, mode: str, say: Callable[[str], None]) -> Any:
    """Returns an image in a mode of 8 bits, or of floats from 0 to 255 where it has more."""
    if image.mode in _DEEP:
        return _of_deep(path, image, say)
    try:
        if mode != "RGBA" and _has_transparency(image):
            say(f"{path.name} has transparent pixels; the colours beneath them are taken")
        if image.mode in ("P", "PA") and mode == "L":
            image = image.convert("RGB")  # an index is no brightness
        return image.convert(mode)
    except Exception as error:
        raise InputError(
            f"{path} is an image of the mode {image.mode!r}, which Pillow cannot turn into "
            f"{mode}: {error}. Save it as {'grey' if mode == 'L' else mode} first."
        ) from error


def _of_deep(path: Path, image: Any, say: Callable[[str], None]) -> Any:
    """Returns an image of 16 bits as floats from 0 to 255; other floats stay as they are."""
    from PIL import Image

    values = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        say(f"{path.name} holds floats, which are taken as they are")
        return Image.fromarray(values)
    if values.size and (values.min() < 0 or values.max() > _MOST_16_BIT):
        raise InputError(
            f"{path} holds values of {values.min():.0f} to {values.max():.0f}, more than 16 bits "
            "hold; save it with 16 bits, or pass the numbers as an .npy file."
        )
    say(f"{path.name} has 16 bits a pixel; 0 to 65535 become 0 to 255")
    return Image.fromarray(values * np.float32(255.0 / _MOST_16_BIT))


def _has_transparency(image: Any) -> bool:
    if "transparency" not in image.info and image.mode not in ("LA", "PA", "RGBA", "La", "RGBa"):
        return False
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    return bool((alpha < 255).any())


def _resized(image: Any, size: tuple[int, int]) -> Any:
    from PIL import Image

    return image.resize(size, Image.Resampling.BILINEAR)
