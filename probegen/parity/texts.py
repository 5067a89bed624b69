"""Texts to verify on: the runtime takes them apart, and so does the untouched model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import Manifest
from probegen.artefact.rows import count_rows
from probegen.artefact.texts import IDS, TextSpec
from probegen.errors import InputError, VerificationError
from probegen.parity import samples as drawing
from probegen.parity.samples import ORDINARY, Batch
from probegen.parity.trials import Tried
from probegen.runtime.inputs import check_inputs
from probegen.runtime.texts import Texts, Tokenizer, as_bytes, holds_text, takes_pairs
from probegen.sources.base import Source

Array = npt.NDArray[Any]

#: Texts of which each has been taken apart wrongly by somebody: words between any white space,
#: accents composed and not, signs joined without width, scripts mixed and from right to left,
#: letters whose lower case is another length, control characters, punctuation beyond ASCII.
NASTY = (
    "a plain sentence, with a comma.",
    "",
    " \t\n\r\x0b\x0c ",
    "\u00c9T\u00c9 \u00e9t\u00e9 e\u0301te\u0301 \u212b \ufb01n",
    "\u0130stanbul I\u0131iI STRASSE stra\u00dfe \u1e9e \u03a3\u03c3\u03c2",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \u2764\ufe0f ok",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd "
    "\u4f60\u597d\u4e16\u754c \u3053\u3093 \ud55c\uae00 \u0939\u093f",
    "non\u00a0breaking\u2003em\u3000wide\u200bzero\ufeffmark",
    "nul\x00in side\x1f \x85 \x7f end\x00",
    "\u201cquotes\u201d \u2014 dash \u2026 \u00bfque? \u3002\uff0c !!! a.b-c_d e'f",
    "[UNK] [PAD] [CLS] <s> </s> ##ing \u2581x \u0120y <|endoftext|>",
    "1,234.5 3\u20444 \u00b2 x\u0332 0x1F 1e-9",
    "word" * 60 + " " + "a b " * 40,
)
#: Samples of a call with texts.
_ROWS = 4
#: Signs of texts that are cut.
_SHORT = 5
#: Ids that words are drawn from where the model does not tell how many there are.
_WORDS = 50


def tried(
    texts: Texts, described: Manifest, source: Source, samples: Any, rng: np.random.Generator
) -> list[Tried]:
    """Returns calls whose inputs the runtime made of texts, with what the model predicts of these.

    Args:
        texts: of the artefact.
        described: its manifest.
        source: the model.
        samples: what a user gave, which may be texts; None for texts that are made up.
        rng: what made up texts are drawn with.

    Raises:
        VerificationError: the runtime does not make the same of a text as the model does.
        InputError: given samples are none that the model takes.
    """
    parts = 2 + -(-len(NASTY) // _ROWS)
    feeds = [_made_up(texts, described, rng, part) for part in range(parts)]
    if any(map(takes_pairs, texts.tokenizers)):  # of words, and of nasty ones
        feeds += [_made_up(texts, described, rng, part, pairs=True) for part in range(1, parts)]
    given = [_by_name(samples, texts)] if holds_text(samples) else []
    found: list[Tried] = []
    for place, drawn in enumerate([*given, *feeds]):
        is_given = place < len(given)
        read = _first_read([drawn] if is_given else [drawn, _cut(drawn)], texts, described)
        if read is None:
            continue  # empty texts alone, say
        feed, ours = read
        theirs, predictions = source.read_texts(feed)
        _check_same(ours, theirs, feed, described)
        if isinstance(predictions, Exception):
            if is_given:
                raise predictions
            continue
        if is_given or len(found) == len(given):  # the others prove what texts become, no more
            rows = count_rows(ours, described.inputs)
            found.append((Batch(ours, (ORDINARY,) * rows), predictions))
    return found


def _first_read(
    feeds: Sequence[dict[str, Array]], texts: Texts, described: Manifest
) -> tuple[dict[str, Array], dict[str, Array]] | None:
    """Returns the first texts that the runtime takes, and what it makes of them.

    Raises:
        InputError: they are one choice alone, and it does not take them.
    """
    for feed in feeds:
        try:
            return feed, check_inputs(texts.given(feed), described.inputs)
        except InputError:
            if len(feeds) == 1:
                raise
    return None


def _cut(feed: Mapping[str, Array]) -> dict[str, Array]:
    """Returns texts cut to their first signs, for models that take short ones alone."""
    found = {}
    for name, strings in feed.items():
        found[name] = strings.copy()
        if strings.dtype != object:
            continue
        short = [t.decode("utf-8", "replace")[:_SHORT].encode() for t in strings.reshape(-1)]
        found[name].reshape(-1)[:] = short
    return found


def _by_name(samples: Any, texts: Texts) -> dict[str, Array]:
    named = samples if isinstance(samples, Mapping) else {texts.names[0]: samples}
    made_by = {s.name: (s, t) for s, t in zip(texts.specs, texts.tokenizers, strict=True)}
    found = {}
    for name, value in named.items():
        spec, tokenizer = made_by.get(name, (None, None))
        found[name] = (
            np.asarray(value)
            if spec is None or tokenizer is None
            else as_bytes(value, spec, takes_pairs(tokenizer))
        )
    return found


def _made_up(
    texts: Texts, described: Manifest, rng: np.random.Generator, part: int, pairs: bool = False
) -> dict[str, Array]:
    """Returns texts that are made up: words of the vocabulary, several of them, or nasty ones.

    Args:
        texts: of the artefact.
        described: its manifest.
        rng: what they are drawn with.
        part: which ones.
        pairs: two in the place of one, where the tokenizer takes pairs.
    """
    feed: dict[str, Array] = {}
    for spec, tokenizer in zip(texts.specs, texts.tokenizers, strict=True):
        sizes = (_ROWS, *(1 if n is None else n for n in spec.shape[1:]))
        if pairs and takes_pairs(tokenizer):
            sizes = (_ROWS, 2)
        count = int(np.prod(sizes))
        if part >= 2:
            first = (part - 2) * _ROWS
            made = [NASTY[(first + i) % len(NASTY)] for i in range(count)]
        else:
            made = [_of_words(tokenizer, spec, described, rng, 1 + 4 * part) for _ in range(count)]
        array = np.empty(count, object)
        array[:] = [text.encode("utf-8", "surrogateescape") for text in made]
        feed[spec.name] = array.reshape(sizes)
    return {**feed, **_others(described, rng)}


def _others(described: Manifest, rng: np.random.Generator) -> dict[str, Array]:
    """Returns samples of the inputs that are made of no text."""
    made = {name for text in described.texts for name in text.makes.values()}
    others = tuple(spec for spec in described.inputs if spec.name not in made)
    if not others:
        return {}
    sizes, _ = next(drawing.rungs(()))
    rows = (ORDINARY,) * _ROWS
    return drawing.draw(described.replace(inputs=others), rows, sizes, rng, tame=True).feed


def _of_words(
    tokenizer: Tokenizer, spec: TextSpec, described: Manifest, rng: np.random.Generator, count: int
) -> str:
    """Returns a text of some words of the vocabulary; not an empty one, which may have no mean."""
    if not tokenizer.words:
        return " ".join(rng.choice(tokenizer.tokens(()), count).tolist())
    into = next(i for i in described.inputs if i.name == spec.makes[IDS])
    known = into.vocabulary or _WORDS
    text = tokenizer.decode(rng.integers(0, known, count).tolist())
    return text if text.strip() else tokenizer.decode([known - 1] * count)


def _check_same(
    ours: Mapping[str, Array],
    theirs: Mapping[str, Array],
    feed: Mapping[str, Array],
    described: Manifest,
) -> None:
    """Raises a VerificationError where the runtime makes something else of a text."""
    for name, right in theirs.items():
        got = ours[name]
        if got.shape == right.shape and got.dtype == right.dtype and (got == right).all():
            continue
        text = next(t for t in described.texts if name in t.makes.values())
        rows = range(len(right)) if got.shape == right.shape else range(1)
        row = next((i for i in rows if not np.array_equal(got[i], right[i])), 0)
        of = f"layer {text.layer!r}" if text.layer else "model's preprocessor"
        away = "" if text.layer else "set model.preprocessor = None for an artefact of ids, "
        raise VerificationError(
            f"the runtime takes a text apart in another way than the {of}: of "
            f"{feed[text.name][row]!r} it makes {got[row].tolist()} ({got.dtype}), the model "
            f"{right[row].tolist()} ({right.dtype}). This is a fault of probegen; until it is "
            f"mended, {away}export to SavedModel (format='savedmodel'), or compile the part behind "
            "the layer."
        )
