"""Planning of outputs that are made of gradients: targets, and what they are differentiated by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from probegen.artefact.manifest import (
    CAST_DETAIL,
    PADDING_DETAIL,
    PER_TOKEN_DETAIL,
    InputSpec,
    OutputSpec,
    TargetSpec,
)
from probegen.errors import InstrumentError, NotDifferentiableError, SelectionError
from probegen.methods.axes import FRAME
from probegen.methods.base import GradientProbe, OfInputs, OfLayer
from probegen.methods.by_scores import ByScores, OfLayerByScores, hidden_axes
from probegen.methods.samples import Place
from probegen.methods.tokens import EMBEDDING
from probegen.plan import axes, inputs_and_predictions, numbers_of_inputs
from probegen.plan.explained_tensors import Explained, ExplainedTensors
from probegen.plan.model_view import ModelView
from probegen.plan.naming import output_name
from probegen.plan.plan import NUDGE, TWIN, GradientOutput, PaddingPlan, TargetPlan, TensorRef
from probegen.plan.points import ProbePoint, Shape
from probegen.plan.selectors import select, too_many
from probegen.plan.targets import steps_spec, target_spec

#: Rank of what has one vector a sample: counts of ids, or the look-up of a single one.
_COUNTS_RANK = 2


class GradientPlanner:
    """Plans the outputs of probes that differentiate.

    Attributes:
        tensors: finds what they are taken at.
    """

    def __init__(self, view: ModelView, by_scores: bool = False) -> None:
        """Makes a planner.

        Args:
            view: the model.
            by_scores: plan probes that need scores alone: of what the target depends on, be it
                differentiable or not.
        """
        self._view = view
        self.tensors = ExplainedTensors(view, by_scores)

    # -- targets -------------------------------------------------------------------------

    def target(self, probe: GradientProbe) -> TargetPlan:
        """Returns what a probe differentiates.

        Raises:
            InstrumentError: the target does not fit the model's outputs; says what would.
        """
        target = probe.target
        if callable(target):
            name = getattr(target, "__qualname__", type(target).__name__)
            described = TargetSpec("callable", logits=self._any_logits(probe), name=name)
            return TargetPlan(described, function=target)
        if probe.of is not None:
            return self._of_layer(probe)
        position = self._output_position(probe)
        self._view.check_output(position)
        output, name = self._view.output(position), self._view.output_names[position]
        if not output.shape:
            raise InstrumentError(
                f"output {name!r} is one number for the whole batch, so that no sample has a score "
                "of its own. Wrap the model so that it gives what that number is made of, with the "
                "batch as the first axis."
            )
        if not output.is_float:
            raise NotDifferentiableError(
                f"output {name!r} is {output.dtype}: there is nothing to differentiate. "
                f"{self._view.made_by(position)} Take a target before that operation: "
                "wrap the model so that it also returns the scores."
            )
        logits = probe.logits and self._view.has_scores(position)
        called = axes.prediction_axes(output.axes, classes=True)
        plan = _arranged(probe, called, output.shape, f"output {name!r}")
        spec = dataclasses.replace(plan.spec, output=name, logits=logits)
        return dataclasses.replace(plan, spec=spec, position=position)

    def _of_layer(self, probe: GradientProbe) -> TargetPlan:
        """Returns what is differentiated where that is the output of a layer.

        Raises:
            SelectionError: `of=` selects several layers, several calls of one, an input, or what
                stands in a loop.
            NotDifferentiableError: the output holds no floating numbers.
        """
        asked = f"pg.{type(probe).__name__}(of=...)"
        chosen = select(self._view.points, probe.of, self._view.layers)
        if len(chosen) > 1:
            raise too_many([p.name for p in chosen], probe.of, asked)
        point = chosen[0]
        self._view.check_not_random(chosen)
        if point.role == "input" or not point.shapes:
            raise SelectionError(f"{asked} takes a layer's output; {point.name!r} has none.")
        if point.loop or (not point.probes and point.reason):
            # A layer is called in a loop, and before it as a trial: neither call makes a score.
            why = f"inside loop {point.loop!r}, once a step" if point.loop else point.reason
            whole = f" Take the loop itself, of={point.loop!r}." if point.loop else ""
            raise SelectionError(
                f"{asked}: no score can be taken from {point.name!r}: {why}.{whole} Layers whose "
                "output can be given out (pg.inspect) and that stand outside of loops can be taken."
            )
        ref = TensorRef(point.path, point.call_index)
        facts = self._view.tensor(ref)
        if not facts.is_float:
            raise NotDifferentiableError(
                f"the output of layer {point.name!r} is {facts.dtype}: there is nothing to "
                "differentiate. Give of= a layer before it, whose output is floating."
            )
        called = axes.activation_axes(facts.axes)
        plan = _arranged(probe, called, facts.shape, f"layer {point.name!r}")
        spec = dataclasses.replace(
            plan.spec, layer=point.path, call=point.call_index, calls=point.calls
        )
        return dataclasses.replace(plan, spec=spec, ref=ref)

    def _output_position(self, probe: GradientProbe) -> int:
        names = self._view.output_names
        wanted = probe.output
        if wanted is None:
            own = [i for i, name in enumerate(names) if name not in self._view.carried.values()]
            # Labels beside scores, as classifiers of scikit-learn give them, have no slope.
            scores = [i for i in own if self._view.output(i).is_float]
            if len(scores or own) > 1:
                raise InstrumentError(
                    f"the model has several outputs {[names[i] for i in own]}; say which one is "
                    f"explained, for instance pg.{type(probe).__name__}"
                    f"(output={names[(scores or own)[0]]!r})."
                )
            return (scores or own or [0])[0]
        if isinstance(wanted, int) and 0 <= wanted < len(names):
            return wanted
        if wanted in names:
            return names.index(str(wanted))
        raise InstrumentError(f"output= takes one of {list(names)} or its index, got {wanted!r}.")

    def _any_logits(self, probe: GradientProbe) -> bool:
        return probe.logits and any(map(self._view.has_scores, range(len(self._view.output_names))))

    # -- what is differentiated by -------------------------------------------------------

    def gradients(self, probe: GradientProbe, target: TargetPlan) -> list[GradientOutput]:
        """Returns the outputs of a probe that differentiates."""
        if isinstance(probe, OfLayer):
            return self._maps(probe, target)
        found = self.tensors.chosen_by(probe.selector, target)
        _check_states(probe, found)
        if isinstance(probe, ByScores):
            found = self._whole_inputs(found)
        self._check_per_token(probe, found)
        several = len(found) > 1
        places = [
            Place(one.name, self._named_axes(one), one.inputs, number)
            for number, one in enumerate(found)
        ]
        shapes = [self._view.tensor(one.ref).shape for one in found]
        numbers_of_inputs.check(probe, found, self._view)
        probe.check_places(list(zip(places, shapes, strict=True)))
        own = [probe.at_place(place) for place in places]
        return [
            GradientOutput(
                self._gradient_spec(of_one, target, one, several),
                one.ref,
                of_one,
                self._named_axes(one),
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
        named = [(one, self._named_axes(one)) for one in found]
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
        return tuple((each.ref, self._named_axes(each)) for each in (one, *one.others))

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
        named, sizes, _ = axes.with_batch_first(self._named_axes(one), shape)
        hidden = hidden_axes(named)
        vector = axes.channel_axis(named) in hidden
        return () if vector else tuple((named[i], sizes[i]) for i in hidden)

    def _gradient_spec(
        self, probe: GradientProbe, target: TargetPlan, one: Explained, several: bool
    ) -> OutputSpec:
        ref = one.ref
        facts = self._view.tensor(ref)
        names = self._named_axes(one)
        left, sizes = probe.result(names, facts.shape, one.name)
        return OutputSpec(
            name=output_name(probe, one.name, several),
            dtype=facts.dtype,
            shape=sizes,
            axes=left,
            layer=ref.path,
            call=ref.call,
            calls=next((p.calls for p in self._view.points if p.path == ref.path), 1),
            input=one.inputs[0] if len(one.inputs) == 1 and self._follows_input(one) else None,
            target=target.spec,
            **self._described(probe, one),
        )

    def _described(self, probe: GradientProbe, one: Explained) -> dict[str, Any]:
        """Returns what the manifest says of the method, and of what tells where padding is."""
        told = probe.described(self._named_axes(one))
        if one.start is not None and not one.start.is_lookup and one.name not in one.inputs:
            made = " and ".join(map(repr, one.inputs)) or "an input"
            told["method"] += f"; at {one.name!r}, to which the model casts {made}"
            told["detail"] = {**told["detail"], CAST_DETAIL: one.name}
        elif numbers_of_inputs.stands_in(one):
            told["method"] += f"; of {numbers_of_inputs.described(one)}"
        if PER_TOKEN_DETAIL not in told["detail"]:
            return told
        padding, said = self._padding(probe, one), ""
        if padding is not None:
            values = " or ".join(f"{value:g}" for value in padding.values)
            said = f"{self._view.input_names[padding.ref.position]!r} is {values}"
        return {**told, "detail": {**told["detail"], PADDING_DETAIL: said}}

    def _padding(self, probe: GradientProbe, one: Explained) -> PaddingPlan | None:
        """Returns what says where one number a token is padding; None where that is not known."""
        names = self._named_axes(one)
        per_token = isinstance(probe, OfInputs) and probe.token_axis(names) is not None
        if not per_token or len(one.inputs) != 1 or not self._follows_input(one):
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

    def _named_axes(self, one: Explained) -> axes.Axes:
        """Returns the axes of what is explained, called after what it is: features, embeddings.

        What does not run along the axes of its input has none that is called as these are.
        """
        names = self._view.tensor(one.ref).axes
        rank = len(names)
        numbers = one.start is not None and (one.start.is_lookup or one.start.moved)
        if one.start is not None and numbers and not self._follows_input(one):
            between = ["id"] if rank == 3 else [f"id_{i}" for i in range(rank - 2)]
            between.insert(names.index(axes.BATCH) if axes.BATCH in names[:-1] else 0, axes.BATCH)
            looked_up = one.start.is_lookup and not one.start.counts
            return (*between, EMBEDDING if looked_up else "feature")[:rank]
        if self._is_one_word(one):
            return (axes.BATCH, EMBEDDING)
        if one.start is not None and one.start.is_lookup:
            time = axes.input_axes(names[:-1], tokens=True)
            return (*time, "feature" if one.start.counts else EMBEDDING) if rank > 1 else names
        if one.ref.is_input or one.ref.made:
            return axes.input_axes(names, tokens=False)
        return axes.gradient_axes(names, self._view.is_embedding(one.ref))

    def _is_one_word(self, one: Explained) -> bool:
        """Tells whether a tensor is the one-hot vector of a text that is one word a sample."""
        vectors = {
            made
            for text in self._view.texts
            if text.tokenizer.get("mode") == "one_hot" and all(n == 1 for n in text.shape[1:])
            for made in text.makes.values()
        }
        of_input = len(one.inputs) == 1 and one.inputs[0] in vectors
        return of_input and len(self._view.tensor(one.ref).shape) == 2

    def _follows_input(self, one: Explained) -> bool:
        """Tells whether a first floating tensor begins with the axes of its input, in its order."""
        if one.start is None or one.ref.made == TWIN:
            return True
        if one.start.moved or len(one.inputs) > 1:
            return False
        position = (
            self._view.input_names.index(one.inputs[0]) if one.inputs else min(one.start.ties)
        )
        shape = self._view.tensor(one.ref).shape
        wide = [d for d in self._view.input(position).shape[1:] if d != 1]
        return [d for d in shape[1:] if d != 1][: len(wide)] == wide

    def _maps(self, probe: OfLayer, target: TargetPlan) -> list[GradientOutput]:
        """Returns a map for every call of the layer that a probe names, or finds by itself."""
        end = self._view.end(target)
        auto = probe.selector == "auto"
        points = self._last_with_positions(probe, end) if auto else self._named(probe)
        if len(points) > 1 and probe.needs_gradient:
            # Calls that the target does not depend on have no map.
            flowing = [
                p for p in points if self.tensors.flows(TensorRef(p.path, p.call_index), end)
            ]
            points = flowing or points
        return [self._map(probe, target, end, p, several=len(points) > 1) for p in points]

    def _named(self, probe: OfLayer) -> list[ProbePoint]:
        """Returns the calls of the one layer that `layer=` selects.

        Raises:
            SelectionError: it selects several layers, or one without positions.
        """
        chosen = select(self._view.points, probe.selector, self._view.layers)
        paths = list(dict.fromkeys(p.path for p in chosen))
        if len(paths) > 1 and not isinstance(probe.selector, list | tuple):
            raise too_many(paths, probe.selector, f"pg.{type(probe).__name__}(layer=...)")
        for point in chosen:
            if probe.point not in point.probes:
                self._view.check_not_random([point])
                able = [p.name for p in self._view.points if probe.point in p.probes]
                why = f"{point.reason}. It" if point.reason else "it"
                raise SelectionError(
                    f"{point.name!r} ({point.class_name}, output {point.shape}) cannot carry a "
                    f"{probe.title}: {why} needs an output with positions and channels"
                    + (f", such as {able[-1]!r}." if able else "; this model has no such layer.")
                )
        return chosen

    def _map(
        self, probe: OfLayer, target: TargetPlan, end: Any, point: ProbePoint, several: bool
    ) -> GradientOutput:
        ref = TensorRef(point.path, point.call_index)
        if probe.needs_gradient:
            self.tensors.check_flow(ref, end, point.name)
        names = self._view.map_axes(ref)
        if FRAME in names and (isinstance(probe, OfLayerByScores) or not probe.needs_gradient):
            raise InstrumentError(
                f"pg.{type(probe).__name__} makes no map of each frame, and {point.name!r} goes "
                "through frames one beside the other. Use pg.GradCAM, pg.HiResCAM or another map "
                "of gradients, or a layer behind which the frames are joined."
            )
        left, sizes = probe.result(names, point.shapes[0], point.name)
        inputs = self._view.inputs_of(ref)
        facts = probe.described(names)
        facts["detail"] = {"class": point.class_name, **facts["detail"]}
        sized_as: TensorRef | None = None
        pairs: tuple[tuple[int, int], ...] = ()
        if probe.upsample and FRAME in names:
            raise InstrumentError(
                f"upsample=True: {point.name!r} goes through frames one beside the other, and an "
                "ONNX file does not say which axes of its input they have; leave upsample out."
            )
        backwards = self._view.runs_backwards(ref)
        if backwards:
            _check_lies_over_no_input(probe, point)
        if probe.upsample:
            like, pairs = self._enlarging(point, inputs, left)
            sized_as = TensorRef(None, position=self._view.input_names.index(like.name))
            sizes = _with_sizes(sizes, like.shape, pairs)
            facts["detail"]["upsampled_to"] = like.name
        described = OutputSpec(
            name=output_name(probe, point.name, several),
            dtype=point.dtype,
            shape=sizes,
            axes=left,
            layer=point.path,
            call=point.call_index,
            calls=point.calls,
            input=inputs[0] if len(inputs) == 1 and not backwards else None,
            target=target.spec,
            **facts,
        )
        moves: tuple[tuple[TensorRef, axes.Axes], ...] = ()
        if isinstance(probe, OfLayerByScores):
            self.tensors.check_flow(ref, end, point.name)
            moves = (
                self._masked_inputs(probe, point, end) if probe.moves_inputs else ((ref, names),)
            )
        return GradientOutput(
            described,
            ref,
            probe,
            names,
            called=point.name,
            moves=moves,
            sized_as=sized_as,
            pairs=pairs,
        )

    def _masked_inputs(
        self, probe: OfLayer, point: ProbePoint, end: Any
    ) -> tuple[tuple[TensorRef, axes.Axes], ...]:
        """Returns what stands for the inputs that have the positions of a layer.

        Raises:
            InstrumentError: none has.
        """
        ref = TensorRef(point.path, point.call_index)
        tensor = self._view.tensor(ref)
        wanted = [tensor.axes[i] for i in axes.position_axes(tensor.axes)]
        known = self._view.inputs_of(ref)
        found = self.tensors.of_inputs([self._view.input_names.index(name) for name in known], end)
        named = [(one.ref, self._named_axes(one)) for one in found]
        fitting = [(r, a) for r, a in named if [a[i] for i in hidden_axes(a)] == wanted]
        if not fitting:
            shown = "; ".join(", ".join(a) for _, a in named) or "none"
            raise InstrumentError(
                f"pg.{type(probe).__name__} masks inputs by the maps of {point.name!r}, whose "
                f"positions are {', '.join(wanted)}; no input has these (there are: {shown}). Name "
                "a layer whose positions are those of an input, or use pg.ReciproCAM()."
            )
        return tuple(fitting)

    def _enlarging(
        self, point: ProbePoint, inputs: Sequence[str], left: axes.Axes
    ) -> tuple[InputSpec, tuple[tuple[int, int], ...]]:
        """Returns the input whose positions a map has, and pairs of their axes.

        Raises:
            InstrumentError: there is none, or several; says what each has.
        """
        places = [i for i in axes.position_axes(left) if left[i] not in axes.CHANNELS]
        names = [left[i] for i in places]
        known = [i for i in inputs_and_predictions.inputs(self._view) if i.name in inputs]
        able = [i for i in known if len(set(names)) == len(names) and set(names) <= set(i.axes)]
        if len(able) == 1:
            return able[0], tuple((i, able[0].axes.index(left[i])) for i in places)
        shown = ", ".join(f"{i.name!r} ({', '.join(i.axes[1:])})" for i in known) or "no input"
        raise InstrumentError(
            f"upsample=True: the positions of {point.name!r} ({', '.join(names)}) do not come "
            f"from one input: it is computed from {shown}. Leave upsample out, or name a layer "
            "whose positions are those of one input."
        )

    def _last_with_positions(self, probe: OfLayer, end: Any) -> list[ProbePoint]:
        """Returns the last maps on every way to the target; 2-D and 3-D maps first.

        Maps with axes that nothing names, such as heads that a reshape splits off, come last.
        Several where ways run beside each other: the calls of a layer for frames of a film, or
        the towers of several inputs. Behind a class token or a last step, maps of which the target
        sees one position are passed over, unless there are no others; and so are the scores of an
        output with positions themselves.
        """
        roles = ("convolution", "normalisation", "activation", "merging", "other")
        able = [
            p
            for p in self._view.points
            if probe.point in p.probes and not self._view.inside_attention(p)
        ]
        every = (*roles, "recurrent")
        for least, kinds, named in ((2, every, True), (1, roles, True), (1, roles, False)):
            maps = {}
            for point in able:
                ref = TensorRef(point.path, point.call_index)
                names = self._view.map_axes(ref)
                places = [names[i] for i in axes.position_axes(names)]
                told = not (named and any(map(axes.is_neutral, places)))
                if point.roles[-1] in kinds and len(places) >= least and told:
                    maps[ref] = point
            single = self._view.seen_at_one_position(list(maps), end) if maps else set()
            left = [ref for ref in maps if ref not in single] or [*maps]
            scores = self._view.holding_scores(left, end)
            before = [ref for ref in left if ref not in scores and self.tensors.flows(ref, end)]
            found = self._view.last_on_the_way(before or left, end)
            if found:
                return [maps[ref] for ref in found]
        raise SelectionError(
            "this model has no layer that keeps positions up to the target, so layer='auto' finds "
            f"nothing for {probe.title}; use pg.Saliency() or name a layer."
        )


def _check_lies_over_no_input(probe: OfLayer, point: ProbePoint) -> None:
    """Refuses a map over an input whose positions it has in the opposite order.

    Raises:
        InstrumentError: it is such a map; says what works.
    """
    masks_inputs = isinstance(probe, OfLayerByScores) and probe.moves_inputs
    if probe.upsample or masks_inputs:
        raise InstrumentError(
            f"pg.{type(probe).__name__}{'' if masks_inputs else '(upsample=True)'} lays the map of "
            f"{point.name!r} over an input, whose positions it has in the opposite order: a layer "
            "that runs backwards, or a flip, stands between. Name a layer before that, or behind "
            "what turns it back (the Bidirectional layer itself), or "
            + ("use pg.ReciproCAM()." if masks_inputs else "leave upsample out.")
        )


def _check_states(probe: GradientProbe, found: Sequence[Explained]) -> None:
    """Refuses states over time to a method that looks at other values than they have.

    Raises:
        InstrumentError: it is such a method; says what works.
    """
    where = next((one.name for one in found if one.ref.made == NUDGE), None)
    as_it_is = probe.needs_gradient and probe.gradients_at() is None and probe.table() is None
    if where is not None and (isinstance(probe, ByScores) or not as_it_is):
        raise InstrumentError(
            f"pg.{type(probe).__name__} changes what it explains, or has rules in the place of "
            f"gradients, and each state of {where!r} is made of the one before: take "
            "pg.InputGradient, pg.Saliency or pg.GradientXInput there."
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


def _with_sizes(sizes: Shape, like: Shape, pairs: Sequence[tuple[int, int]]) -> Shape:
    """Returns sizes, some of which are those of another tensor; see `GradientOutput.pairs`."""
    of_like = dict(pairs)
    return tuple(like[of_like[i]] if i in of_like else d for i, d in enumerate(sizes))


def _arranged(probe: GradientProbe, called: axes.Axes, sizes: axes.Sizes, what: str) -> TargetPlan:
    """Returns a probe's target, and how the scores lie that it is taken from.

    Args:
        probe: says the target, and whether a region of the request weighs its positions.
        called: the axes of the scores.
        sizes: their sizes.
        what: what gives the scores.

    Raises:
        InstrumentError: they have no such entry, or no positions that a region could weigh.
    """
    named, shape, order = axes.with_batch_first(called, sizes)
    axis = axes.channel_axis(named)
    spec = steps_spec(probe.target, named, shape, what, axis)
    if spec is None:
        spec = target_spec(probe.target, shape, what, axis)
    places = list(range(len(order)))
    if spec.mode != "index" and axis is not None:
        places = [*(i for i in places if i != axis), axis]
    arranged = tuple(order[i] for i in places)
    names = tuple(named[i] for i in places)
    region = probe.region is not None
    if region and not axes.position_axes(names):
        raise InstrumentError(
            f"region='input' weighs positions before they are summed up, and {what} "
            f"{tuple(sizes)} has none: its axes are {', '.join(names)}. Leave region out, or "
            "give of= a layer whose output has positions."
        )
    classes = None if axis is None else shape[axis]
    step = None if spec.step is None else places.index(spec.step)
    return TargetPlan(
        dataclasses.replace(spec, classes=classes, region=region, step=step),
        order=None if arranged == tuple(range(len(order))) else arranged,
        single=axes.BATCH not in called,
        axes=names,
        sizes=tuple(shape[i] for i in places),
    )
