"""A model whose recurrent states are inputs and outputs, so that a series can be run in chunks.

The model stays as it is. The loop of each chosen layer starts from what is fed in the place of the
layer's own states, and where it ends comes out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from probegen.artefact.manifest import NEXT_STATE, STATE
from probegen.errors import ExportError
from probegen.plan.axes import BATCH, Axes
from probegen.plan.points import ProbePoint
from probegen.sources.keras.capture import feeding_states
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.layer_calls import LayerCall
from probegen.sources.keras.points import recurrences_at
from probegen.sources.keras.recurrence import Recurrence, forms
from probegen.sources.keras.view import KerasView
from probegen.sources.states import checked_pairs


@dataclasses.dataclass(frozen=True)
class CarriedState:
    """One state of a recurrent layer.

    Attributes:
        name: the input that it starts from: `"state/lstm:1"`.
        output: the output that says where it ends: `"next_state/lstm:1"`.
        layer: the layer.
        axes: of both.
    """

    name: str
    output: str
    layer: Any
    axes: Axes


@dataclasses.dataclass(frozen=True)
class StatesModel(KerasModel):
    """A built model with states among its inputs, and the next states among its outputs.

    Attributes:
        inner: the model without.
        carried: the states, in the order in which they stand behind the model's own.
    """

    inner: KerasModel = dataclasses.field(kw_only=True)
    carried: tuple[CarriedState, ...] = ()

    def axes_of(self, name: str) -> Axes | None:
        """Returns the axes of such an input or output, None of any other."""
        return next((s.axes for s in self.carried if name in (s.name, s.output)), None)

    def call_untouched(self, flat: Sequence[Any]) -> Any:
        """Calls the model with its layers starting from what is fed behind its own inputs."""
        count = len(self.carried)
        given: dict[int, list[Any]] = {}
        for state, tensor in zip(self.carried, flat[-count:], strict=True):
            given.setdefault(id(state.layer), []).append(tensor)
        with feeding_states(given) as final:
            nest = self.inner.call_untouched(flat[:-count])
        parts = {key: iter(states) for key, states in final.items()}
        return nest, [next(parts[id(state.layer)]) for state in self.carried]

    def own_nest(self, nest: Any) -> Any:
        """Returns the predictions as the model itself nests them."""
        return nest[0]

    def flatten(self, inputs: Any) -> list[Any]:
        """Returns what a caller passed as flat inputs: zeros for states that are left out."""
        names = [state.name for state in self.carried]
        own, states = inputs, {}
        if isinstance(inputs, dict):
            own = {name: value for name, value in inputs.items() if name not in names}
            states = {name: value for name, value in inputs.items() if name in names}
        flat = self.inner.flatten(own)
        rows = tf.shape(flat[0])[0]
        specs = self.input_specs[-len(names) :]
        return [
            *flat,
            *(
                states[name] if name in states else tf.zeros([rows, *spec.shape[1:]], spec.dtype)
                for name, spec in zip(names, specs, strict=True)
            ),
        ]


def with_states(view: KerasView, select: Any) -> StatesModel:
    """Returns a model whose recurrent states are inputs and outputs.

    Args:
        view: of the model.
        select: the layers; None for the stateful ones, or all recurrent ones where none is
            stateful. Layers that the model itself gives their first state are then left out.

    Raises:
        SelectionError: `select` matches no recurrent layer.
        ExportError: a layer cannot start from a state that is fed; says why.
    """
    source = view.source
    found = _loops(view, view.select("*" if select is None else select, "states"))
    if select is None:
        found = [(c, r) for c, r in found if r.layer.stateful] or found
        found = [(c, r) for c, r in found if not c.given_state]
    if not found:
        raise ExportError(
            f"states='io': every recurrent layer of {source.model.name!r} gets its first state "
            "from the model itself, so that there is none to feed."
        )
    _check(found)
    carried, specs = [], []
    for call, loop in found:
        for form in forms(loop):
            if form.is_gate:
                continue
            name = f"{STATE}{call.path}{form.suffix}"
            sizes = (form.shape[0], *form.shape[2:])
            axes = (BATCH, *form.axes[2:])
            carried.append(
                CarriedState(name, f"{NEXT_STATE}{call.path}{form.suffix}", loop.layer, axes)
            )
            identifier = "".join(c if c.isalnum() else "_" for c in name)
            specs.append(tf.TensorSpec(sizes, form.dtype, name=identifier))
            if None in sizes[1:]:
                raise ExportError(
                    f"states='io': {name!r} has the shape {list(sizes)}: give the model's input "
                    "fixed sizes but for the batch and the time."
                )
    return StatesModel(
        source.model,
        (*source.input_names, *(s.name for s in carried)),
        (*source.input_specs, *specs),
        source.structure,
        (*source.output_names, *(s.output for s in carried)),
        source.arguments,
        {state.name: state.output for state in carried},
        inner=source,
        carried=tuple(carried),
    )


def with_own_states(view: KerasView, pairs: Mapping[str, str]) -> KerasModel:
    """Returns a model that takes and gives out states already, as a user pairs them.

    Args:
        view: of the model.
        pairs: input -> output.

    Raises:
        ExportError: there is no such input or output, or the two do not go together.
    """
    return dataclasses.replace(view.source, carried_states=checked_pairs(view, pairs))


def _loops(view: KerasView, points: Sequence[ProbePoint]) -> list[tuple[LayerCall, Recurrence]]:
    """Returns the loops at some points, each once."""
    found = {}
    for point in points:
        call = view.trace.call((point.path, point.call_index))
        for inner, loop in recurrences_at(view.trace, call):
            found[id(loop)] = inner, loop
    return list(found.values())


def _check(found: Sequence[tuple[LayerCall, Recurrence]]) -> None:
    """Refuses loops that cannot start from a state that is fed.

    Raises:
        ExportError: there is one; says why, and what to do.
    """
    for call, loop in found:
        what = f"states='io': the layer {call.path!r}"
        instead = "Name the layers whose states are fed, such as states='io:lstm*'."
        if loop.layer.go_backwards:
            raise ExportError(
                f"{what} reads a series from its end, so that no chunk of it can be run before "
                f"those behind it. {instead}"
            )
        if sum(c.layer is loop.layer for c, _ in found) > 1 or loop.beside or loop.folds:
            raise ExportError(
                f"{what} runs several times in one call of the model, each with a state of its "
                f"own. {instead}"
            )
        if call.given_state:
            raise ExportError(f"{what} gets its first state from the model itself. {instead}")
        if not loop.layer.stateful and not _starts_from_zero(loop.layer):
            raise ExportError(
                f"{what} starts from states that are not zero, where fed states are zero by "
                f"default. {instead}"
            )


def _starts_from_zero(layer: Any) -> bool:
    try:
        states = layer.get_initial_state(batch_size=1)
    except TypeError:  # convolutional ones are zeros of the sizes of their input
        return True
    flat = keras.tree.flatten(states)
    return all(not np.asarray(keras.ops.convert_to_numpy(s)).any() for s in flat)
