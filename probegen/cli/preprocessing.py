"""`--preprocess`: what arrives in the place of a model's images, in words of the shell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from probegen.artefact.preprocessing import ImageInput
from probegen.errors import SpecError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])

_FIELDS = tuple(f.name for f in dataclasses.fields(ImageInput))
_SWITCHES = ("antialias", "reverse_channels")
_PAIRS = ("size", "to")
_NUMBERS = ("scale", "mean", "std")
_SUCH_AS = "such as 'size=any preset=tf', or 'photo: size=640x480 mean=123,117,104'"


def with_preprocess(command: F) -> F:
    """Adds `--preprocess` to a command."""
    return click.option(
        "--preprocess",
        multiple=True,
        metavar="'[INPUT:] FIELD=VALUE ...'",
        help="OUT (no .keras file) takes pictures as a server has them and preprocesses them. "
        "Fields are those of pg.ImageInput: size=any|model|HxW resize=bilinear|nearest|bicubic "
        "antialias fit=stretch|crop|pad fill=N preset=tf|caffe|torch scale=N mean=N,N,N std=N,N,N "
        "layout=NHWC|NCHW channels=N reverse_channels dtype=uint8|float32 to=HxW. Once an input; "
        "'' is as pg.ImageInput().",
    )(command)


def preprocess_of(given: Sequence[str]) -> ImageInput | dict[str, ImageInput] | None:
    """Returns what `pg.compile` takes as `preprocess`; None where nothing is given.

    Raises:
        SpecError: a word is no field, or a value is none that it takes; several are of one input,
            or some are of inputs by name and one is not.
    """
    images: dict[str, ImageInput] = {}
    for text in given:
        name, colon, fields = text.rpartition(":")
        if colon and not name.strip():
            raise SpecError(f"--preprocess {text!r} names no input before its colon.")
        if name.strip() in images:
            raise SpecError(
                f"--preprocess is given twice for {name.strip() or 'the one input'!r}; give one "
                "for each input, by name: --preprocess 'photo: size=any'."
            )
        images[name.strip()] = _image(fields if colon else text)
    if "" in images and len(images) > 1:
        raise SpecError(
            "--preprocess is given for inputs by name and once without; give one for each input, "
            "by name: --preprocess 'photo: size=any'."
        )
    return images.get("", images or None)


def _image(text: str) -> ImageInput:
    values: dict[str, Any] = {}
    for word in text.split():
        field, equals, value = word.partition("=")
        if field not in _FIELDS:
            hint = did_you_mean(field, _FIELDS)
            raise SpecError(f"--preprocess: {field!r} is no field of pg.ImageInput.{hint}")
        if field in values:
            raise SpecError(f"--preprocess: {field} is given twice.")
        if not equals and field not in _SWITCHES:
            raise SpecError(f"--preprocess: {field} needs a value, {_SUCH_AS}.")
        values[field] = _value(field, value, bare=not equals)
    return ImageInput(**values)


def _value(field: str, text: str, *, bare: bool) -> Any:
    """Returns what a field takes; what is none goes on as text, which `ImageInput` refuses."""
    try:
        if field in _SWITCHES:
            return {"true": True, "false": False}.get(text.lower(), text) if not bare else True
        if field in _PAIRS and "x" in text:
            return tuple(int(n) for n in text.split("x"))
        if field in _NUMBERS:
            numbers = tuple(float(n) for n in text.split(","))
            return numbers[0] if len(numbers) == 1 else numbers
        if field == "fill":
            return float(text)
        return int(text) if field == "channels" else text
    except ValueError:
        return text
