"""Inputs of bulk runs, one kind a file; `KINDS` says which suffix is which."""

from __future__ import annotations

from pathlib import Path

from probegen.bulk.inputs.base import Context, Input, Kinds
from probegen.bulk.inputs.folder import open_folder
from probegen.bulk.inputs.images import open_image
from probegen.bulk.inputs.npy import RAW, open_npy, open_raw
from probegen.bulk.inputs.npz import PackedArrays
from probegen.bulk.inputs.parquet import ParquetRows
from probegen.bulk.inputs.whole import Whole
from probegen.bulk.inputs.zarr import MARKS, ZarrArrays
from probegen.errors import InputError
from probegen.runtime.read import images, lines, tables

__all__ = ["KINDS", "Context", "Input", "open_input"]

KINDS: Kinds = (
    ((".npy",), open_npy),
    ((".npz",), PackedArrays),
    ((".parquet", ".pq"), ParquetRows),
    (RAW, open_raw),
    (images.SUFFIXES, open_image),
    ((*tables.SUFFIXES, *lines.SUFFIXES), Whole),
)


def open_input(path: Path, context: Context) -> Input:
    """Opens a file or folder.

    Raises:
        InputError: it is not there, damaged, of an unknown kind, or does not fit the inputs; or an
            option is for files of another kind.
    """
    if not path.exists():
        raise InputError(f"there is nothing at {path}.")
    source = _opened(path, context)
    suffixes = {file.suffix.lower() for _, file in source.files()}
    for option in ("header", "time_column"):
        given = getattr(context, option)
        if given is not None and not suffixes & set(tables.SUFFIXES):
            raise InputError(
                f"{context.spell(option, given)} is for tables ({', '.join(tables.SUFFIXES)}), and "
                f"{path} is or holds none."
            )
    return source


def _opened(path: Path, context: Context) -> Input:
    try:
        if path.is_dir():
            if path.suffix.lower() == ".zarr" or any((path / mark).is_file() for mark in MARKS):
                return ZarrArrays(path, context)
            return open_folder(path, context, KINDS)
        for suffixes, how in KINDS:
            if path.suffix.lower() in suffixes:
                return how(path, context)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    known = ", ".join(suffix for suffixes, _ in KINDS for suffix in suffixes)
    raise InputError(f"cannot read {path}; expected a folder, .zarr, {known}.")
