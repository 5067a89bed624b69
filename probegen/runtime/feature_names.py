"""Names for the features of an artefact's inputs, which its manifest keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from probegen.artefact.features import feature, wrong_features
from probegen.artefact.manifest import InputSpec, Manifest
from probegen.artefact.rows import without_batch
from probegen.errors import InputError, did_you_mean
from probegen.runtime.axes import FEATURES, SEQUENCE, axis_of


def named(given: Any, manifest: Manifest) -> Manifest:
    """Returns a manifest whose inputs name their features.

    Args:
        given: a list with a name for each feature of the one input that has as many (`"load"`,
            `"load [MW]"`, or a pair of name and unit); or a dict of these by input name.
        manifest: of the artefact.

    Raises:
        InputError: a name stands twice, or the names fit no input, or several.
    """
    by_name = given if isinstance(given, Mapping) else {_fitting(given, manifest.inputs): given}
    known = [spec.name for spec in manifest.inputs]
    for name, names in by_name.items():
        if name not in known:
            raise InputError(
                f"feature_names has the key {name!r}, which is no input."
                f"{did_you_mean(str(name), known)}"
            )
        _check(names, next(spec for spec in manifest.inputs if spec.name == name))
    inputs = tuple(
        dataclasses.replace(spec, features=tuple(map(feature, by_name[spec.name])))
        if spec.name in by_name
        else spec
        for spec in manifest.inputs
    )
    return manifest.replace(inputs=inputs)


def feature_count(spec: InputSpec) -> tuple[bool, int | None]:
    """Returns whether an input has features (of a row or of a series), and how many if known."""
    axes = without_batch(spec.axes, spec.axes)
    sizes = without_batch(spec.shape, spec.axes)
    axis = axis_of(axes, FEATURES)
    others = [a for a in axes if a not in (*FEATURES, *SEQUENCE)]
    return (False, None) if axis is None or others else (True, sizes[axis])


def _fitting(names: Any, inputs: Sequence[InputSpec]) -> str:
    wrong = wrong_features(names)
    if wrong is not None:
        raise InputError(wrong)
    counts = {spec.name: feature_count(spec) for spec in inputs}
    able = [n for n, (has, count) in counts.items() if has and count in (None, len(names))]
    if len(able) == 1:
        return able[0]
    has_some = ", ".join(f"{n!r} has {c or 'any number'}" for n, (has, c) in counts.items() if has)
    what = "several inputs have" if able else "no input has"
    remedy = f" Say which: feature_names={{{able[0]!r}: [...]}}." if able else ""
    raise InputError(
        f"feature_names has {len(names)} entries, and {what} that many features "
        f"({has_some or 'none has features'}).{remedy}"
    )


def _check(names: Any, spec: InputSpec) -> None:
    wrong = wrong_features(names)
    if wrong is not None:
        raise InputError(f"the input {spec.name!r}: {wrong}")
    has, count = feature_count(spec)
    if not has:
        raise InputError(f"feature_names names features of {spec.name!r}, which has none.")
    if count not in (None, len(names)):
        raise InputError(
            f"feature_names has {len(names)} entries for the input {spec.name!r}, which has "
            f"{count} features."
        )
