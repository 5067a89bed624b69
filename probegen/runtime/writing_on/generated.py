"""A text that was written on, token by token, and what each new token was made of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from probegen.errors import ArtefactError, InputError, did_you_mean
from probegen.runtime.inputs import Array
from probegen.runtime.result import Result
from probegen.stages import stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What to compile, for messages.
SUCH_AS = "pg.GradientXInput(target='argmax', region='input', per_token='dot')"


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
    """

    prompt: list[int]
    ids: list[int]
    tokens: list[str]
    text: str
    scores: list[float]
    rows: Mapping[str, Array]
    result: Result | None
    attention: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def new_tokens(self) -> list[str]:
        """How each new token reads."""
        return self.tokens[len(self.prompt) :]

    def words(self, step: int, output: str | None = None) -> list[tuple[str, float]]:
        """Returns each token before a new one with what an attribution gives it for that one.

        Args:
            step: which of the new tokens; negative counts from the end.
            output: the attribution, or the attention weights; may be left out where there is one.

        Raises:
            InputError: there is no such step or attribution.
        """
        row = self.rows_of(output)
        if not -len(row) <= step < len(row):
            raise InputError(f"there is no step {step}: {len(row)} tokens were written.")
        known = len(self.prompt) + step % len(row)
        return list(zip(self.tokens[:known], row[step, :known].tolist(), strict=True))

    def plot(self, path: str | os.PathLike[str] | None = None, output: str | None = None) -> Figure:
        """Draws what the attribution gives each token (across) for each new token (down).

        Args:
            path: where to write it, if anywhere; the suffix decides the format.
            output: the attribution, or the attention weights; may be left out where there is one.

        Raises:
            InputError: there is no such attribution, or the suffix is unknown.
        """
        from probegen.runtime import plot

        name = self._output(output)
        with stage(f"{name!r} cannot be drawn", ArtefactError):
            assert self.result is not None
            spec = self.result.manifest.output(name)
            figure = plot.generated_figure(spec, self.rows_of(name), self.tokens, len(self.prompt))
            if path is not None:
                plot.save(figure, path)
            return figure

    def to_html(self, path: str | os.PathLike[str], output: str | None = None) -> Path:
        """Writes one self-contained page: the picture, and each new token with its row.

        Args:
            path: where.
            output: the attribution, or the attention weights; left out, all that there are.

        Raises:
            InputError: there is no such attribution, or nothing was written.
            FileNotFoundError: the folder of `path` does not exist.
        """
        from probegen.runtime import generated_report

        every = [*self.rows, *self.attention]
        names = [self._output(output)] if output is not None or not every else every
        if self.result is None or not self.ids:
            raise InputError("no token was written, so that there is nothing to show.")
        return generated_report.write([self], path, names)

    def rows_of(self, output: str | None = None) -> Array:
        """Returns the rows of an attribution, or of attention weights, `[step, token]`.

        Args:
            output: which; may be left out where there is one.

        Raises:
            InputError: there is no such output.
        """
        name = self._output(output)
        return {**self.attention, **self.rows}[name]

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
        return f"<Generated {self.new_tokens!r} after {len(self.prompt)} tokens: {names}>"
