"""Lists every point of a model that can be probed, and how."""

from __future__ import annotations

from typing import Any

from probegen.instrumentation.points import probe_points
from probegen.instrumentation.source import as_source
from probegen.instrumentation.trace import trace
from probegen.points import ProbePoints


def inspect(model: Any, *, inputs: Any = None) -> ProbePoints:
    """Returns the probe points of a model: one for each call of each layer, inputs first.

    The result is a sequence of `ProbePoint`s and prints as a table. The model is traced
    symbolically: nothing is computed, and nothing of it is changed.

    Args:
        model: a built `keras.Model`, or the path of a `.keras`, `.h5` or `.hdf5` file.
        inputs: for a subclassed model whose inputs Keras does not record: sample arrays or
            `keras.InputSpec`s in the nest that its `call` takes.

    Raises:
        SourceError: it is no model, or not built.
        InstrumentError: it cannot be traced as a graph.
    """
    return probe_points(trace(as_source(model, inputs)))
