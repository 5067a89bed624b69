"""Names for the features of an artefact's inputs, which its manifest keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Sized
from typing import Any

from probegen.artefact.features import feature, wrong_features
from probegen.artefact.manifest import InputSpec, Manifest
from probegen.artefact.rows import without_batch
from probegen.errors import InputError, did_you_mean
from probegen.runtime.axes import features_axis
from probegen.text import amount

#: How many features inputs have, by name; None for any number. Inputs without are left out.
Counts = Mapping[str, int | None]


def named(given: Any, manifest: Manifest) -> Manifest:
    """Returns a manifest whose inputs name their features.

    Args:
        given: a list with a name for each feature of the one input that has as many (`"load"`,
            `"load [MW]"`, or a pair of name and unit); or a dict of these by input name.
        manifest: of the artefact.

    Raises:
        InputError: a name stands twice, or the names fit no input, or several.
    """
    counts = _counts(manifest.inputs)
    by_name = given
    if not isinstance(given, Mapping):
        _check(given, "")
        by_name = {fitting_input(given, counts): given}
    known = [spec.name for spec in manifest.inputs]
    for name, names in by_name.items():
        if name not in known:
            raise InputError(
                f"feature_names has the key {name!r}, which is no input."
                f"{did_you_mean(str(name), known)}"
            )
        _check(names, f"the input {name!r}: ")
        check_count(names, name, counts)
    inputs = tuple(
        dataclasses.replace(spec, features=tuple(map(feature, by_name[spec.name])))
        if spec.name in by_name
        else spec
        for spec in manifest.inputs
    )
    return manifest.replace(inputs=inputs)


def check_count(names: Sized, name: str, counts: Counts) -> None:
    """Checks names against the features of one input.

    Args:
        names: one a feature.
        name: of the input.
        counts: how many features inputs have.

    Raises:
        InputError: it has none, or another number.
    """
    if name not in counts:
        raise InputError(f"feature_names names features of {name!r}, which has none.")
    if counts[name] not in (None, len(names)):
        raise InputError(
            f"feature_names has {amount(len(names), 'entry')} for the input {name!r}, which has "
            f"{counts[name]} features."
        )


def fitting_input(names: Sized, counts: Counts) -> str:
    """Returns the name of the one input that has as many features as there are names.

    Raises:
        InputError: none has, or several have.
    """
    able = [name for name, count in counts.items() if count in (None, len(names))]
    if len(able) == 1:
        return able[0]
    has = ", ".join(f"{n!r} has {'any number' if c is None else c}" for n, c in counts.items())
    what = "several inputs have" if able else "no input has"
    remedy = f" Say which one is meant: feature_names={{{able[0]!r}: [...]}}." if able else ""
    raise InputError(
        f"feature_names has {amount(len(names), 'entry')}, and {what} that many features "
        f"({has or 'none has features'}).{remedy}"
    )


def _counts(inputs: Sequence[InputSpec]) -> Counts:
    found = {}
    for spec in inputs:
        axis = features_axis(without_batch(spec.axes, spec.axes))
        if axis is not None:
            found[spec.name] = without_batch(spec.shape, spec.axes)[axis]
    return found


def _check(names: Any, of: str) -> None:
    wrong = wrong_features(names)
    if wrong is not None:
        raise InputError(f"{of}{wrong}")
