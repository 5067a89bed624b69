"""Turns text into what an artefact takes, as its source model does, without TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec, Manifest
from probegen.artefact.texts import IDS, MASK, TextSpec
from probegen.errors import InputError, ManifestError, ProbegenError, did_you_mean
from probegen.runtime.texts.base import Tokenizer
from probegen.runtime.texts.whole_words import Word, grouped

__all__ = [
    "KINDS",
    "OF_LIBRARIES",
    "Texts",
    "Tokenizer",
    "holds_text",
    "takes_pairs",
    "tokenizer_of",
    "words_of",
]

Array = npt.NDArray[Any]

#: Kinds of tokenizers: the module, loaded when one is met, whose `made_from` takes the settings.
KINDS: Mapping[str, str] = {
    "string_lookup": "probegen.runtime.texts.lookup",
    "text_vectorization": "probegen.runtime.texts.vectorization",
    "hashing": "probegen.runtime.texts.hashing",
    "word_piece": "probegen.runtime.texts.word_piece",
    "code_points": "probegen.runtime.texts.code_points",
    "sentence_piece": "probegen.runtime.texts.sentence_piece",
    "hugging_face": "probegen.runtime.texts.hugging_face",
}

#: Those that a library takes apart, which probegen[text] brings.
OF_LIBRARIES = ("sentence_piece", "hugging_face")


def tokenizer_of(spec: TextSpec) -> Tokenizer:
    """Returns what takes a text apart.

    Raises:
        ManifestError: its kind is unknown, or its settings are damaged.
    """
    kind = str(spec.tokenizer.get("kind"))
    if kind not in KINDS:
        raise ManifestError(
            f"the text {spec.name!r} is taken apart by a tokenizer of the kind {kind!r}, which "
            f"this probegen does not know (it knows {', '.join(KINDS)}). Install a newer one."
        )
    try:
        made: Tokenizer = importlib.import_module(KINDS[kind]).made_from(spec.tokenizer)
    except ProbegenError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ManifestError(
            f"the tokenizer of the text {spec.name!r} is damaged in the manifest "
            f"({type(error).__name__}: {error}). Compile the artefact again."
        ) from error
    return made


def holds_text(value: Any) -> bool:
    """Tells whether a value is a string, or holds strings at whatever depth."""
    if isinstance(value, str | bytes):
        return True
    if isinstance(value, np.ndarray):
        first = value.reshape(-1)[:1].tolist()
        return value.dtype.kind in "US" or (value.dtype.kind == "O" and holds_text(first))
    if isinstance(value, Mapping):
        return any(holds_text(entry) for entry in value.values())
    return isinstance(value, list | tuple) and any(holds_text(entry) for entry in value[:1])


class Texts:
    """The texts of an artefact: what takes each apart, opened when it is first asked for."""

    def __init__(self, manifest: Manifest) -> None:
        self._inputs = {spec.name: spec for spec in manifest.inputs}
        places = {name: place for place, name in enumerate(self._inputs)}
        self._states = {s.name for s in manifest.inputs if s.next_state is not None}
        #: In the order of the inputs that they make.
        self.specs = sorted(
            manifest.texts, key=lambda text: min(places[name] for name in text.makes.values())
        )

    @functools.cached_property
    def tokenizers(self) -> list[Tokenizer]:
        """What takes each text apart."""
        return [tokenizer_of(spec) for spec in self.specs]

    @functools.cached_property
    def names(self) -> list[str]:
        """The names of the texts, each once."""
        return list(dict.fromkeys(spec.name for spec in self.specs))

    def given(self, x: Any) -> Any:
        """Returns what `run` was given with the texts in it turned into arrays of inputs by name.

        What holds no text comes back as it is.

        Args:
            x: a string, a list of strings (one a sample), or a dict by name of a text (or of an
                input, for what is no text), or a list in that order.

        Raises:
            InputError: there is text, and the artefact takes none; or it is of the wrong form.
        """
        if self.specs and isinstance(x, list | tuple) and not x:
            raise InputError("there is no text: got an empty list.")
        if not holds_text(x):
            return x
        if not self.specs:
            return self._strings(x)
        if not isinstance(x, Mapping):
            x = self._by_name(x)
        return self._made(x)

    def _strings(self, x: Any) -> Any:
        """Returns strings for an artefact that takes them itself, a column where it takes one.

        Raises:
            InputError: it takes numbers alone.
        """
        strings = [s for s in self._inputs.values() if s.dtype == "string"]
        if strings and len(self._inputs) == 1:
            value = x[strings[0].name] if isinstance(x, Mapping) and strings[0].name in x else x
            if isinstance(value, str | bytes) or (
                len(_shape(value)) == 1 and strings[0].shape[1:] == (1,)
            ):
                return as_bytes(value, TextSpec(strings[0].name, strings[0].shape, {}, {}))
        if strings:
            return x
        takes = ", ".join(f"{s.name!r} ({s.dtype})" for s in self._inputs.values())
        raise InputError(
            f"the artefact takes numbers and no text: its inputs are {takes}. Compile the model "
            "with tokenizer='tokenizer.json', or together with its text layers, for art.run('...')."
        )

    def _by_name(self, x: Any) -> dict[str, Any]:
        text_of = {into: spec.name for spec in self.specs for into in spec.makes.values()}
        own = (name for name in self._inputs if name not in self._states)
        order = list(dict.fromkeys(text_of.get(name, name) for name in own))
        if len(order) == 1:
            return {order[0]: x}
        if isinstance(x, list | tuple) and len(x) == len(order):
            return dict(zip(order, x, strict=True))
        raise InputError(
            f"the artefact takes {', '.join(map(repr, order))}: pass a dict with these keys, "
            f"for instance {{{order[0]!r}: ['a text', 'another']}}."
        )

    def _made(self, x: Mapping[str, Any]) -> dict[str, Any]:
        feed = {name: value for name, value in x.items() if name not in self.names}
        for name, value in feed.items():
            if name not in self._inputs:
                known = [*self.names, *self._inputs]
                raise InputError(f"the artefact has no input {name!r}.{did_you_mean(name, known)}")
            if holds_text(value):
                texts = ", ".join(map(repr, self.names))
                raise InputError(f"the input {name!r} takes numbers; texts are {texts}.")
        for spec, tokenizer in zip(self.specs, self.tokenizers, strict=True):
            if spec.name not in x:
                if any(into not in x for into in spec.makes.values()):
                    raise InputError(f"the text {spec.name!r} is missing.")
                continue
            if not holds_text(x[spec.name]):
                if spec.name not in self._inputs:
                    kind = type(x[spec.name]).__name__
                    raise InputError(f"the text {spec.name!r} takes strings, got {kind}.")
                feed[spec.name] = x[spec.name]  # ids: the input has the name of its text
                continue
            strings = as_bytes(x[spec.name], spec, takes_pairs(tokenizer))
            made = tokenizer.encode(strings)
            if self._states and MASK in made and not made[MASK].all():
                raise InputError(
                    f"the texts {spec.name!r} have different lengths, and padding would go into "
                    "the states as if it were text: run those of one length together, as "
                    "runtime.generate does."
                )
            for what, into in spec.makes.items():
                self._check_length(made[what], self._inputs[into], tokenizer, spec)
                feed[into] = made[what]
        return feed

    def _check_length(
        self, array: Array, into: InputSpec, tokenizer: Tokenizer, spec: TextSpec
    ) -> None:
        if tokenizer.words and array.ndim == 2 and array.shape[1] == 0:
            raise InputError(
                f"the text {spec.name!r} has no words in it, in any sample: the model pads to the "
                "longest text of a batch, which is empty. Leave empty texts out."
            )
        if len(array.shape) != len(into.shape):
            raise ManifestError(
                f"the tokenizer of {spec.name!r} makes the shape {array.shape} for the input "
                f"{into.name!r} of {list(into.shape)}. Compile the artefact again."
            )

    def tokens(self, feeds: Mapping[str, Array]) -> dict[str, list[list[str]]]:
        """Returns how each id reads, by input, a list a sample, padding at the end left out."""
        found = {}
        for spec, tokenizer in zip(self.specs, self.tokenizers, strict=True):
            ids = feeds.get(spec.makes.get(IDS, ""))
            if ids is not None and tokenizer.words and ids.ndim == 2:
                found[spec.makes[IDS]] = [tokenizer.tokens(row) for row in ids.tolist()]
        return found

    def whole_words(self, name: str, row: Array) -> list[Word]:
        """Returns the words of the ids of one sample of an input, padding at the end left out.

        Raises:
            KeyError: it is no input that is made of text.
        """
        tokenizer = {
            spec.makes.get(IDS): made
            for spec, made in zip(self.specs, self.tokenizers, strict=True)
        }[name]
        return words_of(tokenizer, row.tolist())

    def features(self) -> dict[str, list[str]]:
        """Returns the names of the features of inputs that count words, by input."""
        pairs = zip(self.specs, self.tokenizers, strict=True)
        return {s.makes[IDS]: t.tokens(()) for s, t in pairs if not t.words}


def words_of(tokenizer: Tokenizer, row: Sequence[int]) -> list[Word]:
    """Returns the words of ids, padding at the end left out."""
    tokens = tokenizer.tokens(row)

    def spelt(places: Sequence[int]) -> str:
        text = tokenizer.decode([row[i] for i in places]).strip()
        return text or "".join(tokens[i] for i in places)

    return grouped(tokenizer.starts(row), spelt)


def takes_pairs(tokenizer: Tokenizer) -> bool:
    """Tells whether two texts may stand in the place of one."""
    return bool(getattr(tokenizer, "pairs", False))


def as_bytes(value: Any, spec: TextSpec, pairs: bool = False) -> Array:
    """Returns texts as bytes in the shape that the model takes them in.

    Args:
        value: a string, or strings: one a sample, or in the model's own shape.
        spec: of the text.
        pairs: whether two texts may stand in the place of one.

    Raises:
        InputError: it holds something else, or is of another shape.
    """
    if isinstance(value, str | bytes):
        value = [value]
    inner = spec.shape[1:]
    if pairs and not inner and _shape(value)[1:] == (2,):
        spec = dataclasses.replace(spec, shape=(*spec.shape, 2))
        inner = spec.shape[1:]
    strings = [as_utf8(v, spec.name) for v in _flat(value)]
    array = np.empty(_shape(value), object)
    try:
        array.reshape(-1)[:] = strings
    except ValueError as error:
        raise InputError(f"the text {spec.name!r} is no regular array of strings.") from error
    if array.shape[1:] != inner and all(n == 1 for n in inner) and array.ndim == 1:
        array = array.reshape(len(array), *inner)
    fits = len(array.shape) == len(spec.shape) and all(
        n in (None, got) for n, got in zip(spec.shape, array.shape, strict=True)
    )
    if not fits or not array.size:
        raise InputError(
            f"the text {spec.name!r} has the shape {array.shape}, expected "
            f"{['batch', *inner]}: a list with a string for each sample"
            + (", or with a pair of strings." if pairs and not inner else ".")
        )
    return array


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, np.ndarray):
        return tuple(value.shape)
    if isinstance(value, list | tuple):
        return (len(value), *(_shape(value[0]) if len(value) else ()))
    return ()


def _flat(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return list(value.reshape(-1).tolist())
    if isinstance(value, list | tuple):
        return [entry for part in value for entry in _flat(part)]
    return [value]


def as_utf8(value: Any, name: str) -> bytes:
    """Returns one string as bytes; bytes come back as they are.

    Args:
        value: the string.
        name: of the text, for the message.

    Raises:
        InputError: it is no string, or holds half of a character.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise InputError(f"the text {name!r} holds {type(value).__name__} {value!r}; pass str.")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text {name!r} holds half of a surrogate pair ({error.object[error.start]!r}), "
            "which is no character: take it out, or pass bytes."
        ) from error
