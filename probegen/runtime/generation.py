"""Writes a text on, token by token, and says of each new token what it was made of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probegen.artefact.manifest import REGION_INPUT, InputSpec, OutputSpec
from probegen.artefact.texts import IDS, MASK, SEGMENTS, TextSpec
from probegen.errors import ArtefactError, InputError, did_you_mean
from probegen.runtime.arguments import counted
from probegen.runtime.inputs import Array
from probegen.runtime.loaded import Artefact
from probegen.runtime.positions import Positions
from probegen.runtime.result import Result
from probegen.runtime.texts import Tokenizer, as_utf8, holds_text
from probegen.runtime.texts.base import NAMED_FOR, takes_whole_numbers
from probegen.stages import stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What to compile, for messages.
_SUCH_AS = "pg.GradientXInput(target='argmax', region='input', per_token='dot')"


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
        result: of the last run.
    """

    prompt: list[int]
    ids: list[int]
    tokens: list[str]
    text: str
    scores: list[float]
    rows: Mapping[str, Array]
    result: Result | None

    @property
    def new_tokens(self) -> list[str]:
        """How each new token reads."""
        return self.tokens[len(self.prompt) :]

    def words(self, step: int, output: str | None = None) -> list[tuple[str, float]]:
        """Returns each token before a new one with what an attribution gives it for that one.

        Args:
            step: which of the new tokens; negative counts from the end.
            output: the attribution; may be left out where there is one.

        Raises:
            InputError: there is no such step or attribution.
        """
        row = self.rows[self._output(output)]
        if not -len(row) <= step < len(row):
            raise InputError(f"there is no step {step}: {len(row)} tokens were written.")
        known = len(self.prompt) + step % len(row)
        return list(zip(self.tokens[:known], row[step, :known].tolist(), strict=True))

    def plot(self, path: str | os.PathLike[str] | None = None, output: str | None = None) -> Figure:
        """Draws what the attribution gives each token (across) for each new token (down).

        Args:
            path: where to write it, if anywhere; the suffix decides the format.
            output: the attribution; may be left out where there is one.

        Raises:
            InputError: there is no such attribution, or the suffix is unknown.
        """
        from probegen.runtime import plot

        name = self._output(output)
        with stage(f"{name!r} cannot be drawn", ArtefactError):
            assert self.result is not None
            spec = self.result.manifest.output(name)
            figure = plot.generated_figure(spec, self.rows[name], self.tokens, len(self.prompt))
            if path is not None:
                plot.save(figure, path)
            return figure

    def _output(self, given: str | None) -> str:
        if given is None and len(self.rows) == 1:
            return next(iter(self.rows))
        if given is None:
            has = ", ".join(map(repr, self.rows)) or f"none: compile with {_SUCH_AS}"
            raise InputError(f"say which attribution is meant; there is {has}.")
        if given not in self.rows:
            raise InputError(f"there is no row of {given!r}.{did_you_mean(given, self.rows)}")
        return given

    def __str__(self) -> str:
        return "".join(self.tokens) if not self.text else self.text

    def __repr__(self) -> str:
        names = ", ".join(self.rows) or "no attribution"
        return f"<Generated {self.new_tokens!r} after {len(self.prompt)} tokens: {names}>"


