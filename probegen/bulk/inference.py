"""Runs an artefact on samples that were read, and makes a record of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from probegen.artefact.manifest import TARGET_INPUT, InputSpec, Manifest, OutputSpec
from probegen.artefact.rows import batch_axis, fixed_batch, rows_first
from probegen.bulk.inputs.base import Block, Samples
from probegen.bulk.records import Records, as_text
from probegen.errors import ArtefactError, InputError
from probegen.runtime.feeds import Feeds
from probegen.runtime.groups import check_groups
from probegen.runtime.inputs import Array
from probegen.runtime.loaded import Artefact
from probegen.runtime.read import as_given
from probegen.runtime.read.ranges import scaled
from probegen.runtime.region import check_region
from probegen.runtime.target import Target, check_target
from probegen.text import amount


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked of every sample; see `Artefact.run`.

    Attributes:
        target: the class to explain, one for all.
        explain: whether explanations are computed.
        check_finite: whether samples with NaN or infinity are refused.
        scale: multiplies the values of floating inputs.
        groups: the group of each position, one array for all.
        region: what each position of the output counts, one array for all.
        outputs: names of those that are written; all there are where it is None.
    """

    target: Target | None = None
    explain: bool = True
    check_finite: bool = False
    scale: float | None = None
    groups: Array | None = None
    region: Array | None = None
    outputs: tuple[str, ...] | None = None


def check_asked(asked: Asked, manifest: Manifest) -> tuple[OutputSpec, ...]:
    """Returns the outputs that are written.

    Raises:
        InputError: an output is unknown or belongs to no sample, or another wish does not fit.
    """
    if asked.target is not None and not isinstance(asked.target, int | str):
        raise InputError("a bulk run takes one target for all samples: a class index or a name.")
    check_target(asked.target, manifest, 1)
    if asked.groups is not None and manifest.groups_input is None:
        check_groups(asked.groups, manifest, {}, asked.explain)
    if asked.groups is None and manifest.groups_input is not None and asked.explain:
        raise InputError(
            "the artefact takes groups: one array for all samples, the group of each position "
            "(--groups); or compute the prediction alone (--no-explain)."
        )
    if asked.region is not None and manifest.region_input is None:
        check_region(asked.region, manifest, {})
    groups, region = manifest.groups_input, manifest.region_input
    for name, given, axes in (
        ("groups", asked.groups, groups and groups.axes),
        ("region", asked.region, region and region.axes),
    ):
        if given is not None and axes and given.ndim != len(axes) - 1:
            raise InputError(
                f"{name} of a bulk run are one array for all samples, without the batch axis; got "
                f"the shape {given.shape}."
            )
    if asked.scale is not None:
        scaled({}, manifest.inputs, asked.scale)
    there = manifest.outputs if asked.explain else manifest.predictions
    known = {spec.name: spec for spec in there}
    for name in asked.outputs or ():
        if name not in known:
            raise InputError(f"there is no output {name!r}: choose of {', '.join(known)}.")
    wanted = tuple(s for s in there if asked.outputs is None or s.name in asked.outputs)
    for spec in wanted:
        if batch_axis(spec.axes) is None:
            raise InputError(
                f"the output {spec.name!r} has no batch axis, so that no sample has a record of "
                "it; name the outputs that are to be written (--output)."
            )
    return wanted


