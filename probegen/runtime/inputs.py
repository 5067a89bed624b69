"""Checks what is fed to an artefact against the manifest, before anything runs.

Every message gives the input's name, what was expected, what came, and what would work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import (
    GATE_INPUT,
    GROUPS_INPUT,
    REGION_INPUT,
    TARGET_INPUT,
    InputSpec,
)
from probegen.artefact.rows import BATCH, batch_axis
from probegen.errors import InputError, did_you_mean
from probegen.runtime.padding import same_positions
from probegen.stages import stage
from probegen.text import amount

Array = npt.NDArray[Any]

#: What a manifest calls the element type of text.
STRING = "string"

#: One array for a single input, a dict by input name, or a list in the artefact's order.
Inputs = npt.ArrayLike | Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike]


def describe(axes: Sequence[str], shape: Sequence[int | None]) -> str:
    """Returns axes with their sizes, for example `"[batch, height=28, width=28]"`."""
    sizes = (a if n is None else f"{a}={n}" for a, n in zip(axes, shape, strict=True))
    return "[" + ", ".join(sizes) + "]"


def check_inputs(
    x: Inputs, specs: Sequence[InputSpec], *, check_finite: bool = False
) -> dict[str, Array]:
    """Returns the inputs by name: private, contiguous copies of the manifest's dtypes.

    Args:
        x: one array for a single input, a dict by name, or a list in order.
        specs: the inputs the artefact has.
        check_finite: refuse NaN and infinity.

    Raises:
        InputError: a name, rank, size, dtype or value does not fit.
    """
    with stage("the inputs cannot be read", InputError, "Pass plain numpy arrays."):
        return _checked(x, specs, check_finite)


def _checked(x: Inputs, specs: Sequence[InputSpec], check_finite: bool) -> dict[str, Array]:
    given = name_inputs(x, specs)
    arrays = {spec.name: _fit(given[spec.name], spec, check_finite) for spec in specs}
    places = {spec.name: batch_axis(spec.axes) for spec in specs}
    rows = {name: arrays[name].shape[at] for name, at in places.items() if at is not None}
    if len(set(rows.values())) > 1:
        sizes = ", ".join(f"{name!r} has {n}" for name, n in rows.items())
        raise InputError(
            f"all inputs must have the same batch size, but {sizes}. A graph's nodes and edges are "
            "no samples: compile its ONNX file with the axes of each input (inputs=, 'Axes of an "
            "ONNX file' in docs/USE.md)."
        )
    _check_masks(arrays, specs)
    return arrays


def _check_masks(arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> None:
    """Refuses a mask that has not as many positions as what it belongs to."""
    by_name = {spec.name: spec for spec in specs}
    for spec in specs:
        mask = None if spec.padding is None else by_name.get(spec.padding.input)
        if mask is None or mask is spec:
            continue
        if not same_positions(spec, mask, arrays):
            raise InputError(
                f"input {mask.name!r} {arrays[mask.name].shape} says which positions of "
                f"{spec.name!r} {arrays[spec.name].shape} are padding: both need the same ones."
            )


def name_inputs(x: Inputs, specs: Sequence[InputSpec]) -> dict[str, Any]:
    """Returns what was given for each input, in whichever form it came.

    Raises:
        InputError: a name is unknown or missing, or there are more or fewer than the artefact has.
    """
    names = [spec.name for spec in specs]
    if isinstance(x, Mapping):
        _check_names(x, names)
        return {name: x[name] for name in names}
    if len(names) == 1:
        return {names[0]: _single(x, specs[0])}
    if isinstance(x, Sequence) and not isinstance(x, str | bytes):
        if len(x) != len(names):
            raise InputError(
                f"got a list of {len(x)}, but the artefact has {amount(len(names), 'input')}: "
                f"{', '.join(map(repr, names))}, in this order."
            )
        return dict(zip(names, x, strict=True))
    raise InputError(
        f"got one array, but the artefact has {amount(len(names), 'input')}: pass a dict with the "
        f"keys {', '.join(map(repr, names))}, or a list in this order."
    )


def _check_names(given: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in given:
        if name not in names:
            if name in (TARGET_INPUT, REGION_INPUT, GROUPS_INPUT, GATE_INPUT):
                raise InputError(f"{name!r} is not an input but an argument: run(x, {name}=...).")
            raise InputError(f"the artefact has no input {name!r}.{did_you_mean(name, names)}")
    missing = [name for name in names if name not in given]
    if missing:
        which, verb = ("input", "is") if len(missing) == 1 else ("inputs", "are")
        raise InputError(
            f"the {which} {', '.join(map(repr, missing))} {verb} missing. "
            f"The artefact takes {', '.join(map(repr, names))}."
        )


def _single(x: Any, spec: InputSpec) -> Any:
    """Returns the only input; a list may hold it, or be its data as nested lists."""
    if isinstance(x, list | tuple) and len(x) == 1 and np.ndim(x[0]) == len(spec.shape):
        return x[0]
    return x


def _fit(value: Any, spec: InputSpec, check_finite: bool) -> Array:
    """Returns `value` as an array of the spec's dtype after all checks."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(
            f"input {spec.name!r} is no regular array: its rows differ in length. Pad them to "
            f"{describe(spec.axes, spec.shape)}."
        ) from error
    if spec.dtype == STRING:
        array = as_strings(array, f"input {spec.name!r}")
        _check_shape(array, spec)
        return array
    check_kind(array.dtype, spec)
    _check_shape(array, spec)
    _check_length(array, spec)
    _check_values(array, spec, check_finite)
    return _cast(array, spec)