def generate(
    artefact: Artefact,
    prompt: str | Sequence[int] | Array,
    steps: int,
    *,
    output: str | None = None,
    stop: int | Collection[int] = (),
) -> Generated:
    """Writes a prompt on, each time by the likeliest next token, with an attribution row for each.

    The artefact is that of a model that predicts the next token at each position (`[batch, step,
    class]`) or behind the last (`[batch, class]`). Rows come of its attributions of the ids whose
    target is the token that is chosen: `target="argmax"` or `"input"`, with `region="input"`
    where there is a prediction for each position. One run a token, of the whole text so far.

    Args:
        artefact: loaded by `runtime.load`.
        prompt: a text, where the artefact takes text; or its ids, int `[token]`.
        steps: how many tokens to write.
        output: the prediction; may be left out where there is one.
        stop: ids at which to stop, which are not written.

    Raises:
        InputError: the artefact predicts no tokens, or has attributions of which none explains the
            token that is chosen (says what to compile); the prompt is empty, no text that it takes,
            or longer than it takes.
        ArtefactError: the engine failed, of a text that is longer than the model's positions, say.
    """
    inputs = _inputs_of(artefact)
    prediction = _prediction(artefact, output)
    explained = _explaining(artefact, prediction, inputs.ids)
    ids = _prompt(artefact, prompt, inputs)
    count, known = counted("steps", steps, 0), len(ids)
    ends = {stop} if isinstance(stop, int) else set(stop)
    size = inputs.ids.shape[-1] or inputs.ids.longest
    if size is not None and known + max(count - 1, 0) > size:
        raise InputError(
            f"the prompt has {known} tokens, and with {count} more there would be too many: the "
            f"model takes {size}."
        )
    scores: list[float] = []
    rows: dict[str, list[Array]] = {spec.name: [] for spec in explained}
    result: Result | None = None
    for step in range(count):
        try:
            result, chosen, score = _next(artefact, ids, inputs, prediction, explained)
        except ArtefactError as error:
            raise ArtefactError(
                f"after {len(ids)} tokens ({step} of them new) the artefact could not go on; the "
                f"model may take no more. {error}"
            ) from error
        if chosen in ends:
            break
        for spec in explained:
            rows[spec.name].append(_row(result, spec, inputs.ids, len(ids)))
        ids.append(chosen)
        scores.append(score)
    matrices = {name: _matrix(found, len(ids)) for name, found in rows.items()}
    tokenizer = inputs.tokenizer
    tokens = [str(i) for i in ids] if tokenizer is None else _each(tokenizer, ids)
    text = "" if tokenizer is None else tokenizer.decode(ids[known:])
    return Generated(ids[:known], ids[known:], tokens, text, scores, matrices, result)


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """Which inputs take what.

    Attributes:
        ids: the input of the ids.
        masks: the inputs that say which tokens count.
        segments: the inputs that say which text they belong to.
        text: the text that makes them, where the artefact takes one.
        tokenizer: of that text.
    """

    ids: InputSpec
    masks: tuple[InputSpec, ...]
    segments: tuple[InputSpec, ...]
    text: TextSpec | None
    tokenizer: Tokenizer | None


def _inputs_of(artefact: Artefact) -> _Inputs:
    texts = [
        (spec, tokenizer)
        for spec, tokenizer in zip(artefact.texts.specs, artefact.texts.tokenizers, strict=True)
        if tokenizer.words
    ]
    if len(texts) > 1:
        raise InputError("the artefact takes several texts; only one can be written on.")
    text, tokenizer = texts[0] if texts else (None, None)
    made = {} if text is None else {into: what for what, into in text.makes.items()}
    kinds: dict[str, list[InputSpec]] = {IDS: [], MASK: [], SEGMENTS: [], "": []}
    for spec in artefact.inputs:
        kinds[made.get(spec.name) or _guessed(spec)].append(spec)
    if len(kinds[IDS]) != 1 or kinds[""]:
        shown = ", ".join(f"{s.name!r} ({s.dtype}, {len(s.shape)} axes)" for s in artefact.inputs)
        raise InputError(
            "only artefacts that take the ids of one text, and masks and segments beside, write "
            f"on; this one takes {shown}."
        )
    return _Inputs(kinds[IDS][0], tuple(kinds[MASK]), tuple(kinds[SEGMENTS]), text, tokenizer)


def _guessed(spec: InputSpec) -> str:
    if len(spec.shape) != 2:
        return ""
    for what, words in NAMED_FOR.items():
        if any(word in spec.name.lower() for word in words):
            return what
    return IDS if takes_whole_numbers(spec) else ""


def _prediction(artefact: Artefact, output: str | None) -> OutputSpec:
    able = [p for p in artefact.manifest.predictions if len(p.shape) in (2, 3)]
    if output is not None:
        able = [p for p in able if p.name == output]
    if len(able) != 1:
        shown = ", ".join(f"{p.name!r} {list(p.axes)}" for p in artefact.manifest.predictions)
        raise InputError(
            "the artefact needs one prediction of the next token, [batch, step, class] or "
            f"[batch, class]; it has {shown}."
            + ("" if output is None else f" output={output!r} is none of them.")
        )
    return able[0]


