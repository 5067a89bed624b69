"""Holds a manifest against the graph it came with: names, ranks, sizes and element types."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from probegen.artefact.manifest import GATE_INPUT, TARGET_INPUT, InputSpec, Manifest, OutputSpec
from probegen.errors import ArtefactError


@dataclasses.dataclass(frozen=True)
class Held:
    """An input or output of a graph.

    Attributes:
        dtype: numpy name of its element type.
        shape: its sizes, None where one is open; None where the rank is not known.
    """

    dtype: str
    shape: tuple[int | None, ...] | None


def expected_inputs(manifest: Manifest) -> list[InputSpec]:
    """Returns the inputs that the graph of an artefact has: the model's and probegen's own."""
    ours = []
    if manifest.target_input:
        batch = manifest.inputs[0].shape[:1]
        ours.append(InputSpec(TARGET_INPUT, "int32", batch, ("batch",)))
    if manifest.gate:
        ours.append(InputSpec(GATE_INPUT, "bool", (), ()))
    return [*manifest.inputs, *ours]


def check_interface(
    path: str,
    role: str,
    described: Iterable[InputSpec | OutputSpec],
    held: Mapping[str, Held],
    needed: Sequence[str] = (),
) -> None:
    """Raises where a manifest and its graph do not belong together.

    A size that either leaves open fits any; so does the first of an output, which need not be the
    batch (a model may fold its steps into it).

    Args:
        path: of the artefact.
        role: `"input"` or `"output"`.
        described: what the manifest says.
        held: what the graph has, by name.
        needed: names in the graph that the manifest must know.

    Raises:
        ArtefactError: a name is unknown, or rank, size or element type are others.
    """
    specs = {spec.name: spec for spec in described}
    advice = "The file was changed after probegen wrote it; compile it again."
    for name, spec in specs.items():
        if name not in held:
            raise ArtefactError(
                f"the manifest of {path!r} names the {role} {name!r}, which its graph "
                f"does not have (it has {', '.join(map(repr, held))}). {advice}"
            )
        found = held[name]
        says = f"the manifest of {path!r} says that the {role} {name!r}"
        if found.dtype != spec.dtype:
            raise ArtefactError(
                f"{says} is of type {spec.dtype}; in its graph it is of {found.dtype}. {advice}"
            )
        first = 1 if role == "output" else 0
        if found.shape is not None and not _fit(spec.shape, found.shape, first):
            raise ArtefactError(
                f"{says} has the shape {_shown(spec.shape)}; in its graph it has "
                f"{_shown(found.shape)}. {advice}"
            )
    for name in needed:
        if name not in specs:
            raise ArtefactError(
                f"the graph of {path!r} needs the {role} {name!r}, which its manifest does not "
                f"name. {advice}"
            )


def _fit(one: Sequence[int | None], other: Sequence[int | None], first: int) -> bool:
    pairs = zip(one[first:], other[first:], strict=False)
    return len(one) == len(other) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def _shown(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
