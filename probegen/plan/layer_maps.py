"""Planning of maps over the positions of a layer: which layers have one, and what it lies over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probegen.artefact.manifest import InputSpec, OutputSpec
from probegen.errors import InstrumentError, SelectionError
from probegen.methods.axes import FRAME
from probegen.methods.base import OfLayer
from probegen.methods.by_scores import OfLayerByScores, hidden_axes
from probegen.plan import axes, inputs_and_predictions
from probegen.plan.explained_tensors import ExplainedTensors
from probegen.plan.model_view import ModelView
from probegen.plan.naming import output_name
from probegen.plan.plan import GradientOutput, TargetPlan, TensorRef
from probegen.plan.points import ProbePoint, Shape
from probegen.plan.selectors import select, too_many


class LayerMaps:
    """Plans the maps of probes that explain the positions of a layer."""

    def __init__(self, view: ModelView, tensors: ExplainedTensors) -> None:
        """Makes a planner.

        Args:
            view: the model.
            tensors: tells what a target can be explained by.
        """
        self._view = view
        self._tensors = tensors

    def planned(self, probe: OfLayer, target: TargetPlan) -> list[GradientOutput]:
        """Returns a map for every call of the layer that a probe names, or finds by itself."""
        end = self._view.end(target)
        auto = probe.selector == "auto"
        points = self._last_with_positions(probe, end) if auto else self._named(probe)
        if len(points) > 1 and probe.needs_gradient:
            # Calls that the target does not depend on have no map.
            flowing = [p for p in points if self._tensors.flows(self._view.gradient_ref(p), end)]
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
            if probe.point in p.probes and not p.loop and not self._view.inside_attention(p)
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
            before = [ref for ref in left if ref not in scores and self._tensors.flows(ref, end)]
            found = self._view.last_on_the_way(before or left, end)
            if found:
                return [maps[ref] for ref in found]
        raise SelectionError(
            "this model has no layer that keeps positions up to the target, so layer='auto' finds "
            f"nothing for {probe.title}; use pg.Saliency() or name a layer."
        )

    def _map(
        self, probe: OfLayer, target: TargetPlan, end: Any, point: ProbePoint, several: bool
    ) -> GradientOutput:
        ref = self._view.gradient_ref(point)
        if probe.needs_gradient:
            self._tensors.check_flow(ref, end, point.name)
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
        of_steps = self._view.detail_of(ref)
        facts["detail"] = {"class": point.class_name, **facts["detail"], **of_steps}
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
            self._tensors.check_flow(ref, end, point.name)
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
        found = self._tensors.of_inputs([self._view.input_names.index(name) for name in known], end)
        named = [(one.ref, self._tensors.axes_of(one)) for one in found]
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


def _with_sizes(sizes: Shape, like: Shape, pairs: Sequence[tuple[int, int]]) -> Shape:
    """Returns sizes, some of which are those of another tensor; see `GradientOutput.pairs`."""
    of_like = dict(pairs)
    return tuple(like[of_like[i]] if i in of_like else d for i, d in enumerate(sizes))