def check_kind(given: np.dtype[Any], spec: InputSpec) -> None:
    """Refuses an element type that cannot become that of an input of numbers.

    Raises:
        InputError: values would have to change their kind.
    """
    wanted = _dtype(spec)
    if given.kind not in "biuf":
        raise InputError(
            f"input {spec.name!r} has the element type {_kind_name(given)}, expected "
            f"{spec.dtype}. Convert it to numbers first."
        )
    if given.kind == "f" and wanted.kind != "f":
        raise InputError(
            f"input {spec.name!r} is {given}, expected {spec.dtype}: floats are not "
            f"rounded silently. If they are whole numbers, pass x.astype({spec.dtype!r})."
        )
    if wanted.kind == "b" and given.kind != "b":
        raise InputError(f"input {spec.name!r} is {given}, expected bool: pass x != 0.")


def as_strings(array: Array, what: str) -> Array:
    """Returns a private array of text (numpy kind `U`), or of bytes (`S`) that are no UTF-8.

    Args:
        array: strings, or objects that are `str` or `bytes`.
        what: what it is, for the message.

    Raises:
        InputError: it holds something else.
    """
    flat = array.ravel().tolist()
    wrong = [v for v in flat if not isinstance(v, str | bytes)][:1]
    if wrong:
        raise InputError(
            f"{what} takes strings, got {type(wrong[0]).__name__} {wrong[0]!r}: pass str or bytes, "
            "for instance np.array(['some text'])."
        )
    for v in flat:
        try:
            v.encode() if isinstance(v, str) else v
        except UnicodeEncodeError as error:
            raise InputError(
                f"{what} holds half of a surrogate pair ({error.object[error.start]!r}), which is "
                "no character: take it out, or pass bytes."
            ) from error
    if any(v.endswith(b"\0" if isinstance(v, bytes) else "\0") for v in flat):
        raise InputError(
            f"{what} has a value that ends in a zero byte, which numpy's arrays of text drop: "
            "encode it, for instance as base64, and decode it in the model."
        )
    try:
        text = [v.decode() if isinstance(v, bytes) else v for v in flat]
        return np.array(text, dtype=np.str_).reshape(array.shape)
    except UnicodeDecodeError:
        raw = [v.encode() if isinstance(v, str) else v for v in flat]
        return np.array(raw, dtype=np.bytes_).reshape(array.shape)


def _kind_name(given: np.dtype[Any]) -> str:
    names = {"U": "string", "S": "bytes", "O": "object", "c": "complex"}
    return names.get(given.kind, str(given))


def _dtype(spec: InputSpec) -> np.dtype[Any]:
    try:
        return np.dtype(spec.dtype)
    except TypeError as error:
        raise InputError(
            f"input {spec.name!r} has the element type {spec.dtype}, which numpy cannot hold."
        ) from error


