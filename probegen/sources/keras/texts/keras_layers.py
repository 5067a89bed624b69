"""Keras' own text layers as data: `TextVectorization`, `StringLookup` and `Hashing`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from probegen.artefact.texts import pack
from probegen.errors import ExportError
from probegen.runtime.texts.lookup import INT, TF_IDF


def vectorization(layer: Any, path: str) -> dict[str, Any]:
    """Returns the settings of a `TextVectorization`; see `runtime.texts.vectorization`.

    Raises:
        ExportError: it does what the runtime does not; says what to do instead.
    """
    config = layer.get_config()
    for name, of_keras in (
        ("standardize", "'lower_and_strip_punctuation', 'lower' or 'strip_punctuation'"),
        ("split", "'whitespace', 'character' or None"),
    ):
        if callable(getattr(layer, f"_{name}")):
            raise ExportError(
                f"the layer {path!r} has a function of your own as {name}=, which no file can hold "
                f"and no runtime without TensorFlow can run. Use one of Keras' ({of_keras}) and "
                "prepare the texts before they are fed; or export to SavedModel "
                "(format='savedmodel')."
            )
    if config["ragged"] or config["sparse"]:
        raise ExportError(
            f"the layer {path!r} gives ragged or sparse tensors, which ONNX does not have: make it "
            "with ragged=False and sparse=False."
        )
    ngrams = layer._ngrams
    if config["split"] is None and (ngrams or config["output_sequence_length"]):
        raise ExportError(
            f"the layer {path!r} does not split (split=None), and yet has ngrams= or "
            "output_sequence_length=, which the runtime does not do: leave them out."
        )
    return {
        **lookup(layer._lookup_layer, path),
        "kind": "text_vectorization",
        "standardize": config["standardize"],
        "split": config["split"],
        "ngrams": None if ngrams is None else [int(n) for n in ngrams],
        "length": config["output_sequence_length"],
    }


def lookup(layer: Any, path: str) -> dict[str, Any]:
    """Returns the settings of a `StringLookup`; see `runtime.texts.lookup`.

    Raises:
        ExportError: it does what the runtime does not; says what to do instead.
    """
    if layer.invert:
        raise ExportError(
            f"the layer {path!r} turns numbers into strings (invert=True), which no ONNX artefact "
            "gives: leave it out of the model, and pass class_names= to name the classes."
        )
    if layer.sparse:
        raise ExportError(
            f"the layer {path!r} gives sparse tensors, which ONNX does not have: make it with "
            "sparse=False."
        )
    if layer.num_oov_indices > 1 and layer.salt is not None:
        raise ExportError(
            f"the layer {path!r} hashes unknown words with a salt (salt={layer.salt}), which the "
            "runtime does not: leave the salt out, or use num_oov_indices=1."
        )
    words = _vocabulary(layer)
    if not words:
        raise ExportError(f"the layer {path!r} has no vocabulary: call its adapt() on texts first.")
    mode = layer.output_mode
    settings: dict[str, Any] = {
        "kind": "string_lookup",
        "vocabulary": pack(words),
        "mask_token": layer.mask_token,
        "oov_token": layer.oov_token,
        "oov": int(layer.num_oov_indices),
        "mode": mode,
        "dtype": "int64",
    }
    if mode != INT:
        pads = layer.pad_to_max_tokens
        settings["depth"] = int(layer.max_tokens if pads else layer.vocabulary_size())
    if mode == TF_IDF:
        weights = np.asarray(keras.ops.convert_to_numpy(layer.idf_weights_const))
        settings["weights"] = pack(weights.astype(np.float64).tolist())
        settings["dtype"] = weights.dtype.name
    return settings


def hashing(layer: Any, path: str) -> dict[str, Any]:
    """Returns the settings of a `Hashing`; see `runtime.texts.hashing`.

    Raises:
        ExportError: it does what the runtime does not; says what to do instead.
    """
    if layer.strong_hash or layer.sparse:
        what = "hashes with a salt" if layer.strong_hash else "gives sparse tensors"
        raise ExportError(
            f"the layer {path!r} {what}, which the runtime does not: make it without salt= and "
            "sparse=."
        )
    return {
        "kind": "hashing",
        "bins": int(layer.num_bins),
        "mask": None if layer.mask_value is None else str(layer.mask_value),
        "mode": layer.output_mode,
        "dtype": str(layer.dtype),
    }


def _vocabulary(layer: Any) -> list[str]:
    """Returns the words of a look-up by id, without special tokens.

    The layer's own `get_vocabulary` goes through numpy's text, which drops zero bytes at the end.
    """
    keys, values = layer.lookup_table.export()
    by_id = zip(values.numpy().tolist(), keys.numpy().tolist(), strict=True)
    return [word.decode("utf-8", "surrogateescape") for _, word in sorted(by_id)]
