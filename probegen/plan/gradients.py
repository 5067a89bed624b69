"""Planning of the outputs of probes that explain inputs, layers and states over time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from probegen.artefact.manifest import (
    CAST_DETAIL,
    PADDING_DETAIL,
    PER_TOKEN_DETAIL,
    OutputSpec,
)
from probegen.errors import InstrumentError
from probegen.methods.base import GradientProbe, OfInputs, OfLayer
from probegen.methods.by_scores import ByScores, hidden_axes
from probegen.methods.samples import Place
from probegen.plan import axes, numbers_of_inputs
from probegen.plan.explained_tensors import Explained, ExplainedTensors
from probegen.plan.layer_maps import LayerMaps
from probegen.plan.model_view import ModelView
from probegen.plan.naming import output_name
from probegen.plan.plan import (
    NUDGE,
    STEP_NUDGE,
    GradientOutput,
    PaddingPlan,
    TargetPlan,
    TensorRef,
)
from probegen.plan.points import Shape

#: Rank of what has one vector a sample: counts of ids, or the look-up of a single one.
_COUNTS_RANK = 2


class GradientPlanner:
    """Plans the outputs of probes that explain a score."""

    def __init__(self, view: ModelView, by_scores: bool = False) -> None:
        """Makes a planner.

        Args:
            view: the model.
            by_scores: plan probes that need scores alone: of what the target depends on, be it
                differentiable or not.
        """
        self._view = view
        self._tensors = ExplainedTensors(view, by_scores)
        self._filled = ExplainedTensors(view, by_scores, fills=True)
        self._maps = LayerMaps(view, self._tensors)

    def gradients(self, probe: GradientProbe, target: TargetPlan) -> list[GradientOutput]:
        """Returns the outputs of a probe for what it explains."""
        if isinstance(probe, OfLayer):
            return self._maps.planned(probe, target)
        tensors = self._filled if probe.fills else self._tensors
        found = tensors.chosen_by(probe.selector, target)
        _check_states(probe, found)
        if isinstance(probe, ByScores):
            found = self._whole_inputs(found)
        self._check_per_token(probe, found)
        several = len(found) > 1
        places = [
            Place(one.name, self._tensors.axes_of(one), one.inputs, number)
            for number, one in enumerate(found)
        ]
        shapes = [self._view.tensor(one.ref).shape for one in found]
        numbers_of_inputs.check(probe, found, self._view)
        probe.check_places(list(zip(places, shapes, strict=True)))
        own = [probe.at_place(place) for place in places]
        left_out = tensors.left_out(found, target) if probe.selector == "input" else []
        return [
            GradientOutput(
                self._gradient_spec(of_one, target, one, several, left_out),
                one.ref,
                of_one,
                self._tensors.axes_of(one),
                one.inputs,
                one.name,
                self._moves(one) if isinstance(probe, ByScores) else (),
                number,
                padding=self._padding(probe, one),
            )
            for number, (one, of_one) in enumerate(zip(found, own, strict=True))
        ]

    def _check_per_token(self, probe: GradientProbe, found: Sequence[Explained]) -> None:
        """Refuses numbers per token of what holds no tokens.

        Raises:
            InstrumentError: nothing does; says what there is.
        """
        if not isinstance(probe, OfInputs) or probe.per_token is None:
            return
        named = [(one, self._tensors.axes_of(one)) for one in found]
        for one, names in named:
            counts = one.start is not None and one.start.is_lookup and len(names) == _COUNTS_RANK
            if counts and any(len(self._input_shape(name)) > 1 for name in one.inputs):
                raise InstrumentError(
                    f"per_token={probe.per_token!r}: what is made of input {one.inputs[0]!r} has "
                    f"the axes {', '.join(names)}: its tokens are counted, or looked up together, "
                    "so that none has numbers of its own. Leave per_token out."
                )
        if all(probe.token_axis(names) is None for _, names in named):
            shown = "; ".join(
                f"{one.name!r} has the axes {', '.join(names)}" for one, names in named
            )
            raise InstrumentError(
                f"per_token={probe.per_token!r} gives one number for the vector of each token, and "
                f"there are none: {shown}. Leave per_token out, or give wrt= an embedding."
            )

    def _input_shape(self, name: str) -> axes.Sizes:
        return self._view.input(self._view.input_names.index(name)).shape

    def _sizes_of(self, name: str) -> list[int]:
        """Returns the sizes of one sample of an input, 0 where one is open."""
        facts = self._view.input(self._view.input_names.index(name))
        return [n or 0 for n, a in zip(facts.shape, facts.axes, strict=True) if a != axes.BATCH]

    def _moves(self, one: Explained) -> tuple[tuple[TensorRef, axes.Axes], ...]:
        return tuple((each.ref, self._tensors.axes_of(each)) for each in (one, *one.others))

    def _whole_inputs(self, found: Sequence[Explained]) -> list[Explained]:
        """Returns what stands for inputs with all look-ups of an input as one.

        Those of an input whose look-ups have other positions than each other stay apart, and those
        that have none where the input is more than one number a sample: columns of a table that
        are looked up one by one have nothing to do with each other. An input that the model also
        computes with is moved itself, and what it looks up follows.
        """
        together: dict[Any, list[Explained]] = {}
        for one in found:
            together.setdefault(one.inputs if len(one.inputs) == 1 else one.ref, []).append(one)
        whole: list[Explained] = []
        for parts in together.values():
            first, *others = [part for part in parts if part.ref.is_input] or parts
            positions = {self._positions(part) for part in parts}
            alone = len(first.inputs) == 1 and math.prod(self._sizes_of(first.inputs[0])) == 1
            if others and len(positions) == 1 and (alone or () not in positions):
                name = first.inputs[0]
                whole.append(dataclasses.replace(first, name=name, others=tuple(others)))
            else:
                whole += [first, *others]
        return whole

    def _positions(self, one: Explained) -> tuple[tuple[str, int | None], ...]:
        """Returns names and sizes of the axes of positions; nothing of a plain vector."""
        shape = self._view.tensor(one.ref).shape
        named, sizes, _ = axes.with_batch_first(self._tensors.axes_of(one), shape)
        hidden = hidden_axes(named)
        vector = axes.channel_axis(named) in hidden
        return () if vector else tuple((named[i], sizes[i]) for i in hidden)

    def _gradient_spec(
        self,
        probe: GradientProbe,
        target: TargetPlan,
        one: Explained,
        several: bool,
        left_out: Sequence[str],
    ) -> OutputSpec:
        ref = one.ref
        facts = self._view.tensor(ref)
        dtype = facts.dtype if facts.is_float else "float32"
        names = self._tensors.axes_of(one)
        left, sizes = probe.result(names, facts.shape, one.name)
        along_input = len(one.inputs) == 1 and self._tensors.follows_input(one)
        return OutputSpec(
            name=output_name(probe, one.name, several),
            dtype=dtype,
            shape=sizes,
            axes=left,
            layer=ref.path,
            call=ref.call,
            calls=next((p.calls for p in self._view.points if p.path == ref.path), 1),
            input=one.inputs[0] if along_input else None,
            target=target.spec,
            **self._described(probe, one, left_out),
        )

    def _described(
        self, probe: GradientProbe, one: Explained, left_out: Sequence[str]
    ) -> dict[str, Any]:
        """Returns what the manifest says of the method, and of what tells where padding is."""
        told = probe.described(self._tensors.axes_of(one))
        told["detail"] = {**told["detail"], **self._view.detail_of(one.ref)}
        if one.start is not None and not one.start.is_lookup and one.name not in one.inputs:
            made = " and ".join(map(repr, one.inputs)) or "an input"
            told["method"] += f"; at {one.name!r}, to which the model casts {made}"
            told["detail"] = {**told["detail"], CAST_DETAIL: one.name}
        elif numbers_of_inputs.stands_in(one):
            told["method"] += f"; of {numbers_of_inputs.described(one)}"
        if left_out:
            names = " and ".join(map(repr, left_out))
            stays = "stays" if len(left_out) == 1 else "stay"
            told["method"] += (
                f"; {names} {stays} as fed"
                if isinstance(probe, ByScores)
                else f"; no gradient reaches {names}"
            )
        if PER_TOKEN_DETAIL not in told["detail"]:
            return told
        padding, said = self._padding(probe, one), ""
        if padding is not None:
            values = " or ".join(f"{value:g}" for value in padding.values)
            said = f"{self._view.input_names[padding.ref.position]!r} is {values}"
        return {**told, "detail": {**told["detail"], PADDING_DETAIL: said}}

    def _padding(self, probe: GradientProbe, one: Explained) -> PaddingPlan | None:
        """Returns what says where one number a token is padding; None where that is not known."""
        names = self._tensors.axes_of(one)
        per_token = isinstance(probe, OfInputs) and probe.token_axis(names) is not None
        if not per_token or len(one.inputs) != 1 or not self._tensors.follows_input(one):
            return None
        of = self._view.input_names
        padding = self._view.paddings().get(of.index(one.inputs[0]))
        if padding is None:
            return None
        position = of.index(padding.input)
        shape = self._view.input(position).shape
        sizes = probe.result(names, self._view.tensor(one.ref).shape, one.name)[1]
        over = _axes_beside(shape, sizes)
        ref = TensorRef(None, position=position)
        return None if over is None else PaddingPlan(ref, padding.values, over)


def _check_states(probe: GradientProbe, found: Sequence[Explained]) -> None:
    """Refuses what steps of a loop make to a method that looks at other values than they have.

    Raises:
        InstrumentError: it is such a method; says what works.
    """
    where = next((one for one in found if one.ref.made in (NUDGE, STEP_NUDGE)), None)
    as_it_is = probe.needs_gradient and probe.gradients_at() is None and probe.table() is None
    if where is not None and (isinstance(probe, ByScores) or not as_it_is):
        of_states = where.ref.made == NUDGE
        what = "state" if of_states else "step's output"
        raise InstrumentError(
            f"pg.{type(probe).__name__} changes what it explains, or has rules in the place of "
            f"gradients, and each {what} of {where.name!r} is made of the one before: take "
            "pg.InputGradient, pg.Saliency or pg.GradientXInput there"
            + ("." if of_states else ", or explain the model's inputs (leave wrt= out).")
        )


def _axes_beside(shape: Shape, sizes: Shape) -> tuple[int, ...] | None:
    """Returns the axes of an input that are none of the positions with these sizes.

    Those behind them, of features, and where these are too few those of one entry; None where the
    input has other positions.
    """
    wide = [i for i, d in enumerate(shape) if d != 1]
    positions = [d for d in sizes if d != 1]
    if [shape[i] for i in wide][: len(positions)] != positions or len(wide) > len(positions) + 1:
        return None
    features = wide[len(positions) :]
    spare = max(0, len(shape) - len(features) - len(sizes))
    single = [i for i, d in enumerate(shape) if d == 1][:spare]
    return tuple(sorted((*features, *single)))
