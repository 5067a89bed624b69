"""SavedModel artefacts for LiteRT, with its built-in operators alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from probegen import runtime
from probegen.errors import ExportError, VerificationError
from probegen.parity.samples import ORDINARY, draw, rungs
from probegen.runtime.files import write_atomic
from probegen.runtime.loaded import Artefact
from probegen.sources.keras.plain_operations import in_plain_operations
from probegen.stages import cause, stage, writing

#: |a - b| over |b| of an output, in the Euclidean norm. Measured: 1e-7 to 1e-6.
LIMIT = 1e-4
EXPLAIN = "explain"


def to_litert(
    artefact: str | os.PathLike[str],
    path: str | os.PathLike[str],
    signature: str = EXPLAIN,
    *,
    samples: Any = None,
) -> dict[str, float]:
    """Converts a signature of a SavedModel artefact to a file that LiteRT runs.

    Inputs and outputs keep their names, as the signature's. What TensorFlow writes gradients with
    is written in operations that LiteRT has: of dense, convolutional (also depthwise), pooling,
    normalisation and attention layers and their usual activations. The file is run and compared
    with the artefact before it appears.

    Args:
        artefact: the folder of a SavedModel that probegen wrote.
        path: `something.tflite`.
        signature: `"explain"` or `"serving_default"`.
        samples: inputs to compare on; generated, of one batch, where left out.

    Returns:
        How far each output is off, |a - b| / |b|.

    Raises:
        ArtefactError: the folder holds no artefact.
        ExportError: it is no folder or has no such signature, or LiteRT lacks operators for it.
        VerificationError: an output is off by more than `LIMIT`. Nothing was written.
    """
    given, final = Path(artefact), Path(path)
    if given.is_file():
        raise ExportError(f"{str(given)!r} is a file; LiteRT is converted to from a SavedModel.")
    art = runtime.load(given, engine="savedmodel")
    module = tf.saved_model.load(str(given))
    if signature not in module.signatures:
        known = ", ".join(sorted(module.signatures))
        raise ExportError(f"{str(given)!r} has no signature {signature!r}; it has {known}.")
    with stage(f"{str(given)!r} cannot be converted for LiteRT", ExportError):
        content = _converted(given, module.signatures[signature], signature)
    off = _distances(content, signature, art, samples)
    wrong = [f"{name!r} ({distance:.1e})" for name, distance in off.items() if distance > LIMIT]
    if wrong:
        raise VerificationError(
            f"LiteRT computes other numbers than {str(given)!r}: {', '.join(wrong)} off, more than "
            f"{LIMIT:.0e}. Nothing was written."
        )
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(final, lambda file: file.write(content))
    return off


def _converted(given: Path, function: Any, signature: str) -> bytes:
    specs = function.structured_input_signature[1]
    _refuse_loops(function, signature)
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    plain = in_plain_operations(frozen, specs, sorted(function.structured_outputs))
    with tempfile.TemporaryDirectory() as made:
        folder = str(given) if plain is frozen else made
        if plain is not frozen:
            tf.saved_model.save(tf.Module(), folder, signatures={signature: plain})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[signature])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            converted: bytes = converter.convert()
        except Exception as error:
            raise ExportError(
                "LiteRT lacks operators for it; recurrent layers need a batch size that is fixed "
                f"(dynamic_batch=False). {cause(error)[:400]}"
            ) from error
    return converted


def _refuse_loops(function: Any, signature: str) -> None:
    """Refuses a signature that explains by a loop, whose gradient TensorFlow cannot even freeze.

    Raises:
        ExportError: it holds one.
    """
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    if signature == EXPLAIN and any("While" in node.op for node in nodes):
        raise ExportError(
            "what explains holds a loop (a recurrent layer, or a method of many points such as "
            "integrated gradients), which is not supported in LiteRT. Leave that probe out, or "
            "convert with signature='serving_default' (--signature serving_default)."
        )


def _distances(content: bytes, signature: str, art: Artefact, samples: Any) -> dict[str, float]:
    if samples is None:
        sizes = next(rungs(()))[0]
        samples = draw(art.manifest, [ORDINARY] * 2, sizes, np.random.default_rng(0)).feed
    feeds = art.prepare(samples, explain=signature == EXPLAIN)
    expected = art.compute(feeds)
    given = {**feeds.inputs, **(feeds.asked if signature == EXPLAIN else {})}
    named = {art.engine.graph_name(name): array for name, array in given.items()}
    runner = tf.lite.Interpreter(model_content=content).get_signature_runner(signature)
    found = runner(**named)
    return {name: _off(found[name], array) for name, array in expected.items()}


def _off(found: Any, expected: Any) -> float:
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    size = float(np.linalg.norm(expected.astype(np.float64)))
    apart = float(np.linalg.norm(found.astype(np.float64) - expected))
    return apart / size if size else apart
