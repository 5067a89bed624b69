"""Inputs with a default are weights: what the file stores for them is what they hold."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

#: Up to this version of the format every weight had to be an input as well.
_WEIGHTS_WERE_INPUTS = 3


def take_defaults(model: ir.Model) -> Iterator[str]:
    """Takes the inputs that have a default out of a model's inputs.

    Yields:
        For the manifest, what is then no longer an input; nothing where the format is so old that
        all weights had to be inputs.
    """
    graph = model.graph
    given = [v for v in graph.inputs if v.name in graph.initializers]
    if not given:
        return
    graph.inputs[:] = [v for v in graph.inputs if v.name not in graph.initializers]
    if model.ir_version > _WEIGHTS_WERE_INPUTS:
        names = ", ".join(repr(v.name) for v in given[:5])
        more = f" and {len(given) - 5} more" if len(given) > 5 else ""
        yield (
            f"The file stores defaults for the inputs {names}{more}; they are constants here, and "
            "no inputs of the artefact."
        )
