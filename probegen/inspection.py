"""Lists every point of a model that can be probed, and how, and what probes would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probegen.errors import InstrumentError
from probegen.methods.lookup import as_probes
from probegen.plan.points import ProbePoint, ProbePoints
from probegen.sources import open_source
from probegen.stages import stage

if TYPE_CHECKING:
    from probegen.cost.report import Costs


class Inspection(ProbePoints):
    """The probe points of a model, with what probes cost; prints as tables.

    Attributes:
        model_name: name of the model.
        cost: what the probes would cost that `inspect` was given, None where it was given none;
            printed below the points, or by itself.
    """

    def __init__(
        self, points: Sequence[ProbePoint], model_name: str, cost: Costs | None = None
    ) -> None:
        super().__init__(points, model_name)
        self.cost = cost

    def __str__(self) -> str:
        points = super().__str__()
        return points if self.cost is None else f"{points}\n\n{self.cost}"


def inspect(
    model: Any,
    probes: Any = None,
    *,
    sizes: Mapping[str, Sequence[int]] | None = None,
    inputs: Any = None,
) -> Inspection:
    """Returns the probe points of a model: one for each call of each layer, inputs first.

    The result is a sequence of `ProbePoint`s and prints as a table. Nothing of the model is
    changed.

    With `probes`, the result's `cost` tells what each of them, and all together, would add to
    the prediction in an ONNX artefact, and which operations would be refused; see
    `probegen.cost.report.Costs`. The artefact's graph is made for it as an export makes it, but
    without the weights.

    Args:
        model: a built `keras.Model`, or the path of a `.keras`, `.h5`, `.hdf5` or `.onnx` file.
        probes: a probe or a list of probes whose cost is asked for.
        sizes: input name -> its sizes without the batch, where the model leaves some open and
            the cost is asked for. Left out, 224 is assumed for the height and the width of an
            image, 128 for the length of a sequence, 32 elsewhere; the report says so.
        inputs: for a subclassed model whose inputs Keras does not record: sample arrays or
            `keras.InputSpec`s in the nest that its `call` takes.

    Raises:
        SourceError: it is no model, or not built.
        InstrumentError: it cannot be traced as a graph, or no target fits it.
        SpecError: probes or sizes are malformed.
        SelectionError: no probe's selector matches anything; where others do, its row says so.
    """
    with stage("the model cannot be inspected", InstrumentError):
        source = open_source(model, inputs)
        points = source.view.points
        if probes is None:
            return Inspection(points, points.model_name)
        # Counting needs the exporting side, which listing does not.
        from probegen.cost.estimate import costs_of

        cost = costs_of(source.as_written("onnx"), as_probes(probes), sizes)
        return Inspection(points, points.model_name, cost)
