"""Formats of the output of bulk runs, one a file; `FORMATS` says which suffix is which."""

from __future__ import annotations

from pathlib import Path

from probegen.bulk.stores.base import Layout, Store, layout_of
from probegen.bulk.stores.parquet import ParquetStore
from probegen.bulk.stores.zarr import ZarrStore
from probegen.errors import InputError

__all__ = ["FORMATS", "Layout", "Store", "format_of", "layout_of"]

FORMATS: dict[str, type[Store]] = {".parquet": ParquetStore, ".zarr": ZarrStore}


def format_of(place: Path) -> type[Store]:
    """Returns what writes to a place, by the end of its name.

    Raises:
        InputError: it ends otherwise.
    """
    found = FORMATS.get(place.suffix.lower())
    if found is None:
        raise InputError(
            f"{place}: the records of a bulk run go to a folder whose name ends in "
            f"{' or '.join(FORMATS)}."
        )
    return found
