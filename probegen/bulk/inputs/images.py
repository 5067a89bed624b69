"""Images, one sample a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from probegen.bulk.inputs.base import Block, Context, Input, Samples
from probegen.errors import InputError
from probegen.runtime.inputs import Array
from probegen.runtime.read import Say, images


class Images(Input):
    """Images by name. Those of one size are run together."""

    def __init__(self, folder: Path, names: Sequence[str], context: Context) -> None:
        self._folder, self._names, self._context = folder, names, context
        self._said: set[str] = set()
        self.rows = len(names)

    def names(self, start: int, stop: int) -> list[str]:
        """Returns the paths of the files below the folder."""
        return list(self._names[start:stop])

    def read(self, start: int, stop: int) -> Samples:
        """Reads some images; see `Input.read`."""
        by_shape: dict[tuple[int, ...], list[tuple[int, Array]]] = {}
        errors = {}
        for row, name in enumerate(self._names[start:stop]):
            path = self._folder / name
            try:
                sample = images.read(path, self._context.manifest.inputs, self._say_once(path))
            except InputError as error:
                errors[row] = str(error)
            except OSError as error:
                errors[row] = f"cannot read {path}: {error.strerror or error}."
            else:
                by_shape.setdefault(sample.shape, []).append((row, sample))
        key = self._context.manifest.inputs[0].name
        blocks = [
            Block([row for row, _ in own], {key: np.concatenate([sample for _, sample in own])})
            for own in by_shape.values()
        ]
        return Samples(blocks, errors)

    def files(self) -> Iterator[tuple[str, Path]]:
        """Gives the images."""
        for name in self._names:
            yield name, self._folder / name

    def _say_once(self, path: Path) -> Say:
        """Returns what says of an image what was not said of another before."""

        def say(line: str) -> None:
            kind = re.sub(r"\d+", "0", line.replace(path.name, ""))
            if kind not in self._said:
                self._said.add(kind)
                self._context.say(
                    f"{path.name}: {line.removeprefix(path.name).strip()} (said once)"
                )

        return say


def open_image(path: Path, context: Context) -> Images:
    """Opens one image."""
    return Images(path.parent, [path.name], context)
