"""Lists every point of a model that can be probed, and how, and what probes would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probegen.errors import InstrumentError
from probegen.instrumentation.planning.context import Context
from probegen.instrumentation.source import as_source
from probegen.points import ProbePoints
from probegen.spec import as_probes
from probegen.stages import stage


def inspect(
    model: Any,
    *,
    probes: Any = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
    inputs: Any = None,
) -> ProbePoints:
    """Returns the probe points of a model: one for each call of each layer, inputs first.

    The result is a sequence of `ProbePoint`s and prints as a table. The model is traced
    symbolically: nothing is computed, and nothing of it is changed.

    With `probes`, the result's `cost` tells what each of them, and all together, would add to
    the prediction in an ONNX artefact, and which operations would be refused; see
    `probegen.cost.Costs`. The artefact's graph is made for it as an export makes it, but without
    the weights.

    Args:
        model: a built `keras.Model`, or the path of a `.keras`, `.h5` or `.hdf5` file.
        probes: a probe or a list of probes whose cost is asked for.
        sizes: input name -> its sizes without the batch, where the model leaves some open and
            the cost is asked for. Left out, 224 is assumed for the height and the width of an
            image, 128 for the length of a sequence, 32 elsewhere; the report says so.
        inputs: for a subclassed model whose inputs Keras does not record: sample arrays or
            `keras.InputSpec`s in the nest that its `call` takes.

    Raises:
        SourceError: it is no model, or not built.
        InstrumentError: it cannot be traced as a graph, or a target does not fit it.
        SpecError: probes or sizes are malformed.
        SelectionError: a probe's selector matches nothing.
    """
    with stage("the model cannot be inspected", InstrumentError):
        context = Context(as_source(model, inputs))
        points = context.points
        if probes is None:
            return points
        # Counting needs the exporting side, which listing does not.
        from probegen.costing import costs_of

        cost = costs_of(context, as_probes(probes), sizes)
        return ProbePoints(points, points.model_name, cost)
