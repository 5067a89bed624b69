"""The `groups` argument of a run: which group each position belongs to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec, Manifest
from probegen.artefact.rows import BATCH, count_rows
from probegen.errors import InputError
from probegen.runtime.axes import HEIGHT, WIDTH
from probegen.runtime.inputs import Array, check_inputs, describe
from probegen.runtime.resize import at_model


def check_groups(
    groups: npt.ArrayLike | None, manifest: Manifest, feeds: Mapping[str, Array], explain: bool
) -> Array | None:
    """Returns the int32 `[batch, ...positions]` groups to feed, None where there are none.

    Args:
        groups: what was given: for each sample, or for one. Of an artefact that preprocesses
            pictures, of the picture's pixels or of what the model sees.
        manifest: of the artefact.
        feeds: the inputs.
        explain: whether explanations are asked for; groups may be left out otherwise.

    Raises:
        InputError: the artefact takes no groups, or needs some, or these are of another shape or
            type, negative, or too many.
    """
    spec = manifest.groups_input
    if spec is None:
        if groups is not None:
            raise InputError(
                "groups were given, but the artefact takes none: compile with groups='input' to "
                "give them in each run."
            )
        return None
    rows = count_rows(feeds, manifest.inputs)
    wanted = _sized(spec, manifest, feeds, rows)
    if groups is None:
        if explain:
            raise InputError(
                f"the artefact takes groups: whole numbers {describe(wanted.axes, wanted.shape)}, "
                "the group of each position, from 0: run(x, groups=...). "
                "probegen.runtime.superpixels makes them of a picture; explain=False needs none."
            )
        return np.zeros([1 if n is None else n for n in wanted.shape], np.int32)
    given = np.asarray(groups)
    if given.ndim == len(wanted.shape) - 1:
        given = np.broadcast_to(given, (rows, *given.shape))
    given = _at_model(given, spec, manifest, feeds)
    free = dataclasses.replace(wanted, vocabulary=None)
    found = check_inputs({spec.name: given}, [free])[spec.name]
    most = spec.vocabulary
    if found.size and (found.min() < 0 or (most is not None and found.max() >= most)):
        wrong = found.min() if found.min() < 0 else found.max()
        legal = "from 0 on" if most is None else f"0 to {most - 1}: it was compiled for {most}"
        raise InputError(
            f"groups holds the number {wrong}; the artefact takes groups {legal}. "
            "np.unique(groups, return_inverse=True)[1] numbers them without gaps."
        )
    return found


def _at_model(
    given: Array, spec: InputSpec, manifest: Manifest, feeds: Mapping[str, Array]
) -> Array:
    """Returns groups of a picture's pixels as groups of what the artefact makes of it.

    Those that have the model's size already stay.
    """
    for one in manifest.inputs:
        how = one.preprocessing
        if how is None or set(spec.axes) != {BATCH, HEIGHT, WIDTH} or given.ndim != len(spec.axes):
            continue
        height, width = (feeds[one.name].shape[one.axes.index(a)] for a in (HEIGHT, WIDTH))
        if given.shape[1:] == (height, width) and how.size != (height, width):
            return at_model(given, how)
    return given


def _sized(spec: InputSpec, manifest: Manifest, feeds: Mapping[str, Array], rows: int) -> InputSpec:
    """Returns what groups must be like for these inputs."""
    known = sizes_by_axis(spec, manifest, feeds)
    sizes = (known.get(a) if n is None else n for a, n in zip(spec.axes, spec.shape, strict=True))
    # As many rows as there are inputs: of an artefact that takes a fixed number, `run_batched`
    # checks the groups of all parts at once.
    shape = (rows if a == BATCH else n for a, n in zip(spec.axes, sizes, strict=True))
    return dataclasses.replace(spec, shape=tuple(shape))


def sizes_by_axis(
    spec: InputSpec, manifest: Manifest, feeds: Mapping[str, Array]
) -> dict[str, int]:
    """Returns the sizes of axes of groups, as far as inputs tell them.

    They are those of the first input with the most of these axes: what is looked up of one may
    have an axis more than it. Where inputs are explained by groups, those alone are asked.
    """

    def shared(one: InputSpec) -> int:
        return len(set(spec.axes) & set(one.axes))

    by_groups = {p["probe"] for p in manifest.probes if p.get(spec.name) == "input"}
    explained = {o.input for o in manifest.explanations if o.kind in by_groups}
    own = [one for one in manifest.inputs if one.name in explained]
    like = max(own or manifest.inputs, key=shared)
    return dict(zip(like.axes, feeds[like.name].shape, strict=True))
