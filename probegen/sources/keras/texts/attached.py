"""KerasHub's tasks, which carry a preprocessor: the model takes ids, and the task takes text."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from probegen.artefact.texts import IDS, MASK, SEGMENTS, TextSpec
from probegen.errors import ExportError
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.texts import hub

#: What preprocessors call what they make.
_MADE = {"token_ids": IDS, "padding_mask": MASK, "segment_ids": SEGMENTS}
_NAME = "text"


@dataclasses.dataclass(frozen=True)
class Attached:
    """The preprocessor of a task.

    Attributes:
        model: the task.
        spec: what the runtime does in its stead.
        generates: whether the task writes a text on: its texts then have no end, and the rows are
            as long as the longest.
    """

    model: KerasModel
    spec: TextSpec
    generates: bool

    def read_texts(
        self, feed: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any] | Exception]:
        """Returns what the preprocessor makes of texts, and what the task predicts of that."""
        preprocessor = self.model.model.preprocessor
        given = feed[self.spec.name]
        texts = [text.decode() for text in given.reshape(-1).tolist()]
        if self.generates:
            rows = [len(row) for row in preprocessor.tokenizer(texts)]
            more = len(preprocessor.packer.start_value or ()) if preprocessor.add_start_token else 0
            made = preprocessor.generate_preprocess(texts, sequence_length=max(rows) + more)
        else:
            pairs = given.ndim == 2  # [batch, 2]
            # A tuple alone would be taken for texts and labels.
            made = preprocessor((texts[::2], texts[1::2]) if pairs else texts, y=None)
        found = {}
        for name, spec in zip(self.model.input_names, self.model.input_specs, strict=True):
            found[name] = np.asarray(made[name]).astype(spec.dtype.as_numpy_dtype)
        flat = [tf.constant(found[name]) for name in self.model.input_names]
        try:
            outputs = keras.tree.flatten(self.model.call_untouched(flat))
        except Exception as error:  # a text may be longer than the model takes
            return found, error
        named = zip(self.model.output_names, outputs, strict=True)
        return found, {name: np.asarray(keras.ops.convert_to_numpy(v)) for name, v in named}


def attached(model: KerasModel) -> Attached | None:
    """Returns what a task's preprocessor does to texts; None for what is no such task.

    Warns where there is one, and the runtime cannot do its work: the artefact then takes ids alone.
    """
    known = sys.modules.get("keras_hub")
    task = model.model
    if known is None or not isinstance(task, known.models.Task) or task.preprocessor is None:
        return None
    preprocessor = task.preprocessor
    generates = isinstance(task, known.models.CausalLM)
    if not generates and not isinstance(task, known.models.TextClassifier):
        return None
    names = [name for name in model.input_names if name not in model.carried_states]
    if not set(names) <= set(_MADE) or "token_ids" not in names:
        return None
    try:
        if not preprocessor.built:
            preprocessor.build(None)
        length = None if generates else preprocessor.sequence_length
        settings = hub.preprocessed(preprocessor, length, ends=not generates)
    except (ExportError, AttributeError) as error:
        warnings.warn(
            f"the artefact of {task.name!r} takes ids and no text, since its preprocessor, a "
            f"{type(preprocessor).__name__}, is none that the runtime knows: {error}",
            stacklevel=2,
        )
        return None
    makes = {_MADE[name]: name for name in names}
    return Attached(model, TextSpec(_NAME, (None,), makes, settings), generates)
