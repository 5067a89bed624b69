"""What a file says of its inputs, put right: defaults are weights, sizes of -1 are open ones."""

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


def open_negative_sizes(model: ir.Model) -> None:
    """Takes negative sizes for open ones, as Paddle's exporter of old writes them.

    `x [-1, 3, H, W]` -> `x [?, 3, H, W]`
    """
    graph = model.graph
    inner = [v for node in graph.all_nodes() for v in node.outputs]
    for value in [*graph.inputs, *graph.outputs, *inner]:
        sizes = None if value.shape is None else list(value.shape)
        if sizes is not None and any(isinstance(d, int) and d < 0 for d in sizes):
            value.shape = ir.Shape([None if isinstance(d, int) and d < 0 else d for d in sizes])
