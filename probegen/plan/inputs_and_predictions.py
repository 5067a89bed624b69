"""The artefact's inputs, and the predictions among its outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from probegen.artefact import manifest
from probegen.artefact.manifest import InputSpec, OutputSpec
from probegen.errors import InstrumentError
from probegen.plan import axes
from probegen.plan.model_view import ModelView, Tie

#: Rank of what a single column of ids looks up: a vector a sample.
_COLUMN_RANK = 2


def inputs(view: ModelView) -> tuple[InputSpec, ...]:
    """Returns the artefact's inputs that come from the model."""
    paddings, longest, shortest = view.paddings(), view.longest(), view.shortest()
    fewest_words = view.fewest_words()
    return tuple(
        dataclasses.replace(
            _input(view, i),
            padding=paddings.get(i),
            longest=longest.get(i),
            shortest=shortest.get(i),
            fewest_words=fewest_words.get(i),
        )
        for i in range(len(view.input_names))
    )


def _input(view: ModelView, position: int) -> InputSpec:
    tensor = view.input(position)
    lookups = [s for s in view.starts if s.is_lookup and s.carries(position)]
    floats = tensor.is_float and view.explainable_in_part(position)
    # Numbers that are sorted into bins may be any; ids are cast to whole numbers.
    ids = not floats and view.holds_ids(position)
    whole = [s for s in lookups if s.ties[position] >= Tie.WHOLE]
    sequences = [s for s in lookups if len(view.tensor(s.ref).shape) > _COLUMN_RANK]
    return InputSpec(
        name=view.input_names[position],
        dtype=tensor.dtype,
        shape=tensor.shape,
        axes=axes.input_axes(tensor.axes, tokens=bool(whole or sequences) and not floats),
        vocabulary=min((s.rows for s in whole if s.rows is not None), default=None),
        integer=tensor.is_float and bool(lookups) and (bool(whole) or ids),
        next_state=view.carried.get(view.input_names[position]),
    )


def predictions(view: ModelView, class_names: Sequence[str] | None) -> tuple[OutputSpec, ...]:
    """Returns the model's own outputs."""
    specs = []
    for position, name in enumerate(view.output_names):
        tensor = view.output(position)
        shape, names, scores = tensor.shape, tensor.axes, view.has_scores(position)
        channel = axes.channel_axis(names)
        state = next((s for s, following in view.carried.items() if following == name), None)
        several = channel is not None and shape[channel] != 1 and state is None
        classes = (scores or class_names is not None) and several
        specs.append(
            OutputSpec(
                name=name,
                kind=manifest.PREDICTION,
                dtype=tensor.dtype,
                shape=shape,
                axes=axes.prediction_axes(names, classes),
                title="" if state is None else "State after the last step",
                detail={"activation": scores} if state is None else {manifest.STATE_OF: state},
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
    own = [p for p in predictions if not p.is_state]
    channels = [axes.channel_axis(p.axes) for p in own]
    sizes = [p.shape[c] for p, c in zip(own, channels, strict=True) if c is not None]
    wrong = manifest.wrong_class_names(class_names, sizes)
    if wrong is not None:
        raise InstrumentError(wrong)
    return tuple(str(n) for n in class_names)
