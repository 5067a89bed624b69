"""KerasHub's causal models with their cache of keys and values as a state.

A model's own `call_with_cache` computes what follows a cache; it is called as KerasHub's `generate`
does. There a cache has room for all tokens from the start, and a counter says how many it holds.
Here it is as long as what it holds, so that its length is the counter: it gets room for the new
tokens before the call, and comes out with them.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from probegen.artefact.manifest import NEXT_STATE, STATE
from probegen.errors import ExportError
from probegen.plan.axes import BATCH, Axes
from probegen.sources.keras.keras_model import KerasModel

_NAME = "cache"
_IDS, _MASK = "token_ids", "padding_mask"
_AXES: Axes = (BATCH, "layer", "key_value", "past", "head", "feature")
#: Which axis of a cache has an entry for each token.
_PAST = _AXES.index("past")
_ARGUMENTS = ("token_ids", "cache", "cache_update_index")
#: Tokens that are tried before a model is taken, and where they are cut into chunks.
_TOKENS, _CUT = 7, 3
#: How far chunks may be from the whole, over the largest number.
_APART = 1e-3


@dataclasses.dataclass(frozen=True)
class CachedModel(KerasModel):
    """A causal model that takes ids and the cache of the tokens before them; see `KerasModel`.

    Attributes:
        inner: the model, which takes whole texts and the mask of their padding.
    """

    inner: KerasModel = dataclasses.field(kw_only=True)

    def axes_of(self, name: str) -> Axes | None:
        """Returns the axes of the cache, None of any other input or output."""
        return _AXES if name in (f"{STATE}{_NAME}", f"{NEXT_STATE}{_NAME}") else None

    @property
    def longest(self) -> Mapping[str, int]:
        """How many tokens there may be in all, where the model has positions for so many."""
        positions = getattr(self.model.backbone, "position_embedding", None)
        most = getattr(positions, "sequence_length", None)
        return {f"{STATE}{_NAME}": int(most)} if isinstance(most, int) else {}

    def call_untouched(self, flat: Sequence[Any]) -> Any:
        """Calls the model's own `call_with_cache`."""
        ids, cache = flat
        logits, following = followed(self.model, ids, cache)
        return [logits], [following]

    def own_nest(self, nest: Any) -> Any:
        """Returns the prediction."""
        return nest[0][0]

    def flatten(self, inputs: Any) -> list[Any]:
        """Returns what a caller passed as flat inputs: an empty cache where it is left out."""
        given = inputs if isinstance(inputs, dict) else {_IDS: inputs}
        ids = tf.convert_to_tensor(given[_IDS])
        spec = self.input_specs[1]
        sizes = [
            tf.shape(ids)[0] if axis == BATCH else 0 if n is None else n
            for axis, n in zip(_AXES, spec.shape, strict=True)
        ]
        cache = given.get(f"{STATE}{_NAME}")
        return [ids, tf.zeros(sizes, spec.dtype) if cache is None else cache]


def followed(model: Any, ids: Any, cache: Any) -> tuple[Any, Any]:
    """Returns a model's prediction for what follows a cache, and the cache with that.

    Args:
        model: a causal model of KerasHub.
        ids: `[batch, time]`.
        cache: `[batch, layer, 2, past, head, feature]`.
    """
    before, new = tf.shape(cache)[_PAST], tf.shape(ids)[1]
    room = [[0, new] if axis == _PAST else [0, 0] for axis in range(len(_AXES))]
    logits, _, following = model.call_with_cache(ids, tf.pad(cache, room), before)
    return logits, following


def has_cache(source: KerasModel) -> bool:
    """Tells whether a model is one of KerasHub's that keep a cache."""
    known = sys.modules.get("keras_hub")
    return known is not None and isinstance(source.model, known.models.CausalLM)


