"""Models that take strings whose windows need some words: how many, and a check in the graph.

How many words a text has is known behind its text layer alone. Where the longest text of a batch
has fewer than an unpadded convolution takes, TensorFlow answers with whatever lies in memory.

    strings [batch, 1] -> TextVectorization -> Embedding -> Conv1D of 5: no fewer than 5 words
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from probegen.artefact.texts import TOO_FEW_WORDS
from probegen.sources.keras.layer_calls import LayerCall
from probegen.sources.keras.shortest import shortest
from probegen.sources.keras.texts import text_layers
from probegen.sources.keras.texts.standing_in import standing_in

#: Rank of words, `[batch, word]`.
_WORDS_RANK = 2


@dataclasses.dataclass(frozen=True)
class FewestWords:
    """What one call of a text layer has to give.

    Attributes:
        layer: the layer.
        input: position of the input whose text it takes apart.
        count: how many words the longest text of a batch needs.
    """

    layer: Any
    input: int
    count: int


def fewest_words(
    operations: Sequence[Any],
    inputs: Sequence[Any],
    calls: Sequence[LayerCall],
    recurrent: Sequence[tuple[Sequence[Any], Sequence[Any]]],
    influences: Callable[[Any], frozenset[int] | set[int]],
) -> list[FewestWords]:
    """Returns what calls of text layers have to give, where that is known and more than nothing.

    Args:
        operations: those of a trace, in the order in which they were made.
        inputs: the flat inputs.
        calls: of layers.
        recurrent: see `shortest`.
        influences: tensor -> ids of the tensors that hang on it.
    """
    kinds = tuple(kind.cls for kind in text_layers())
    own = [c for c in calls if isinstance(c.layer, kinds) and _gives_words(c)]
    if not own:
        return []
    reached = {i: influences(t) for i, t in enumerate(inputs) if t.dtype == tf.string}
    found = []
    for number, sizes in shortest(operations, [c.outputs[0] for c in own], recurrent).items():
        read = own[number].inputs[0]
        texts = [i for i, of in reached.items() if id(read) in of or read is inputs[i]]
        if sizes[1] is not None and len(texts) == 1:
            found.append(FewestWords(own[number].layer, texts[0], sizes[1]))
    return found


def _gives_words(call: LayerCall) -> bool:
    """Tells whether a call makes any number of words of strings."""
    if len(call.outputs) != 1 or not call.inputs or call.inputs[0].dtype != tf.string:
        return False
    shape = getattr(call.outputs[0], "shape", tf.TensorShape(None))
    return shape.rank == _WORDS_RANK and shape[1] is None


@contextlib.contextmanager
def checked_in_graph(needed: Sequence[FewestWords]) -> Iterator[None]:
    """Lets text layers that are traced refuse texts that are too short.

    A layer that is called more than once refuses what is too short for each of the calls.
    """
    least: dict[int, int] = {}
    for one in needed:
        least[id(one.layer)] = min(one.count, least.get(id(one.layer), one.count))

    def checked(original: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
        made, count = original(*args, **kwargs), least[id(layer)]
        rows, words = tf.shape(made)[0], tf.shape(made)[1]
        enough = tf.logical_or(tf.equal(rows, 0), words >= count)
        refuse = tf.debugging.Assert(enough, [f"{TOO_FEW_WORDS} {count}, got", words])
        with tf.control_dependencies([refuse]):
            return tf.identity(made)

    if not least:
        yield
        return
    with standing_in([one.layer for one in needed], checked):
        yield


def by_input(needed: Sequence[FewestWords]) -> Mapping[int, int]:
    """Returns the positions of inputs -> how many words they need."""
    found: dict[int, int] = {}
    for one in needed:
        found[one.input] = max(one.count, found.get(one.input, 0))
    return found