def _explaining(artefact: Artefact, prediction: OutputSpec, ids: InputSpec) -> list[OutputSpec]:
    """Returns the attributions that explain the token that is chosen.

    Raises:
        InputError: there are attributions, and none of them does.
    """
    attributions = [
        spec
        for spec in artefact.manifest.explanations
        if spec.is_attribution and spec.input == ids.name and spec.target is not None
    ]
    found = [
        spec
        for spec in attributions
        if spec.target is not None
        and spec.target.mode in ("argmax", "input")
        and spec.target.output == prediction.name
        and (spec.target.region or len(prediction.shape) == 2)
    ]
    if attributions and not found:
        names = ", ".join(repr(spec.name) for spec in attributions)
        raise InputError(
            f"{names} explain other scores than that of the token which is chosen: compile with "
            f"{_SUCH_AS}."
        )
    return found


def _prompt(artefact: Artefact, prompt: Any, inputs: _Inputs) -> list[int]:
    if holds_text(prompt):
        if not isinstance(prompt, str | bytes):
            raise InputError("generate takes one prompt; call it once for each text.")
        if inputs.text is None or inputs.tokenizer is None:
            artefact.texts.given(prompt)  # says what to do
            raise InputError("the artefact takes ids: pass the prompt as a list of ids.")
        texts = np.empty(1, object)
        texts[0] = as_utf8(prompt, inputs.text.name)
        made = inputs.tokenizer.encode(texts.reshape(1, *([1] * (len(inputs.text.shape) - 1))))
        row = made[IDS][0].tolist()
        return _started([i for i, there in zip(row, _there(made, row), strict=True) if there])
    array = np.asarray(prompt)
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"the prompt is a text or a list of ids, got {prompt!r}.")
    top = inputs.ids.vocabulary
    for i in array.tolist():
        if i < 0 or (top is not None and i >= top):
            legal = "0 and more" if top is None else f"0 to {top - 1}"
            raise InputError(f"the prompt has the id {i}; the artefact takes {legal}.")
    return _started([int(i) for i in array])


def _there(made: Mapping[str, Array], row: Sequence[int]) -> list[bool]:
    """Tells which ids of a row are no padding."""
    if MASK in made:
        return list(made[MASK][0].tolist())
    last = max((i for i, piece in enumerate(row) if piece), default=-1)
    return [place <= last for place in range(len(row))]


def _started(ids: list[int]) -> list[int]:
    if not ids:
        raise InputError("the prompt is empty: the artefact needs a token to go on from.")
    return ids


def _next(
    artefact: Artefact,
    ids: Sequence[int],
    inputs: _Inputs,
    prediction: OutputSpec,
    explained: Sequence[OutputSpec],
) -> tuple[Result, int, float]:
    """Returns a run on a text, the likeliest next token, and what is predicted of it."""
    feed = _feed(ids, inputs)
    asks = any(s.target is not None and s.target.mode == "input" for s in explained)
    region = None
    if artefact.manifest.region_input is not None:
        region = np.zeros((1, feed[inputs.ids.name].shape[1]), np.float32)
        region[0, len(ids) - 1] = 1.0
    more: dict[str, Any] = {} if region is None else {REGION_INPUT: region}
    result = artefact.run(feed, explain=bool(explained) and not asks, **more)
    scores = np.asarray(result[prediction.name].array, np.float64)[0]
    scores = scores[len(ids) - 1] if scores.ndim == 2 else scores
    chosen = int(np.argmax(scores))
    if asks:
        result = artefact.run(feed, target=chosen, **more)
    return result, chosen, float(scores[chosen])


def _feed(ids: Sequence[int], inputs: _Inputs) -> dict[str, Array]:
    size = inputs.ids.shape[-1] or len(ids)
    row = np.zeros((1, size), np.int64)
    row[0, : len(ids)] = ids
    there = (np.arange(size) < len(ids))[np.newaxis]
    feed = {inputs.ids.name: row.astype(inputs.ids.dtype)}
    feed |= {spec.name: there.astype(spec.dtype) for spec in inputs.masks}
    return feed | {spec.name: np.zeros((1, size), spec.dtype) for spec in inputs.segments}


def _row(result: Result, spec: OutputSpec, ids: InputSpec, known: int) -> Array:
    places = Positions.of(ids)
    sizes = places.sizes(result.run.inputs[ids.name])
    row: Array = places.map_of(spec, result[spec.name].array, sizes)[0][:known]
    return row


def _matrix(rows: Sequence[Array], size: int) -> Array:
    matrix = np.full((len(rows), size), np.nan)
    for place, row in enumerate(rows):
        matrix[place, : len(row)] = row
    return matrix


def _each(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Returns how each id reads, padding too."""
    return [(tokenizer.tokens([i]) or [""])[0] for i in ids]