def _check_shape(array: Array, spec: InputSpec) -> None:
    expected = describe(spec.axes, spec.shape)
    if array.ndim != len(spec.shape):
        raise InputError(
            f"input {spec.name!r} has the shape {array.shape} (rank {array.ndim}), expected "
            f"{expected} (rank {len(spec.shape)}).{_rank_hint(array, spec)}"
        )
    at = batch_axis(spec.axes)
    if at is not None and array.shape[at] == 0:
        raise InputError(f"input {spec.name!r} is an empty batch: its shape is {array.shape}.")
    for i, (axis, size, got) in enumerate(zip(spec.axes, spec.shape, array.shape, strict=True)):
        empty = got == 0 and (size is not None or spec.next_state is None)  # a cache may be
        if empty or (size is not None and got != size):
            raise InputError(
                f"input {spec.name!r} has the size {got} on the axis {axis!r} (axis {i}), "
                f"expected {'at least 1' if size is None else size}. Its shape is {array.shape}, "
                f"expected {expected}.{_order_hint(array, spec)}"
            )


def _check_length(array: Array, spec: InputSpec) -> None:
    """Refuses what is longer than the model has positions for, or shorter than its windows."""
    short = why_too_short(array, spec)
    if short is not None:
        raise InputError(short)
    for axis, size, got in zip(spec.axes, spec.shape, array.shape, strict=True):
        open_axis = size is None and axis != BATCH
        if spec.longest is not None and open_axis and got > spec.longest:
            raise InputError(
                f"input {spec.name!r} has {got} entries on the axis {axis!r}, and the model has "
                f"positions for {spec.longest} at most: cut it, or run it in parts."
            )


def why_too_short(array: Array, spec: InputSpec) -> str | None:
    """Says where an input of the right rank has fewer entries than the model's windows need.

    Returns:
        What is wrong, what is expected and what works; None where nothing is.
    """
    if spec.shortest is None:
        return None
    for axis, size, got, few in zip(spec.axes, spec.shape, array.shape, spec.shortest, strict=True):
        if few is not None and size is None and got < few:
            return (
                f"input {spec.name!r} has {got} entries on the axis {axis!r}, and the model needs "
                f"{few} at least: with fewer nothing is left of them behind its convolutions, "
                "poolings or cuts. Fill the input up as for training, or leave it out."
            )
    return None


def _rank_hint(array: Array, spec: InputSpec) -> str:
    if batch_axis(spec.axes) == 0 and _matches(array.shape, spec.shape[1:]):
        return " This looks like one sample without the batch axis: pass x[np.newaxis]."
    return ""


def _order_hint(array: Array, spec: InputSpec) -> str:
    if array.ndim > 2 and _matches(np.moveaxis(array, 1, -1).shape, spec.shape):
        return " The channels seem to come first: pass np.moveaxis(x, 1, -1)."
    return ""


def _matches(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(
        n is None or n == got for n, got in zip(expected, shape, strict=True)
    )


def _check_values(array: Array, spec: InputSpec, check_finite: bool) -> None:
    if check_finite and array.dtype.kind == "f":
        _refuse(
            ~np.isfinite(array),
            array,
            spec,
            "is not finite; clean the input, or run without check_finite=True to let it through",
        )
    if spec.integer:
        _refuse(array != np.floor(array), array, spec, "is not a whole number, as ids must be")
    if spec.vocabulary is not None:
        _refuse(
            ~((array >= 0) & (array < spec.vocabulary)),
            array,
            spec,
            f"is out of the vocabulary: ids go from 0 to {spec.vocabulary - 1}",
        )


def _refuse(bad: npt.NDArray[np.bool_], array: Array, spec: InputSpec, why: str) -> None:
    """Raises for the first element where `bad`, saying which it is and how many there are."""
    count = int(np.count_nonzero(bad))
    if count:
        where = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
        more = f" ({count} such values)" if count > 1 else ""
        raise InputError(
            f"input {spec.name!r}: the value {array[where]} at {list(where)} {why}{more}."
        )


def _cast(array: Array, spec: InputSpec) -> Array:
    """Returns a contiguous copy of the spec's dtype.

    A copy, because a result remembers its inputs and callers reuse their buffers.
    """
    wanted = _dtype(spec)
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        _refuse(
            (array < limits.min) | (array > limits.max),
            array,
            spec,
            f"does not fit into {wanted}, which goes from {limits.min} to {limits.max}",
        )
    with np.errstate(over="ignore"):
        fitted = np.array(array, dtype=wanted, order="C", copy=True)
    if wanted.kind == "f" and wanted.itemsize < array.dtype.itemsize:
        _refuse(np.isinf(fitted) & np.isfinite(array), array, spec, f"does not fit into {wanted}")
    return fitted
