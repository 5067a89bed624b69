"""What `runtime.generate` is given, as rows of ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from probegen.artefact.texts import IDS, MASK
from probegen.errors import InputError, nearest
from probegen.runtime.inputs import Array
from probegen.runtime.loaded import Artefact
from probegen.runtime.texts import as_utf8, holds_text
from probegen.runtime.texts.base import without_padding
from probegen.runtime.writing_on.inputs import TokenInputs


def prompts_of(artefact: Artefact, given: Any, inputs: TokenInputs) -> tuple[list[list[int]], bool]:
    """Returns the ids of each prompt without padding, and whether there may be several.

    Args:
        artefact: what is to write on.
        given: see `generate`.
        inputs: of the artefact.

    Raises:
        InputError: it is no prompt, or one is empty or holds ids that the artefact does not take.
    """
    if isinstance(given, Mapping):
        return [_checked(row, inputs) for row in _rows_of_batch(given, inputs)], True
    several = _are_several(given)
    rows = list(given) if several else [given]
    if several and not rows:
        raise InputError("there is no prompt: got an empty list.")
    return [_checked(_ids(artefact, row, inputs), inputs) for row in rows], several


def _are_several(given: Any) -> bool:
    if isinstance(given, np.ndarray):
        text = holds_text(given)
        return (given.ndim > 1 and (len(given) > 1 or text)) or (given.ndim == 1 and text)
    if not isinstance(given, list | tuple):
        return False
    return any(isinstance(row, str | bytes | list | tuple | np.ndarray) for row in given)


def _ids(artefact: Artefact, prompt: Any, inputs: TokenInputs) -> list[int]:
    """Returns the ids of one prompt."""
    if not holds_text(prompt):
        array = np.asarray(prompt)
        if array.ndim == 2 and len(array) == 1:
            array = array[0]
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise InputError(f"the prompt is a text or a list of ids, got {prompt!r}.")
        return [int(i) for i in array]
    if not isinstance(prompt, str | bytes):
        raise InputError(f"a prompt is one text or a list of ids, got {prompt!r}.")
    if inputs.text is None or inputs.tokenizer is None:
        artefact.texts.given(prompt)  # says what to do
        raise InputError("the artefact takes ids: pass the prompt as a list of ids.")
    texts = np.empty(1, object)
    texts[0] = as_utf8(prompt, inputs.text.name)
    made = inputs.tokenizer.encode(texts.reshape(1, *([1] * (len(inputs.text.shape) - 1))))
    row = made[IDS][0].tolist()
    if MASK in made:
        return [i for i, there in zip(row, made[MASK][0].tolist(), strict=True) if there]
    return without_padding(row, 0)


def _rows_of_batch(given: Mapping[str, Any], inputs: TokenInputs) -> list[list[int]]:
    """Returns the rows of a batch that is padded, left or right, without its padding.

    Raises:
        InputError: a name is unknown, the ids are missing, or nothing says what is padding.
    """
    known = [inputs.ids.name, *(spec.name for spec in inputs.masks)]
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise InputError(
            f"prompts as a dict have the ids and the mask that says which of them count, "
            f"{', '.join(map(repr, known))}; got {unknown!r}.{nearest(unknown, known)}"
        )
    if inputs.ids.name not in given:
        raise InputError(f"the ids {inputs.ids.name!r} are missing from the prompts.")
    try:
        ids = np.asarray(given[inputs.ids.name])
        masks = [np.asarray(given[name]) != 0 for name in known[1:] if name in given]
    except ValueError as error:  # of rows of several lengths
        raise InputError(
            "prompts as a dict are padded to one length; pass rows of several lengths as a list."
        ) from error
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or any(m.shape != ids.shape for m in masks):
        raise InputError(
            f"prompts as a dict are whole numbers [prompt, token], and a mask of that shape; got "
            f"{[list(np.shape(value)) for value in given.values()]}."
        )
    told = inputs.ids.padding
    if masks:
        there: Array = np.logical_and.reduce(masks)
    elif told is not None and told.input == inputs.ids.name:
        there = ~np.isin(ids, np.asarray(told.values))
    elif inputs.masks:
        raise InputError(
            "the prompts do not say which of their tokens are padding: pass the mask "
            f"{inputs.masks[0].name!r} as well, or rows of several lengths as a list."
        )
    else:  # the model itself takes each id for a token
        there = np.ones(ids.shape, np.bool_)
    rows = []
    for row, kept in zip(ids, there, strict=True):
        places = np.flatnonzero(kept)
        if places.size and places[-1] - places[0] + 1 != places.size:
            raise InputError(
                f"a mask leaves out tokens in the middle of a prompt: {kept.astype(int).tolist()}; "
                "padding stands before a text or behind it."
            )
        rows.append([int(i) for i in row[places]])
    return rows


def _checked(ids: list[int], inputs: TokenInputs) -> list[int]:
    if not ids:
        raise InputError("the prompt is empty: the artefact needs a token to go on from.")
    top = inputs.ids.vocabulary
    for i in ids:
        if i < 0 or (top is not None and i >= top):
            legal = "0 and more" if top is None else f"0 to {top - 1}"
            raise InputError(f"the prompt has the id {i}; the artefact takes {legal}.")
    return ids
