"""Libraries that single formats need, and what to install where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from probegen.errors import InputError


def pyarrow_parquet() -> Any:
    """Returns `pyarrow.parquet`.

    Raises:
        InputError: it is not installed.
    """
    return _imported("pyarrow.parquet", "Parquet", "parquet")


def zarr() -> Any:
    """Returns `zarr`.

    Raises:
        InputError: it is not installed.
    """
    return _imported("zarr", "Zarr", "zarr")


def ray_data() -> tuple[Any, Any]:
    """Returns `ray` and `ray.data`.

    Raises:
        InputError: they are not installed.
    """
    try:
        return importlib.import_module("ray"), importlib.import_module("ray.data")
    except ImportError as error:
        raise InputError(
            f"a bulk run on a cluster needs Ray, which cannot be imported ({error}): pip install "
            "'probegen[ray]', on every machine of it; or leave ray= (--ray) out, and run on this "
            "machine alone."
        ) from error


def _imported(module: str, what: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{what} is read and written by {module.partition('.')[0]}, which cannot be imported "
            f"({error}): pip install 'probegen[{extra}]'"
        ) from error
