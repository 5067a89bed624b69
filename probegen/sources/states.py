"""Pairs of inputs and outputs that a user names as the states of a model."""

from __future__ import annotations

from collections.abc import Mapping

from probegen.errors import ExportError, nearest
from probegen.plan.model_view import ModelView, TensorFacts


def alike(state: TensorFacts, following: TensorFacts) -> bool:
    """Tells whether a state and the next one have one element type, and sizes that may be equal."""
    if state.dtype != following.dtype or len(state.shape) != len(following.shape):
        return False
    pairs = zip(state.shape, following.shape, strict=True)
    return bool(state.shape) and all(a == b or None in (a, b) for a, b in pairs)


def checked_pairs(view: ModelView, pairs: Mapping[str, str]) -> dict[str, str]:
    """Returns the states that a user says: input -> output.

    Raises:
        ExportError: there is no such input or output, or the two do not go together.
    """
    inputs, outputs = list(view.input_names), list(view.output_names)
    for name, following in pairs.items():
        said = f"states={{{name!r}: {following!r}}}"
        for given, known, what in ((name, inputs, "input"), (following, outputs, "output")):
            if given not in known:
                raise ExportError(
                    f"{said}: the model has no {what} {given!r}; it has "
                    f"{', '.join(map(repr, known))}.{nearest(given, known)}"
                )
        state, end = view.input(inputs.index(name)), view.output(outputs.index(following))
        if not alike(state, end):
            shown = (
                f"{n!r} is {t.dtype} {list(t.shape)}" for n, t in ((name, state), (following, end))
            )
            raise ExportError(
                f"{said}: a state and the next one have one element type and one shape, and "
                f"{' and '.join(shown)}."
            )
    ends = list(pairs.values())
    twice = next((end for end in ends if ends.count(end) > 1), None)
    if twice is not None:
        raise ExportError(f"states=: {twice!r} cannot be the next value of two inputs.")
    return dict(pairs)