def with_cache(source: KerasModel) -> CachedModel:
    """Returns a causal model that takes the cache of the tokens before.

    Raises:
        ExportError: it keeps none of a form that is known, or does not predict with it what it
            predicts without; says which.
    """
    task = source.model
    what = f"states='io': {task.name!r} ({type(task).__name__})"
    _check_arguments(task, what)
    if not set(source.input_names) <= {_IDS, _MASK} or len(source.output_names) != 1:
        raise ExportError(
            f"{what} takes {list(source.input_names)}; a cache is known of models that take "
            f"{_IDS!r} and {_MASK!r} and predict the next token alone."
        )
    spec = _spec_of_cache(task, what)
    ids = source.input_specs[source.input_names.index(_IDS)]
    name, following = f"{STATE}{_NAME}", f"{NEXT_STATE}{_NAME}"
    made = CachedModel(
        task,
        (_IDS, name),
        (tf.TensorSpec([None, None], ids.dtype, name=_IDS), spec),
        [0, 1],
        (*source.output_names, following),
        (),
        {name: following},
        inner=source,
    )
    _check_chunks(made, what)
    return made


def _check_arguments(task: Any, what: str) -> None:
    method = getattr(task, "call_with_cache", None)
    if method is None or not hasattr(task, "_build_cache"):
        raise ExportError(f"{what} has no call_with_cache: it keeps no cache that could be fed.")
    parameters = inspect.signature(method).parameters
    needed = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
    if not set(_ARGUMENTS) <= set(parameters) or not set(needed) <= set(_ARGUMENTS):
        raise ExportError(
            f"{what} has a call_with_cache of the arguments {list(parameters)}; known is one of "
            f"{list(_ARGUMENTS)}. Compile it without states."
        )


def _spec_of_cache(task: Any, what: str) -> Any:
    """Returns a cache's element type, and its sizes: open are the batch and what came before."""
    built = []
    for tokens in (2, 3):
        try:
            built.append(task._build_cache(tf.ones([1, tokens], tf.int32))[1])
        except Exception as error:
            raise ExportError(
                f"{what} builds no cache of ids alone ({type(error).__name__}). Compile it without "
                "states."
            ) from error
    shapes = [tuple(c.shape) if tf.is_tensor(c) else () for c in built]
    grown = [i for i, (a, b) in enumerate(zip(*shapes, strict=False)) if (a, b) == (2, 3)]
    if len(shapes[0]) != len(_AXES) or _PAST not in grown or shapes[0][0] != 1:
        raise ExportError(
            f"{what} keeps a cache of the shape {list(shapes[0])}; known is {list(_AXES)}. Compile "
            "it without states."
        )
    sizes = [None if i in (0, _PAST) else n for i, n in enumerate(shapes[1])]
    return tf.TensorSpec(sizes, built[0].dtype, name=f"state_{_NAME}")


def _check_chunks(made: CachedModel, what: str) -> None:
    """Runs a text as a whole, in two chunks and token by token: all have to predict the same.

    Raises:
        ExportError: they do not, as where attention looks at a window of its own choice.
    """
    embedding = made.model.backbone.token_embedding
    top = int(getattr(embedding, "input_dim", _TOKENS))
    ids = np.random.default_rng(0).integers(0, top, (2, _TOKENS)).astype(np.int32)
    fed = {_IDS: ids, _MASK: np.ones_like(ids)}
    flat = [tf.constant(fed[name]) for name in made.inner.input_names]
    right = np.asarray(keras.ops.convert_to_numpy(made.inner.call_untouched(flat)), np.float64)
    ways: Mapping[str, Sequence[int]] = {
        "at once": (_TOKENS,),
        "in chunks": (_CUT, _TOKENS),
        "token by token": tuple(range(1, _TOKENS + 1)),
    }
    for way, ends in ways.items():
        cache, start, parts = made.flatten(ids)[1], 0, []
        for end in ends:
            logits, cache = followed(made.model, tf.constant(ids[:, start:end]), cache)
            parts.append(np.asarray(keras.ops.convert_to_numpy(logits), np.float64))
            start = end
        apart = np.abs(np.concatenate(parts, 1) - right).max()
        if not apart <= _APART * np.abs(right).max():
            raise ExportError(
                f"{what} with its own cache, fed {way}, predicts {apart:.1e} apart from what it "
                f"predicts without (largest value {np.abs(right).max():.1e}), so that a cache "
                "cannot stand for the tokens before. Compile it without states."
            )