class Inference:
    """An artefact, and what is asked of it.

    Attributes:
        manifest: of the artefact.
        outputs: those that are written.
        fixed_batch: how many samples the artefact takes at a time, None where any number.
    """

    def __init__(self, artefact: Artefact, asked: Asked) -> None:
        """Checks what is asked; see `check_asked`."""
        self._artefact, self._asked = artefact, asked
        self.manifest = artefact.manifest
        self.outputs = check_asked(asked, self.manifest)
        self.fixed_batch = fixed_batch(self.manifest.inputs)

    def scaled(self, samples: Samples) -> Samples:
        """Returns samples with their values multiplied, where a scale was asked for."""
        scale, specs = self._asked.scale, self._artefact.inputs
        if scale is None:
            return samples
        blocks = [
            Block(block.rows, dict(scaled(block.feed, specs, scale)))  # type: ignore[arg-type]
            for block in samples.blocks
        ]
        return Samples(blocks, samples.errors)

    def records(self, start: int, names: list[str], samples: Samples) -> Records:
        """Returns the records of some samples.

        Args:
            start: the number of the first.
            names: of all of them.
            samples: what was read of them, scaled.

        Raises:
            InputError: what is asked does not fit the samples.
            ArtefactError: the engine failed, or its outputs are not of so many samples.
        """
        errors: list[str | None] = [None] * len(names)
        for row, why in samples.errors.items():
            errors[row] = as_text(why)
        takes_target = self.manifest.target_input
        found = Records(
            start,
            [as_text(name) for name in names],
            errors,
            [-1] * len(names) if takes_target else None,
            {spec.name: [None] * len(names) for spec in self.outputs},
        )
        for block in samples.blocks:
            self._run(block, found)
        return found

    def _run(self, block: Block, found: Records) -> None:
        """Fills in the records of a block."""
        feed = dict(block.feed)
        rows = list(block.rows)
        try:
            feeds = self._prepared(feed, len(rows))
        except InputError:
            if self._wrong(feed, len(rows)) is None:
                raise  # it is what was asked that does not fit
            good = []
            for place, row in enumerate(rows):
                one = self._some(feed, [place])
                wrong = self._wrong(one, 1)
                if wrong is None:
                    good.append(place)
                else:
                    found.errors[row] = wrong
            if not good:
                return
            feeds = self._prepared(self._some(feed, good), len(good))
            rows = [rows[place] for place in good]
        outputs = self._artefact.compute(feeds, [spec.name for spec in self.outputs])
        target = feeds.asked.get(TARGET_INPUT)
        for spec in self.outputs:
            values = rows_first(outputs[spec.name], spec.axes)
            if len(values) != (self.fixed_batch or len(rows)):
                raise ArtefactError(
                    f"the output {spec.name!r} has {amount(len(values), 'entry')} for "
                    f"{amount(len(rows), 'sample')}."
                )
            for row, value in zip(rows, values, strict=False):
                found.values[spec.name][row] = value
        if found.targets is not None and target is not None:
            for row, chosen in zip(rows, target, strict=False):
                found.targets[row] = int(chosen)

    def _wrong(self, feed: dict[str, Array], rows: int) -> str | None:
        """Returns why samples cannot be fed, None where they can."""
        try:
            self._artefact.prepare(
                self._filled(feed, rows), explain=False, check_finite=self._asked.check_finite
            )
        except InputError as error:
            return str(error)
        return None

    def _prepared(self, feed: dict[str, Array], rows: int) -> Feeds:
        asked = self._asked
        return self._artefact.prepare(
            self._filled(feed, rows),
            target=asked.target,
            explain=asked.explain,
            check_finite=asked.check_finite,
            groups=asked.groups,
            region=asked.region,
        )

    def _filled(self, feed: dict[str, Array], rows: int) -> dict[str, Array]:
        """Returns samples, with the last one repeated where an artefact takes a fixed number."""
        if self.fixed_batch is None or rows == self.fixed_batch:
            return feed
        return self._some(feed, [min(row, rows - 1) for row in range(self.fixed_batch)])

    def _some(self, feed: dict[str, Array], places: Sequence[int]) -> dict[str, Array]:
        """Returns some samples of a feed."""
        return {
            spec.name: _taken(feed[spec.name], spec, places)
            for spec in as_given(self.manifest)
            if spec.name in feed
        }


def _taken(array: Array, spec: InputSpec, places: Sequence[int]) -> Array:
    at = batch_axis(spec.axes)
    return array if at is None else np.take(array, places, axis=at)
