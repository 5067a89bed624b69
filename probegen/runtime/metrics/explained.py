"""An attribution of one run with what a metric needs beside it."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import OutputSpec
from probegen.artefact.rows import as_described, rows_first
from probegen.errors import InputError
from probegen.runtime.inputs import Array, Inputs
from probegen.runtime.loaded import Artefact
from probegen.runtime.outputs import named_output
from probegen.runtime.positions import Positions, explained_input
from probegen.runtime.request import Request
from probegen.runtime.result import Result
from probegen.runtime.scores import Score, score_of


@dataclasses.dataclass(frozen=True, eq=False)
class Explained:
    """An attribution of some samples.

    Attributes:
        artefact: what gave it.
        spec: the attribution's entry in the manifest.
        result: of the samples as they are.
        request: what was asked for beside the inputs.
    """

    artefact: Artefact
    spec: OutputSpec
    result: Result
    request: Request

    @classmethod
    def of(cls, artefact: Artefact, inputs: Inputs, output: str, request: Request) -> Explained:
        """Runs an artefact.

        Raises:
            InputError: there is no such attribution, what is fed does not fit or is not finite, or
                the attribution is not finite.
            ArtefactError: the engine failed.
        """
        spec = attribution(artefact, output)
        result = artefact.run(inputs, check_finite=True, **request)
        found = cls(artefact, spec, result, request)
        wrong = ~np.isfinite(rows_first(found.array, spec.axes))
        if wrong.any():
            row = int(np.flatnonzero(wrong.reshape(len(wrong), -1).any(1))[0])
            raise InputError(
                f"the output {output!r} has {int(wrong.sum())} values that are not finite, the "
                f"first for sample {row}; they cannot be ranked or compared. Leave the sample out."
            )
        return found

    @property
    def array(self) -> Array:
        """The attribution."""
        return self.result[self.spec.name].array

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return self.result.run.rows

    @functools.cached_property
    def positions(self) -> Positions:
        """Those of the input that is explained."""
        return Positions.of(explained_input(self.spec, self.artefact.inputs))

    @property
    def value(self) -> Array:
        """What was fed to the input that is explained, rows first."""
        spec = self.positions.spec
        return rows_first(self.result.run.inputs[spec.name], spec.axes)

    def map(self) -> Array:
        """Returns one number a position, float64 `[batch, ...positions]`."""
        positions = self.positions
        fed = self.result.run.inputs[positions.spec.name]
        return positions.map_of(self.spec, self.array, positions.sizes(fed))

    def fed_with(self, value: Array) -> dict[str, Array]:
        """Returns the inputs with another value, rows first, of the one that is explained."""
        spec = self.positions.spec
        changed = as_described(value, spec.axes)
        return {**self.result.run.inputs, spec.name: changed.astype(spec.dtype, copy=False)}

    @functools.cached_property
    def score(self) -> Score:
        """The score that is explained, of the classes of the samples as they are.

        Raises:
            InputError: no prediction tells it.
        """
        run = self.result.run
        return score_of(self.spec, run.manifest, self.result.predictions, run.target, run.region)

    def scores(self, value: Array | None = None) -> Array:
        """Returns the score that is explained, float64 `[batch]`.

        Args:
            value: what is fed in the place of the input that is explained, rows first; the classes
                stay those of the samples as they are.
        """
        score = self.score
        if value is None:
            return score.of(self.result)
        target = self.result.run.target
        return score.of(self.artefact.run(self.fed_with(value), target=target, explain=False))

    def attribution_at(self, value: Array) -> Array:
        """Returns the attribution of changed samples, rows first, for the classes as they were.

        An artefact whose target is `"argmax"` explains what it then decides for.
        """
        target = self.result.run.target
        if target is not None and (target < 0).any():
            classes = self.score.classes()
            target = target if classes is None else classes.astype(np.int32)
        asked: Request = {**self.request, "target": target}
        again = self.artefact.run(self.fed_with(value), **asked)
        return rows_first(again[self.spec.name].array, self.spec.axes)


def attribution(artefact: Artefact, output: str) -> OutputSpec:
    """Returns the manifest's entry of an attribution.

    Raises:
        InputError: there is none of this name.
    """
    able = [spec for spec in artefact.outputs if spec.is_attribution]
    return named_output(artefact, output, able, "is no attribution.", "It has no attribution.")


def changes_of(
    given: npt.ArrayLike, explained: Explained, name: str = "perturbations"
) -> npt.NDArray[np.float64]:
    """Returns changes of the explained input that a caller spelt out, `[change, batch, ...]`.

    Args:
        given: `[change, ...sample]` for all samples alike, or `[change, batch, ...sample]`.
        explained: the attribution.
        name: what the argument is called.

    Raises:
        InputError: the shape fits no sample, or they are not finite.
    """
    try:
        changes = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is no array of numbers: {error}.") from error
    shape = explained.value.shape
    if changes.ndim and changes.shape[1:] == shape[1:]:
        changes = changes[:, np.newaxis]
    fits = changes.ndim == 1 + len(shape) and changes.shape[2:] == shape[1:]
    if not fits or changes.shape[1] not in (1, shape[0]) or not len(changes):
        raise InputError(
            f"{name} has the shape {changes.shape}; expected [n, {', '.join(map(str, shape[1:]))}] "
            f"for all samples alike, or [n, {', '.join(map(str, shape))}]."
        )
    if not np.isfinite(changes).all():
        raise InputError(f"{name} holds values that are not finite.")
    return np.broadcast_to(changes, (len(changes), *shape))


def floating(explained: Explained, what: str) -> None:
    """Raises an InputError where the explained input holds ids, to which nothing can be added."""
    spec = explained.positions.spec
    if spec.preprocessing is not None:
        raise InputError(
            f"{what} adds small changes to what is explained, and {spec.name!r} takes pictures, of "
            "which the artefact makes that first. Use deletion or insertion, or compile the model "
            "without preprocess=."
        )
    whole = spec.integer or spec.vocabulary is not None or not spec.dtype.startswith("float")
    if whole:
        raise InputError(
            f"{what} adds small changes to the input, and {spec.name!r} ({spec.dtype}) holds whole "
            "numbers. Use deletion or insertion, which put another value in their place."
        )
