"""The artefact's inputs, and the predictions among its outputs."""

from __future__ import annotations

from collections.abc import Sequence

from probegen.artefact import manifest
from probegen.artefact.manifest import InputSpec, OutputSpec
from probegen.errors import InstrumentError
from probegen.plan import axes
from probegen.sources.keras.first_floats import Tie
from probegen.sources.keras.planning.context import Context
from probegen.sources.keras.trace import is_differentiable

#: Rank of what a single column of ids looks up: a vector a sample.
_COLUMN_RANK = 2


def inputs(context: Context) -> tuple[InputSpec, ...]:
    """Returns the artefact's inputs that come from the model."""
    return tuple(_input(context, i) for i in range(len(context.source.input_names)))


def _input(context: Context, position: int) -> InputSpec:
    tensor = context.trace.inputs[position]
    shape = tuple(tensor.shape)
    lookups = [s for s in context.starts if s.is_lookup and s.carries(position)]
    floats = tensor.dtype.is_floating and any(
        is_differentiable(context.trace, tensor, out) for out in context.trace.outputs
    )
    # Numbers that are sorted into bins may be any; ids are cast to whole numbers.
    ids = not floats and position in context.trace.first_floats.truncated
    whole = [s for s in lookups if s.ties[position] >= Tie.WHOLE]
    sequences = [s for s in lookups if len(context.shape(s.ref)) > _COLUMN_RANK]
    return InputSpec(
        name=context.source.input_names[position],
        dtype=tensor.dtype.name,
        shape=shape,
        axes=axes.input_axes(
            context.trace.axes(tensor), tokens=bool(whole or sequences) and not floats
        ),
        vocabulary=min((s.rows for s in whole if s.rows is not None), default=None),
        integer=tensor.dtype.is_floating and bool(lookups) and (bool(whole) or ids),
    )


def predictions(context: Context, class_names: Sequence[str] | None) -> tuple[OutputSpec, ...]:
    """Returns the model's own outputs."""
    specs = []
    for name, tensor, before in zip(
        context.source.output_names, context.trace.outputs, context.scores, strict=True
    ):
        shape = tuple(tensor.shape)
        names = context.trace.axes(tensor)
        channel = axes.channel_axis(names)
        several = channel is not None and shape[channel] != 1
        classes = (before is not None or class_names is not None) and several
        specs.append(
            OutputSpec(
                name=name,
                kind=manifest.PREDICTION,
                dtype=tensor.dtype.name,
                shape=shape,
                axes=axes.prediction_axes(names, classes),
                detail={"activation": before is not None},
            )
        )
    return tuple(specs)


def checked_class_names(
    class_names: Sequence[str] | None, predictions: Sequence[OutputSpec]
) -> tuple[str, ...] | None:
    """Returns class names as a tuple.

    Raises:
        InstrumentError: no output has that many classes.
    """
    if class_names is None:
        return None
    channels = [axes.channel_axis(p.axes) for p in predictions]
    sizes = [p.shape[c] for p, c in zip(predictions, channels, strict=True) if c is not None]
    wrong = manifest.wrong_class_names(class_names, sizes)
    if wrong is not None:
        raise InstrumentError(wrong)
    return tuple(str(n) for n in class_names)
