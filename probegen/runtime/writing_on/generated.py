"""The result of `runtime.generate`: a text, and what each new token was made of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probegen.artefact.manifest import OutputSpec
from probegen.errors import ArtefactError, InputError, did_you_mean
from probegen.runtime.inputs import Array
from probegen.runtime.positions import joined_as
from probegen.runtime.result import Result
from probegen.runtime.texts import Tokenizer, words_of
from probegen.runtime.texts.whole_words import Word, guessed, join, without
from probegen.stages import stage
from probegen.text import amount

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What to compile, for messages.
SUCH_AS = "pg.GradientXInput(target='argmax', region='input', per_token='dot')"
_NOTHING = "no token was written, so that there is nothing to show."


@dataclasses.dataclass(frozen=True, eq=False)
class Generated:
    """What an artefact wrote.

    `str(generated)` is `text`; where there is none, how all ids read, those of the prompt first.

    Attributes:
        prompt: the ids of the prompt.
        ids: those of the new tokens.
        tokens: how each id reads, those of the prompt first.
        text: what was written, without the prompt; empty where the artefact has no tokenizer.
        scores: the prediction for each new token: its score, or its probability where the model
            ends in a softmax.
        rows: by attribution, float64 `[step, token]`: what it gives each token before the new one;
            NaN from the new token on.
        result: of the last run, in which other prompts may have had rows as well.
        attention: by output of attention weights over the tokens, float64 `[step, token]`: with
            which weights the newest token before the new one attended, the mean over the heads.
        tokenizer: what took the prompt apart, where the artefact takes text.
    """

    prompt: list[int]
    ids: list[int]
    tokens: list[str]
    text: str
    scores: list[float]
    rows: Mapping[str, Array]
    result: Result | None
    attention: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    tokenizer: Tokenizer | None = dataclasses.field(default=None, repr=False)

    @property
    def new_tokens(self) -> list[str]:
        """How each new token reads."""
        return self.tokens[len(self.prompt) :]

    def words(
        self, step: int, output: str | None = None, whole_words: bool = False
    ) -> list[tuple[str, float]]:
        """Returns each token before a new one with what an attribution gives it for that one.

        Args:
            step: which of the new tokens; negative counts from the end.
            output: the attribution, or the attention weights; may be left out where there is one.
            whole_words: join the pieces of words into words, and their numbers as `Record.words`
                does; of the word that the new token goes on with, the pieces before it.

        Raises:
            InputError: there is no such step or attribution.
        """
        name = self._output(output)
        row = self.rows_of(name)
        if not -len(row) <= step < len(row):
            raise InputError(f"there is no step {step} of {amount(len(row), 'token')} written.")
        step %= len(row)
        known = len(self.prompt) + step
        if not whole_words:
            return list(zip(self.tokens[:known], row[step, :known].tolist(), strict=True))
        words = self._words(known)
        values = join(row[step, :known], words, joined_as(self._spec(name)))
        return list(zip([word.text for word in words], values.tolist(), strict=True))

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        output: str | None = None,
        whole_words: bool = False,
    ) -> Figure:
        """Draws what the attribution gives each token (across) for each new token (down).

        Args:
            path: where to write it, if anywhere; the suffix decides the format.
            output: the attribution, or the attention weights; may be left out where there is one.
            whole_words: join the tokens across into words, and their numbers as `words` does. Down
                it stays a row for each new token, each of which has a score of its own.

        Raises:
            InputError: there is no such attribution, nothing was written, or the suffix is unknown.
        """
        from probegen.runtime import plot

        name = self._output(output)
        if not self.ids:
            raise InputError(_NOTHING)
        with stage(f"{name!r} cannot be drawn", ArtefactError):
            rows, before = self._across(name, whole_words)
            figure = plot.generated_figure(
                self._spec(name), rows, before, self.new_tokens, whole_words
            )
            if path is not None:
                plot.save(figure, path)
            return figure

    def to_html(
        self,
        path: str | os.PathLike[str],
        output: str | None = None,
        whole_words: bool = False,
    ) -> Path:
        """Writes one self-contained page: the picture, and each new token with its row.

        Args:
            path: where.
            output: the attribution, or the attention weights; left out, all that there are.
            whole_words: join the pieces of words into words; see `plot`.

        Raises:
            InputError: there is no such attribution, or nothing was written.
            FileNotFoundError: the folder of `path` does not exist.
        """
        from probegen.runtime import generated_report

        every = [*self.rows, *self.attention]
        names = [self._output(output)] if output is not None or not every else every
        if not self.ids:
            raise InputError(_NOTHING)
        return generated_report.write([self], path, names, whole_words)

    def rows_of(self, output: str | None = None) -> Array:
        """Returns the rows of an attribution, or of attention weights, `[step, token]`.

        Args:
            output: which; may be left out where there is one.

        Raises:
            InputError: there is no such output.
        """
        name = self._output(output)
        return {**self.attention, **self.rows}[name]

    def _spec(self, name: str) -> OutputSpec:
        assert self.result is not None  # as something was written
        return self.result.manifest.output(name)

    def _words(self, known: int) -> list[Word]:
        """Returns the words of the first `known` tokens."""
        if self.tokenizer is None:
            return guessed(self.tokens[:known])
        words = words_of(self.tokenizer, [*self.prompt, *self.ids][:known])
        # Ids at the end that the tokenizer takes for padding were written all the same.
        there = sum(len(word.places) for word in words)
        return [*words, *(Word(self.tokens[i], (i,)) for i in range(there, known))]

    def _across(self, name: str, whole_words: bool) -> tuple[Array, list[str]]:
        """Returns rows over the tokens (or words) before the last one, and how these read."""
        rows, count = self.rows_of(name), len(self.tokens)
        if not whole_words:
            return rows[:, :-1], self.tokens[:-1]
        words = self._words(count - 1)
        joined = np.full((len(rows), len(words)), np.nan)
        for step, row in enumerate(rows):
            there = without(words, range(len(self.prompt) + step, count))
            joined[step, : len(there)] = join(row, there, joined_as(self._spec(name)))
        return joined, [word.text for word in words]

    def _output(self, given: str | None) -> str:
        every = {**self.attention, **self.rows}
        usual = self.rows or self.attention
        if given is None and len(usual) == 1:
            return next(iter(usual))
        if given is None:
            has = ", ".join(map(repr, every)) or f"none: compile with {SUCH_AS}"
            raise InputError(f"say which attribution is meant; there is {has}.")
        if given not in every:
            raise InputError(f"there is no row of {given!r}.{did_you_mean(given, every)}")
        return given

    def __str__(self) -> str:
        return "".join(self.tokens) if not self.text else self.text

    def __repr__(self) -> str:
        names = ", ".join(self.rows) or "no attribution"
        return f"<Generated {self.new_tokens!r} after {amount(len(self.prompt), 'token')}: {names}>"
