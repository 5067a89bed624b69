"""Columns of Parquet files, as the arrays that an artefact takes.

A column holds for each sample a number, a text, a list, a list of lists, or a tensor. A flat list
of as many numbers as a sample has is one sample in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.manifest import InputSpec
from probegen.artefact.rows import without_batch
from probegen.bulk.inputs.base import Context
from probegen.errors import InputError
from probegen.runtime.inputs import Array, describe


def columns_of(schema: Any, context: Context, path: Path) -> dict[str, list[str]]:
    """Returns the columns that hold each input, by its name.

    A column that has an input's name is that input. Else one input takes the only column there is,
    or, where it is a row of features, the columns of numbers in their order.

    Raises:
        InputError: columns are missing, or it is open which of them are meant.
    """
    import pyarrow.types as kinds

    specs, names = context.specs, list(schema.names)
    wanted = [spec.name for spec in specs]
    if set(wanted) <= set(names):
        return {name: [name] for name in wanted}
    if len(specs) == 1:
        if len(names) == 1:
            return {wanted[0]: names}
        shape = specs[0].shape
        numbers = [
            field.name
            for field in schema
            if kinds.is_integer(field.type)
            or kinds.is_floating(field.type)
            or kinds.is_boolean(field.type)
        ]
        if len(shape) == 2 and shape[1] == len(numbers):
            return {wanted[0]: numbers}
    raise InputError(
        f"{path} has the columns {', '.join(map(repr, names))}; the artefact takes "
        + ", ".join(f"{s.name!r} {describe(s.axes, s.shape)}" for s in specs)
        + ". Name a column for each input so; or, of a row of features, give a column for each and "
        "no other columns of numbers."
    )


def rows_of(columns: Sequence[Any], spec: InputSpec) -> list[Array | str]:
    """Returns for each sample its array without the batch axis, or why it has none.

    Args:
        columns: of pyarrow; several are the features of one sample.
        spec: the input.
    """
    if len(columns) > 1:
        singles = [_of_one(column, spec, flat=False) for column in columns]
        return [_joined(row) for row in zip(*singles, strict=True)]
    return _of_one(columns[0], spec, flat=True)


def _joined(values: Sequence[Array | str]) -> Array | str:
    wrong = next((value for value in values if isinstance(value, str)), None)
    return np.stack([np.asarray(v) for v in values]) if wrong is None else wrong


def _of_one(column: Any, spec: InputSpec, flat: bool) -> list[Array | str]:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column.type, pa.FixedShapeTensorType):
        shape: tuple[int, ...] | None = tuple(column.type.shape)
        column = column.storage
    else:
        shape = _sample_shape(spec) if flat else None
    found: list[Array | str] = []
    for row in range(len(column)):
        scalar = column[row]
        if not scalar.is_valid:
            found.append(f"it has no value for {spec.name!r}: write nan for a number.")
            continue
        try:
            value = _array(scalar)
        except (ValueError, TypeError) as error:
            found.append(f"its value for {spec.name!r} is no regular array of numbers: {error}")
            continue
        sized = shape is not None and value.ndim <= 1 and value.size == math.prod(shape)
        found.append(value.reshape(shape) if sized and shape is not None else value)
    return found


def _array(scalar: Any) -> Array:
    """Returns a value of pyarrow as an array."""
    values = getattr(scalar, "values", None)
    if values is None:
        return np.asarray(scalar.as_py())
    if hasattr(values, "storage"):
        values = values.storage
    if values.null_count:
        raise ValueError("a value is missing in it")
    if hasattr(values.type, "value_type"):
        return np.stack([_array(inner) for inner in values]) if len(values) else np.empty((0,))
    plain: Array = values.to_numpy(zero_copy_only=False)
    return plain


def _sample_shape(spec: InputSpec) -> tuple[int, ...] | None:
    """Returns the sizes of one sample, None where some are open."""
    sizes = without_batch(spec.shape, spec.axes)
    return None if None in sizes else sizes
