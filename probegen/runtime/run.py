"""The facts of a run, and the interface that pictures and reports are drawn through.

Records and results draw themselves by way of `probegen.runtime.plot` and `probegen.runtime.report`.
Those two know nothing of them but what stands here, so that imports go one way.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any, Protocol

import numpy as np

from probegen.artefact.manifest import Manifest, OutputSpec
from probegen.artefact.rows import count_rows
from probegen.runtime.completeness import Completeness
from probegen.runtime.inputs import Array
from probegen.runtime.texts import Texts
from probegen.runtime.texts.whole_words import Word


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What was run on what: all that a picture of a record needs beside the record.

    Attributes:
        manifest: the artefact's decode table.
        inputs: what was fed, by input name.
        target: what was differentiated, int32 `[batch]`, where the artefact takes a target.
        source: path of the artefact.
        region: what positions of the output counted, float32 `[batch, ...positions]`, where the
            artefact takes a region.
        texts: what took texts apart; made of the manifest where it is left out.
        time: what stands at each step of a series, for pictures; None where nobody said.
    """

    manifest: Manifest
    inputs: Mapping[str, Array]
    target: Array | None
    source: str
    region: Array | None = None
    texts: Texts | None = dataclasses.field(default=None, repr=False)
    time: Any = dataclasses.field(default=None, repr=False)

    @functools.cached_property
    def tokens(self) -> dict[str, list[list[str]]]:
        """How the ids read that were fed, by input, a list a sample; padding is left out."""
        return self._taken_apart.tokens(self.inputs)

    def whole_words(self, name: str, sample: int) -> list[Word]:
        """Returns the words that the tokens of one sample of an input make up."""
        return self._taken_apart.whole_words(name, self.inputs[name][sample])

    @functools.cached_property
    def features(self) -> dict[str, list[str]]:
        """The words that are counted, by the input that counts them."""
        return self._taken_apart.features()

    @functools.cached_property
    def _taken_apart(self) -> Texts:
        """What took texts apart, whose tokenizers are opened once."""
        return self.texts or Texts(self.manifest)

    @property
    def rows(self) -> int:
        """The number of samples; 1 where no input has a batch axis."""
        return count_rows(self.inputs, [s for s in self.manifest.inputs if s.name in self.inputs])


class DrawableRecord(Protocol):
    """One output of a run: see `probegen.runtime.result.Record`."""

    @property
    def array(self) -> Array:
        """The values, the batch axis first."""

    @property
    def spec(self) -> OutputSpec:
        """The manifest's entry."""

    @property
    def predictions(self) -> Mapping[str, Array]:
        """The predictions of the same run, by output name."""

    @property
    def run(self) -> Run:
        """What was run on what."""

    @property
    def classes(self) -> Array | None:
        """The classes that it explains, `[batch, k]`, where these are several at once."""

    @property
    def keys(self) -> Array | None:
        """Where the largest attention weights stand, where it holds these alone."""

    @property
    def completeness(self) -> Completeness | None:
        """What is missing to completeness, where the artefact says it."""

    @property
    def name(self) -> str:
        """The output's name in the artefact."""

    @property
    def axes(self) -> tuple[str, ...]:
        """A name for each dimension of `array`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of `array`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type of `array`."""


class DrawableResult(Protocol):
    """All outputs of a run by name: see `probegen.runtime.result.Result`."""

    @property
    def run(self) -> Run:
        """What was run on what."""

    @property
    def manifest(self) -> Manifest:
        """The artefact's decode table."""

    @property
    def predictions(self) -> Mapping[str, DrawableRecord]:
        """The source model's own outputs."""

    @property
    def explanations(self) -> Mapping[str, DrawableRecord]:
        """All others."""

    def __iter__(self) -> Iterator[str]: ...

    def items(self) -> ItemsView[str, DrawableRecord]:
        """Names and records in the manifest's order."""

    def values(self) -> ValuesView[DrawableRecord]:
        """Records in the manifest's order."""
