"""What comes out for some samples: one record for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from probegen.artefact.manifest import Manifest, OutputSpec
from probegen.artefact.rows import without_batch
from probegen.runtime.inputs import Array

#: Columns that are not outputs: the sample's name, why it has no outputs, and what was explained.
SAMPLE, ERROR, TARGET = "sample", "error", "target"


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of neighbouring samples.

    Attributes:
        start: the number of the first sample.
        samples: their names.
        errors: for each the reason why it has no outputs, None where it has.
        targets: the class that each was explained for, -1 for the one that the model chose; None
            where the artefact takes no target.
        values: for each output the array of each sample without the batch axis, None where it has
            none.
    """

    start: int
    samples: list[str]
    errors: list[str | None]
    targets: list[int] | None
    values: dict[str, list[Array | None]]

    @property
    def stop(self) -> int:
        """The number after that of the last sample."""
        return self.start + len(self.samples)


def as_text(found: str) -> str:
    """Returns text that can be written: bytes of a file's name that are no UTF-8 as `\\xff`."""
    return found.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def joined(parts: Sequence[Records]) -> Records:
    """Returns records that follow each other as one."""
    first = parts[0]
    return Records(
        first.start,
        [name for part in parts for name in part.samples],
        [why for part in parts for why in part.errors],
        None if first.targets is None else [t for part in parts for t in part.targets or ()],
        {name: [v for part in parts for v in part.values[name]] for name in first.values},
    )


def sample_shape(spec: OutputSpec) -> tuple[int | None, ...]:
    """Returns the sizes of an output of one sample, None where a size is open."""
    return without_batch(spec.shape, spec.axes)


def described(spec: OutputSpec) -> dict[str, Any]:
    """Returns what is told of an output beside its values."""
    return {
        "shape": list(sample_shape(spec)),
        "axes": list(without_batch(spec.axes, spec.axes)),
        "kind": spec.kind,
        "title": spec.title,
        "unit": spec.unit,
        "layer": spec.layer,
    }


def own_names(manifest: Manifest) -> tuple[str, str, str | None]:
    """Returns what the columns of samples, errors and targets are called.

    With `@` before it where an output has the name; None where the artefact takes no target.
    """
    taken = {spec.name for spec in manifest.outputs}
    sample, error, target = (f"@{c}" if c in taken else c for c in (SAMPLE, ERROR, TARGET))
    return sample, error, target if manifest.target_input else None
