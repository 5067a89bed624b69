"""Continues texts token by token, and explains each new token."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, overload

import numpy as np

from probegen.artefact.manifest import REGION_INPUT, InputSpec, OutputSpec
from probegen.artefact.rows import BATCH, as_described, batch_axis, rows_first
from probegen.errors import ArtefactError, InputError, did_you_mean
from probegen.runtime.arguments import counted
from probegen.runtime.inputs import Array
from probegen.runtime.loaded import Artefact
from probegen.runtime.positions import Positions
from probegen.runtime.result import Result
from probegen.runtime.texts import Tokenizer
from probegen.runtime.writing_on.generated import SUCH_AS, Generated
from probegen.runtime.writing_on.inputs import TokenInputs
from probegen.runtime.writing_on.prompts import prompts_of
from probegen.runtime.writing_on.sampling import Choice
from probegen.text import amount

__all__ = ["Generated", "generate"]

#: How far a prediction from states may be from that of the whole text, over the largest number.
_APART = 1e-3


@overload
def generate(  # type: ignore[overload-overlap]  # a string is a sequence of strings as well
    artefact: Artefact,
    prompt: str | bytes | Sequence[int],
    steps: int,
    *,
    output: str | None = None,
    stop: int | Collection[int] = (),
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int | Sequence[int] = 0,
    padding: str | None = None,
) -> Generated: ...


@overload
def generate(
    artefact: Artefact,
    prompt: Sequence[str] | Sequence[Sequence[int]] | Mapping[str, Any],
    steps: int,
    *,
    output: str | None = None,
    stop: int | Collection[int] = (),
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int | Sequence[int] = 0,
    padding: str | None = None,
) -> list[Generated]: ...


def generate(
    artefact: Artefact,
    prompt: Any,
    steps: int,
    *,
    output: str | None = None,
    stop: int | Collection[int] = (),
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int | Sequence[int] = 0,
    padding: str | None = None,
) -> Any:
    """Continues prompts, with an attribution row for each new token.

    The artefact is that of a model that predicts the next token at each position (`[batch, step,
    class]`) or behind the last (`[batch, class]`). Rows come of its attributions of the ids whose
    target is the token that is chosen: `target="argmax"` or `"input"`, with `region="input"`
    where there is a prediction for each position; and of its attention weights.

    Several prompts may have different lengths: those of one length are run together, so that each
    is written on as it is alone, and no padding has a part in it. Each token takes one run of the
    whole text so far. Where the artefact has states (`states="io"`: recurrent states, a cache) and
    no attributions of the ids, a run is of the newest token alone. After 1, 2, 4, 8, ... tokens
    and at the last it is held against a run of the whole text; where these differ, the states do
    not hold all that the model looks at, and all is written anew by runs of the whole text.

    Args:
        artefact: loaded by `runtime.load`.
        prompt: a text, where the artefact takes text; or its ids, int `[token]`; or a list of
            such; or a padded batch as a dict of ids `[prompt, token]` and a mask, by the names of
            the inputs.
        steps: how many tokens to write.
        output: the prediction; may be left out where there is one.
        stop: ids at which to stop, which are not written.
        temperature: what scores are divided by before a token is drawn; 0 takes the likeliest. The
            logarithms of probabilities are scores. Attributions then need `target="input"`.
        top_k: draw among the k likeliest alone.
        seed: of the numbers that are drawn; one for all prompts, or one for each.
        padding: `"left"` or `"right"`: where a text is padded that is shorter than what a model of
            a fixed size takes, as in its training. Right where the model is told what is padding,
            or predicts at each position.

    Returns:
        What was written; a list where a list or a dict was given.

    Raises:
        InputError: the artefact predicts no tokens, or has attributions of which none explains the
            token that is chosen (says what to compile); a prompt is empty, no text that it takes,
            or longer than it takes; an argument does not fit.
        ArtefactError: the engine failed, of a text that is longer than the model's positions, say.
    """
    choice = Choice.of(temperature, top_k)
    inputs = TokenInputs.of(artefact, padding)
    prediction = _prediction(artefact, output)
    _check_classes(prediction, inputs.ids)
    explained = _explaining(artefact, prediction, inputs.ids, choice)
    prompts, several = prompts_of(artefact, prompt, inputs)
    count = counted("steps", steps, 0)
    ends = _ends(stop)
    for ids in prompts:
        _check_room(len(ids), count, inputs, prediction, padding)
    seeds = _seeds(seed, len(prompts))
    writer = _Writer(artefact, inputs, prediction, explained, _attention(artefact), choice)
    try:
        texts = _written(writer, prompts, seeds, count, ends)
    except _StatesFallShortError:  # the whole text each time, from the prompts on
        writer.by_states = False
        texts = _written(writer, prompts, seeds, count, ends)
    made = [text.finished(inputs.tokenizer, writer) for text in texts]
    return made if several else made[0]


class _StatesFallShortError(Exception):
    """A prediction is made of more than the states hold."""


@dataclasses.dataclass(eq=False)
class _Text:
    """A text that is being continued.

    Attributes:
        prompt: how many ids the prompt has.
        ids: all so far.
        rng: what numbers are drawn from.
        scores: the predictions for the new ids.
        rows: by output, a row for each new id.
        states: what stands for the ids but the newest, by input, without the batch.
        result: of its last run.
        ended: whether it has come to a token that stops it.
    """

    prompt: int
    ids: list[int]
    rng: np.random.Generator
    scores: list[float] = dataclasses.field(default_factory=list)
    rows: dict[str, list[Array]] = dataclasses.field(default_factory=dict)
    states: dict[str, Array] | None = None
    result: Result | None = None
    ended: bool = False

    @property
    def new(self) -> int:
        """How many tokens were written."""
        return len(self.ids) - self.prompt

    def finished(self, tokenizer: Tokenizer | None, writer: _Writer) -> Generated:
        """Returns what was written."""
        new = self.ids[self.prompt :]
        tokens = [str(i) for i in self.ids] if tokenizer is None else _each(tokenizer, self.ids)
        text = "" if tokenizer is None else tokenizer.decode(new)
        rows = {s.name: _matrix(self.rows.get(s.name, []), len(self.ids)) for s in writer.explained}
        attended = {
            spec.name: _matrix(self.rows[spec.name], len(self.ids))
            for spec in writer.attention
            if spec.name in self.rows
        }
        prompt = self.ids[: self.prompt]
        return Generated(
            prompt, new, tokens, text, self.scores, rows, self.result, attended, tokenizer
        )


@dataclasses.dataclass(eq=False)
class _Writer:
    """Runs an artefact on texts of one length."""

    artefact: Artefact
    inputs: TokenInputs
    prediction: OutputSpec
    explained: Sequence[OutputSpec]
    attention: Sequence[OutputSpec]
    choice: Choice
    #: Whether what came before goes by states alone.
    by_states: bool = True

    def __post_init__(self) -> None:
        if not self.inputs.states or self.explained or self.inputs.size is not None:
            self.by_states = False

    def write(self, texts: Sequence[_Text], ends: Collection[int], last: bool) -> None:
        """Writes one more token of each of some texts; of one length where the size is open.

        Args:
            texts: as many as the artefact takes at once, or fewer.
            ends: ids at which a text ends.
            last: whether it is the last token of each.

        Raises:
            _StatesFallShortError: the states do not hold all that a prediction is made of.
        """
        from_states = self.by_states and all(text.states is not None for text in texts)
        result, predicted = self._run(texts, None, by_states=from_states)
        chosen = [
            self.choice.next(row, text.rng) for row, text in zip(predicted, texts, strict=True)
        ]
        ending = last or any(token in ends for token in chosen)
        if from_states and (ending or any(_is_power_of_two(text.new) for text in texts)):
            _, right = self._run(texts, None)
            if not _close(predicted, right):
                raise _StatesFallShortError
        if self.by_states:
            self._keep(texts, result)
        if self._asks:
            result, _ = self._run(texts, chosen)
        maps = self._maps(result)
        for place, (text, token) in enumerate(zip(texts, chosen, strict=True)):
            text.result = result
            if token in ends:
                text.ended = True
                continue
            for name, row in self._rows(result, maps, text, place).items():
                text.rows.setdefault(name, []).append(row)
            text.ids.append(token)
            text.scores.append(float(predicted[place][token]))

    @property
    def _asks(self) -> bool:
        return any(s.target is not None and s.target.mode == "input" for s in self.explained)

    def _keep(self, texts: Sequence[_Text], result: Result) -> None:
        axes = {spec.name: spec.axes for spec in self.inputs.states}
        ends = {name: rows_first(array, axes[name]) for name, array in result.states.items()}
        for place, text in enumerate(texts):
            text.states = {name: array[place] for name, array in ends.items()}

    def _run(
        self, texts: Sequence[_Text], chosen: Sequence[int] | None, *, by_states: bool = False
    ) -> tuple[Result, list[Array]]:
        """Returns a run on some texts, and what is predicted of their next tokens, float64.

        Args:
            texts: the texts.
            chosen: the tokens that are explained; None for the likeliest, or for no explanation
                where the request has to say which.
            by_states: feed the newest token alone, and the states of those before.
        """
        inputs = self.inputs
        filled = [*texts, *[texts[-1]] * ((inputs.batch or len(texts)) - len(texts))]
        rows = [text.ids[-1:] if by_states else text.ids for text in filled]
        feed = inputs.feed(rows, len(texts[0].ids) - 1 if by_states else 0)
        more: dict[str, Any] = {}
        width = feed[inputs.ids.name].shape[1]
        lasts = [inputs.span(len(row), width).stop - 1 for row in rows]
        if self.artefact.manifest.region_input is not None:
            region = np.zeros((len(rows), width), np.float32)
            region[np.arange(len(rows)), lasts] = 1.0
            more[REGION_INPUT] = region
        if by_states:
            more["states"] = self._stacked(filled)
        if chosen is not None:
            more["target"] = [*chosen, *[chosen[-1]] * (len(filled) - len(texts))]
        explain = bool(self.explained or self.attention)
        if self._asks:
            explain = chosen is not None
        result = self.artefact.run(feed, explain=explain, **more)
        scores = np.asarray(result[self.prediction.name].array, np.float64)
        if scores.ndim == 3:
            scores = scores[np.arange(len(rows)), lasts]
        return result, list(scores[: len(texts)])

    def _stacked(self, texts: Sequence[_Text]) -> dict[str, Array]:
        axes = {spec.name: spec.axes for spec in self.inputs.states}
        held = [text.states or {} for text in texts]
        return {
            name: as_described(np.stack([states[name] for states in held]), axes[name])
            if batch_axis(axes[name]) is not None
            else held[0][name]
            for name in held[0]
        }

    def _width(self, result: Result) -> int:
        """Returns how many tokens were fed of each text, padding included."""
        return int(result.run.inputs[self.inputs.ids.name].shape[1])

    def _maps(self, result: Result) -> dict[str, Array]:
        """Returns what attributions give the tokens that were fed, `[text, token]`, by output."""
        places, sizes = Positions.of(self.inputs.ids), (self._width(result),)
        return {s.name: places.map_of(s, result[s.name].array, sizes) for s in self.explained}

    def _rows(
        self, result: Result, maps: Mapping[str, Array], text: _Text, place: int
    ) -> dict[str, Array]:
        """Returns what each token of a text is given for its next one, by output.

        Args:
            result: of the run.
            maps: of it; see `_maps`.
            text: what was fed, without the new token.
            place: where it stands among the texts of the run.
        """
        width, count = self._width(result), len(text.ids)
        span = self.inputs.span(count, width)
        found = {name: given[place][span] for name, given in maps.items()}
        for spec in self.attention:
            weights = _newest_query(result[spec.name].array[place], spec, self.inputs, count, width)
            if weights is not None:
                found[spec.name] = weights
        return found


def _newest_query(
    weights: Array, spec: OutputSpec, inputs: TokenInputs, count: int, width: int
) -> Array | None:
    """Returns with which weights the newest token attends, `[token]`; None where keys are others.

    Args:
        weights: of one text, without the batch.
        spec: of them.
        inputs: of the artefact.
        count: how many tokens there are.
        width: how many were fed.
    """
    axes = [axis for axis in spec.axes if axis != BATCH]
    if axes.count("key") != 1 or weights.ndim != len(axes):
        return None
    keys = weights.shape[axes.index("key")]
    if "query" in axes:
        queries = axes.index("query")
        if weights.shape[queries] != width:
            return None
        newest = inputs.span(min(count, width), width).stop - 1
        weights = np.take(weights, newest, axis=queries)
        axes.pop(queries)
    weights = np.moveaxis(weights.astype(np.float64), axes.index("key"), -1)
    row = np.asarray(weights.reshape(-1, keys).mean(0))
    if keys == width and width >= count:
        return row[inputs.span(count, width)]
    return row[:count] if keys >= count and inputs.states else None


def _written(
    writer: _Writer,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    count: int,
    ends: Collection[int],
) -> list[_Text]:
    """Returns continued prompts.

    Raises:
        ArtefactError: the engine failed.
        _StatesFallShortError: what was written from states is not what the whole text gives.
    """
    texts = [
        _Text(len(ids), list(ids), np.random.default_rng(s))
        for ids, s in zip(prompts, seeds, strict=True)
    ]
    for step in range(count):
        going = [text for text in texts if not text.ended]
        for group in _groups(going, writer.inputs):
            try:
                writer.write(group, ends, last=step == count - 1)
            except ArtefactError as error:
                raise ArtefactError(
                    f"after {amount(len(group[0].ids), 'token')} ({step} of them new) the artefact "
                    f"could not go on; the model may take no more. {error}"
                ) from error
    return texts


def _groups(texts: Sequence[_Text], inputs: TokenInputs) -> list[list[_Text]]:
    """Returns texts that are run together: of one length where the size is open."""
    by_length: dict[int, list[_Text]] = {}
    for text in texts:
        by_length.setdefault(len(text.ids) if inputs.size is None else 0, []).append(text)
    most = inputs.batch
    return [
        group[start : start + (most or len(group))]
        for group in by_length.values()
        for start in range(0, len(group), most or len(group))
    ]


def _is_power_of_two(count: int) -> bool:
    return count > 0 and count & (count - 1) == 0


def _close(found: Sequence[Array], right: Sequence[Array]) -> bool:
    one, other = np.stack(found), np.stack(right)
    return bool(np.abs(one - other).max() <= _APART * max(np.abs(other).max(), 1e-30))


def _ends(given: Any) -> set[int]:
    """Returns the ids at which a text ends."""
    each = [given] if np.ndim(given) == 0 and not isinstance(given, Collection) else given
    return {counted("stop", i, 0) for i in each}


def _seeds(given: Any, count: int) -> list[int]:
    each = [given] * count if np.ndim(given) == 0 else list(given)
    if len(each) != count:
        raise InputError(f"seed has {amount(len(each), 'number')} and there are {count} prompts.")
    return [counted("seed", s, 0) for s in each]


def _check_room(
    known: int, count: int, inputs: TokenInputs, prediction: OutputSpec, padding: str | None
) -> None:
    """Refuses a prompt that is too long, or would be padded where nobody knows how.

    Raises:
        InputError: it is.
    """
    size = inputs.longest
    if size is not None and known + max(count - 1, 0) > size:
        raise InputError(
            f"the prompt has {amount(known, 'token')}, and with {count} more there would be too "
            f"many: the model takes {size}."
        )
    behind_last = len(prediction.shape) == 2
    unknown = padding is None and behind_last and not inputs.tells_padding
    if inputs.size is not None and known < inputs.size and count and unknown:
        raise InputError(
            f"the prompt has {amount(known, 'token')}, the model always takes {inputs.size} and is "
            "not told which of them are padding: say where texts were padded in its training, "
            "padding='left' or padding='right'."
        )


def _prediction(artefact: Artefact, output: str | None) -> OutputSpec:
    own = [p for p in artefact.manifest.predictions if not p.is_state]
    able = [p for p in own if len(p.shape) in (2, 3)]
    if output is not None:
        if output not in [p.name for p in able]:
            raise InputError(
                f"there is no prediction {output!r} of the next token."
                f"{did_you_mean(output, [p.name for p in able])}"
            )
        able = [p for p in able if p.name == output]
    if len(able) != 1:
        shown = ", ".join(f"{p.name!r} {list(p.axes)}" for p in own)
        raise InputError(
            "the artefact needs one prediction of the next token, [batch, step, class] or "
            f"[batch, class]; it has {shown}."
            + (" Say which, output=... (--prediction)." if able else "")
        )
    return able[0]


def _check_classes(prediction: OutputSpec, ids: InputSpec) -> None:
    """Refuses a classifier: a class is no token, though both have numbers.

    A table of embeddings may have rows to spare, so that there may be fewer classes than tokens.

    Raises:
        InputError: there are less than half as many.
    """
    classes, tokens = prediction.shape[-1], ids.vocabulary
    if classes is not None and tokens is not None and 2 * classes < tokens:
        raise InputError(
            f"{prediction.name!r} predicts no next token: it has {classes} classes, and the model "
            f"takes {tokens} tokens. Pass a model that gives each of its tokens a score."
        )


def _explaining(
    artefact: Artefact, prediction: OutputSpec, ids: InputSpec, choice: Choice
) -> list[OutputSpec]:
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
            f"{names} {'explains' if len(attributions) == 1 else 'explain'} other scores than that "
            f"of the token which is chosen: compile with {SUCH_AS}."
        )
    fixed = [spec.name for spec in found if spec.target and spec.target.mode == "argmax"]
    if fixed and choice.draws:
        raise InputError(
            f"{', '.join(map(repr, fixed))} {'explains' if len(fixed) == 1 else 'explain'} the "
            "likeliest token, and with a temperature another one may be drawn: compile with "
            "target='input'."
        )
    return found


def _attention(artefact: Artefact) -> list[OutputSpec]:
    return [
        spec
        for spec in artefact.manifest.explanations
        if spec.kind == "attention" and "key" in spec.axes
    ]


def _matrix(rows: Sequence[Array], size: int) -> Array:
    matrix = np.full((len(rows), size), np.nan)
    for place, row in enumerate(rows):
        matrix[place, : len(row)] = row
    return matrix


def _each(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Returns how each id reads, padding too."""
    return [(tokenizer.tokens([i]) or [""])[0] for i in ids]
