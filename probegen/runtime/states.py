"""Recurrent states of a run: those fed, zeros where there are none, and the last ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec, Manifest
from probegen.artefact.rows import BATCH, TIME, batch_axis, count_rows
from probegen.errors import InputError, nearest
from probegen.runtime.inputs import Array, check_inputs

#: What `states=` takes: by the name of the input, or of the output before.
States = Mapping[str, npt.ArrayLike]


def checked_with_states(
    x: Any, specs: Sequence[InputSpec], states: States | None, check_finite: bool = False
) -> dict[str, Array]:
    """Returns all inputs by name: those of the model, and states that recurrent layers start from.

    Args:
        x: see `Artefact.run`; a dict may hold states as well.
        specs: the inputs of the artefact.
        states: see `Artefact.run`.
        check_finite: refuse NaN and infinity.

    Raises:
        InputError: an input or a state does not fit.
    """
    fed = [spec for spec in specs if spec.next_state is not None]
    own = [spec for spec in specs if spec.next_state is None]
    if not fed:
        if states is not None:
            raise InputError(
                "states= is for an artefact whose recurrent states are inputs, and this one keeps "
                "none: compile it with states='io'."
            )
        return check_inputs(x, specs, check_finite=check_finite)
    names = {spec.name: spec for spec in fed}
    given = dict(states or {})
    if isinstance(x, Mapping):
        given |= {name: value for name, value in x.items() if name in names}
        x = {name: value for name, value in x.items() if name not in names}
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(
            f"the artefact has no state {unknown[0]!r}; it has "
            f"{', '.join(map(repr, names))}.{nearest(unknown[0], list(names))}"
        )
    arrays = check_inputs(x, own, check_finite=check_finite)
    rows = count_rows(arrays, own)
    for spec in fed:
        if spec.name not in given:
            given[spec.name] = np.zeros(sizes_of_start(spec, rows), spec.dtype)
    arrays |= check_inputs({name: given[name] for name in names}, fed, check_finite=check_finite)
    _check_room(arrays, fed, own)
    for spec in fed:
        at = batch_axis(spec.axes)
        if at is not None and arrays[spec.name].shape[at] != rows:
            raise InputError(
                f"the state {spec.name!r} has {arrays[spec.name].shape[at]} rows and the inputs "
                f"have {rows}: a state belongs to the series that it was made of. Leave states out "
                "to start anew."
            )
    return {spec.name: arrays[spec.name] for spec in specs}


def checked_samples(x: Any, specs: Sequence[InputSpec]) -> dict[str, Array]:
    """Returns all inputs by name, of samples that something is verified on.

    Args:
        x: as `Artefact.run` takes it, states left out or among the others by name; or a list of
            all inputs in their order, states too.
        specs: the inputs of the artefact.

    Raises:
        InputError: an input or a state does not fit.
    """
    if isinstance(x, list | tuple) and len(x) == len(specs):
        return check_inputs(x, specs)
    return checked_with_states(x, specs, None)


def _check_room(
    arrays: Mapping[str, Array], fed: Sequence[InputSpec], own: Sequence[InputSpec]
) -> None:
    """Refuses more steps, those before included, than the model has positions for.

    Raises:
        InputError: there are more.
    """
    new = max((arrays[s.name].shape[s.axes.index(TIME)] for s in own if TIME in s.axes), default=0)
    for spec in fed:
        along = open_axis(spec)
        if spec.longest is None or along is None:
            continue
        before = arrays[spec.name].shape[along]
        if before + new > spec.longest:
            raise InputError(
                f"the state {spec.name!r} holds {before} steps, and with {new} more there would be "
                f"too many: the model has positions for {spec.longest}."
            )


def open_axis(spec: InputSpec) -> int | None:
    """Returns which axis of a state has an entry for each step before, None where there is none."""
    sized = zip(spec.axes, spec.shape, strict=True)
    return next((i for i, (a, n) in enumerate(sized) if n is None and a != BATCH), None)


def sizes_of_start(spec: InputSpec, rows: int) -> list[int]:
    """Returns the shape of what a state is where a series starts: no steps along an open axis.

    Args:
        spec: the state.
        rows: how many samples there are.
    """
    sized = zip(spec.axes, spec.shape, strict=True)
    return [n if n is not None else rows if axis == BATCH else 0 for axis, n in sized]


def next_states(manifest: Manifest, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Returns where states have ended, by the names of the inputs that the next chunk starts from.

    Args:
        manifest: of the artefact.
        arrays: outputs of a run.
    """
    named = ((spec.name, spec.next_state) for spec in manifest.inputs)
    return {name: arrays[n] for name, n in named if n is not None and n in arrays}
