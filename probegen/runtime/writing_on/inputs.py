"""Which inputs of an artefact take what, and what texts of one length are as inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from probegen.artefact.manifest import InputSpec
from probegen.artefact.rows import BATCH
from probegen.artefact.texts import IDS, MASK, SEGMENTS, TextSpec
from probegen.errors import InputError
from probegen.runtime.inputs import Array
from probegen.runtime.loaded import Artefact
from probegen.runtime.states import open_axis
from probegen.runtime.texts import Tokenizer
from probegen.runtime.texts.base import NAMED_FOR, takes_whole_numbers
from probegen.text import amount

LEFT, RIGHT = "left", "right"
#: What says at which place a token stands.
_POSITIONS = "positions"


@dataclasses.dataclass(frozen=True)
class TokenInputs:
    """Which inputs take what.

    Attributes:
        ids: the input of the ids.
        masks: the inputs that say which tokens count.
        segments: the inputs that say which text they belong to.
        positions: the inputs that say at which place each token stands.
        states: the inputs that say what came before.
        text: the text that makes them, where the artefact takes one.
        tokenizer: of that text.
        side: where a text that is shorter than the model's inputs is padded.
    """

    ids: InputSpec
    masks: tuple[InputSpec, ...]
    segments: tuple[InputSpec, ...]
    positions: tuple[InputSpec, ...]
    states: tuple[InputSpec, ...]
    text: TextSpec | None
    tokenizer: Tokenizer | None
    side: str

    @classmethod
    def of(cls, artefact: Artefact, side: str | None) -> TokenInputs:
        """Returns those of an artefact.

        Args:
            artefact: takes the ids of one text.
            side: where it pads, None where that is not said.

        Raises:
            InputError: it takes something else, or there is no such side.
        """
        if side not in (None, LEFT, RIGHT):
            raise InputError(f"padding is 'left' or 'right', got {side!r}.")
        texts = [
            (spec, tokenizer)
            for spec, tokenizer in zip(artefact.texts.specs, artefact.texts.tokenizers, strict=True)
            if tokenizer.words
        ]
        if len(texts) > 1:
            raise InputError("the artefact takes several texts; only one can be continued.")
        text, tokenizer = texts[0] if texts else (None, None)
        made = {} if text is None else {into: what for what, into in text.makes.items()}
        kinds: dict[str, list[InputSpec]] = {
            kind: [] for kind in (IDS, MASK, SEGMENTS, _POSITIONS, "")
        }
        for spec in artefact.inputs:
            if spec.next_state is None:
                kinds[made.get(spec.name) or _guessed(spec)].append(spec)
        if len(kinds[IDS]) != 1 or kinds[""]:
            shown = ", ".join(
                f"{s.name!r} ({s.dtype}, {amount(len(s.shape), 'axis')})" for s in artefact.inputs
            )
            raise InputError(
                "only artefacts that take the ids of one text, with masks and segments at most, "
                f"can continue a text; this one takes {shown}."
            )
        return cls(
            kinds[IDS][0],
            tuple(kinds[MASK]),
            tuple(kinds[SEGMENTS]),
            tuple(kinds[_POSITIONS]),
            tuple(spec for spec in artefact.inputs if spec.next_state is not None),
            text,
            tokenizer,
            side or RIGHT,
        )

    @property
    def size(self) -> int | None:
        """How many tokens the model is always fed, None where any number."""
        return self.ids.shape[-1]

    @property
    def batch(self) -> int | None:
        """How many samples the model is always fed, None where any number."""
        return next(
            (n for n, a in zip(self.ids.shape, self.ids.axes, strict=True) if a == BATCH), None
        )

    @property
    def tells_padding(self) -> bool:
        """Tells whether the model is told which tokens are none."""
        return bool(self.masks) or self.ids.padding is not None

    @property
    def filler(self) -> int:
        """The id that stands where there is no token."""
        told = self.ids.padding
        return int(told.values[0]) if told is not None and told.input == self.ids.name else 0

    @property
    def grows(self) -> bool:
        """Tells whether a state has an entry for each token before: a cache."""
        return any(open_axis(spec) is not None for spec in self.states)

    @property
    def longest(self) -> int | None:
        """How many tokens there may be in all, None where any number."""
        told = [spec.longest for spec in (self.ids, *self.states) if spec.longest is not None]
        return self.size or min(told, default=None)

    def feed(self, rows: Sequence[Sequence[int]], before: int = 0) -> dict[str, Array]:
        """Returns texts of one length as inputs; of any length where the size is fixed.

        Args:
            rows: their ids, those that the states do not know of.
            before: how many tokens these know of.
        """
        width = self.size or len(rows[0])
        ids = np.full((len(rows), width), self.filler, np.int64)
        there = np.zeros((len(rows), width), np.bool_)
        for place, row in enumerate(rows):
            where = self.span(len(row), width)
            ids[place, where], there[place, where] = row, True
        places = before + np.maximum(np.cumsum(there, axis=1) - 1, 0)
        covered = there
        if before and self.grows:  # masks are of all tokens that attention sees
            covered = np.concatenate([np.ones((len(rows), before), np.bool_), there], axis=1)
        feed = {self.ids.name: ids.astype(self.ids.dtype)}
        feed |= {spec.name: covered.astype(spec.dtype) for spec in self.masks}
        feed |= {spec.name: places.astype(spec.dtype) for spec in self.positions}
        return feed | {spec.name: np.zeros_like(ids).astype(spec.dtype) for spec in self.segments}

    def span(self, length: int, width: int) -> slice:
        """Returns where the tokens of a text stand among those that are fed."""
        start = width - length if self.side == LEFT else 0
        return slice(start, start + length)


def _guessed(spec: InputSpec) -> str:
    if len(spec.shape) != 2:
        return ""
    name = spec.name.lower()
    named: Mapping[str, Sequence[str]] = {**NAMED_FOR, _POSITIONS: ("position",)}
    for what, words in named.items():
        if any(word in name for word in words):
            return what
    return IDS if takes_whole_numbers(spec) else ""
