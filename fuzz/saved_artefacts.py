"""Hostile SavedModels, as `artefacts` has them for ONNX: cut short, bits flipped, edited.

TensorFlow reads a graph and variables by code of its own, which a damaged file may end without an
error: a worker that dies is a finding.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

import probegen as pg
from fuzz.artefacts import FoundError, cut_short, edited, flip, outcome_of, overwrite, remove
from fuzz.drawing import Draw
from fuzz.outcome import Outcome
from probegen import runtime
from probegen.artefact.manifest import SAVEDMODEL_ASSET

#: No hostile folder may take longer.
_SECONDS = 60.0
_X = np.linspace(-1, 1, 2 * 7 * 5 * 2, dtype=np.float32).reshape(2, 7, 5, 2)


@functools.cache
def original() -> Path:
    """Returns a SavedModel, made once a process."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((7, 5, 2), name="image"),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "saved"
    pg.compile(
        model, [pg.Saliency(target="input"), pg.GradCAM()], path, class_names=["a", "b", "c"]
    )
    return path


@functools.cache
def _expected() -> dict[str, Any]:
    return _numbers(original())


def _numbers(path: Path, check: bool | None = None) -> dict[str, Any]:
    art = runtime.load(path, check=check)
    repr(art)
    result = art.run(_X)
    art.run(_X, explain=False)
    return {name: np.asarray(record.array) for name, record in result.items()}


def attempted(key: str, known: Collection[str] | None = ()) -> Outcome:
    """Returns the outcome of the hostile SavedModel of a key."""
    del known
    d = Draw(key)
    damage, checks = d.one(DAMAGES), d.maybe(0.3)
    where = damage.__name__.strip("_")
    with tempfile.TemporaryDirectory() as outside:
        path = Path(outside) / "folder" / "saved"
        shutil.copytree(original(), path)
        expected = _expected()
        return outcome_of(
            key,
            where,
            Path(outside),
            lambda: damage(d, path),
            lambda: _used(path, checks, expected),
            _SECONDS,
        )


def _used(path: Path, checks: bool, expected: dict[str, Any]) -> bool:
    """Runs a SavedModel; tells whether its numbers are those of before.

    Raises:
        FoundError: they are not, and its digests were looked at.
    """
    found = _numbers(path, True if checks else None)
    same = all(
        name in expected and np.array_equal(array, expected[name], equal_nan=True)
        for name, array in found.items()
    )
    if checks and not same:
        raise FoundError("it is checked, and was opened")
    return same


# -- damages -----------------------------------------------------------------------------------


def _any_file(d: Draw, path: Path) -> Path:
    return d.one(sorted(p for p in path.rglob("*") if p.is_file()))


def _of_a_file(damage: Callable[[Draw, Path], str]) -> Callable[[Draw, Path], str]:
    def damaged(d: Draw, path: Path) -> str:
        return damage(d, _any_file(d, path))

    damaged.__name__ = damage.__name__
    return damaged


def _edit_manifest(d: Draw, path: Path) -> str:
    place = path / SAVEDMODEL_ASSET
    text, told = edited(d, place.read_text(encoding="utf-8"))
    place.write_text(text, encoding="utf-8")
    return told


def _elsewhere(d: Draw, path: Path) -> str:
    """Lets a file be a link to another place, or a pipe."""
    place = _any_file(d, path)
    other = path.parent.parent / "secret"
    other.write_bytes(bytes(reversed(place.read_bytes())))
    place.unlink()
    if d.maybe():
        place.symlink_to(other)
        return f"{place.name} is a link to another place"
    os.mkfifo(place)
    return f"{place.name} is a pipe"


#: Damages that a case draws from.
DAMAGES: tuple[Callable[[Draw, Path], str], ...] = (
    _of_a_file(cut_short),
    *(_of_a_file(flip),) * 3,
    _of_a_file(overwrite),
    _of_a_file(remove),
    *(_edit_manifest,) * 4,
    _elsewhere,
)
