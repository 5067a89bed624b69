"""Which tensors explanations are taken at: what `wrt` means, and what stands for an input.

A floating input stands for itself, one of whole numbers for what it is looked up or cast as. What
no gradient reaches is refused with the operation at which it stops.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from probegen.errors import NotDifferentiableError, SelectionError
from probegen.methods.tokens import EMBEDDING
from probegen.plan import axes
from probegen.plan.model_view import ModelView, Start, StateFacts, Tie
from probegen.plan.plan import NUDGE, TWIN, TargetPlan, TensorRef
from probegen.plan.points import ProbePoint
from probegen.plan.selectors import OF_STATES

#: What explains a model where no gradient is.
_WITHOUT_GRADIENT = (
    "take a method that needs no gradient (pg.Occlusion, pg.FeatureAblation, pg.KernelSHAP)"
)


@dataclasses.dataclass(frozen=True)
class Explained:
    """A tensor that a gradient is taken at.

    Attributes:
        ref: the tensor.
        name: what its output is called after.
        inputs: names of the inputs that it stands for.
        start: where whole numbers become floating there.
        others: tensors that are changed together with it by a method that hides parts of inputs.
    """

    ref: TensorRef
    name: str
    inputs: tuple[str, ...] = ()
    start: Start | None = None
    others: tuple[Explained, ...] = ()


class ExplainedTensors:
    """Finds the tensors of a model that explanations are taken at."""

    def __init__(self, view: ModelView, by_scores: bool = False, fills: bool = False) -> None:
        """Makes a finder.

        Args:
            view: the model.
            by_scores: for methods that need scores alone: what the target depends on, be it
                differentiable or not.
            fills: for those of them that put numbers in the place of what is hidden, which whole
                numbers can be.
        """
        self._view = view
        self._by_scores = by_scores
        self._fills = fills

    def flows(self, ref: TensorRef, end: Any) -> bool:
        """Tells whether a target can be explained by a tensor."""
        found = self._view.depends if self._by_scores else self._view.flows
        return found(ref, end)

    def chosen_by(self, wrt: Any, target: TargetPlan) -> list[Explained]:
        """Returns the tensors that `wrt` means, with the names their outputs go by."""
        end = self._view.end(target)
        names = self._view.input_names
        if wrt == "input":
            return self._all_inputs(end)
        parts: list[int | ProbePoint | StateFacts] = []
        for part in wrt if isinstance(wrt, list | tuple) else [wrt]:
            if isinstance(part, str) and part in names:
                parts.append(names.index(part))
                continue
            if isinstance(part, str) and part.startswith(OF_STATES):
                parts += self._states(part.removeprefix(OF_STATES))
                continue
            for point in self._view.select(part, "gradient"):
                is_input = point.role == "input"
                parts.append(names.index(point.path) if is_input else point)
        if not parts:
            raise SelectionError("wrt= is an empty list; leave it out for the model's inputs.")
        inputs = self.of_inputs([p for p in parts if isinstance(p, int)], end)
        found: dict[TensorRef, Explained] = {}
        for part in parts:
            if isinstance(part, int):
                chosen = [e for e in inputs if names[part] in e.inputs]
                if not chosen:
                    raise NotDifferentiableError(self._why_no_input(part, end))
            elif isinstance(part, StateFacts):
                ref = dataclasses.replace(part.ref, made=NUDGE)
                self.check_flow(ref, end, part.name)
                chosen = [Explained(ref, f"states/{part.name}")]
            else:
                ref = self._view.gradient_ref(part)
                self.check_flow(ref, end, part.name)
                chosen = [Explained(ref, part.name, start=self._starts.get(ref))]
            for one in chosen:
                found.setdefault(one.ref, one)
        return list(found.values())

    def _states(self, wanted: str) -> list[StateFacts]:
        """Returns the states over time whose names a glob matches, and that a gradient can reach.

        Raises:
            SelectionError: there is none; says why, and which there are.
        """
        points = [p for p in self._view.points if "states" in p.probes]
        found = {s.name: s for p in points for s in self._view.states(p) if not s.is_gate}
        chosen = [s for n, s in found.items() if n == wanted or fnmatch.fnmatchcase(n, wanted)]
        whys = {s.name: self._view.why_no_gradient_at(s) for s in found.values()}
        able = [s for s in chosen if not whys[s.name]]
        if able:
            return able
        others = [name for name, why in whys.items() if not why]
        reasons = "; ".join(f"of {s.name!r}, {whys[s.name]}" for s in chosen)
        raise SelectionError(
            f"wrt='{OF_STATES}{wanted}' "
            + (f"takes no gradient: {reasons}." if chosen else "matches no state over time.")
            + (f" States: {', '.join(map(repr, others))}." if others else "")
        )

    def _all_inputs(self, end: Any) -> list[Explained]:
        """Returns what stands for every input; those without do not matter to the target."""
        names = self._view.input_names
        positions = [i for i, name in enumerate(names) if name not in self._view.carried]
        means = [i for i in positions if self._of_input(i, end, strict=True)]
        found = self.of_inputs(means or positions, end, strict=bool(means))
        if not found:
            raise NotDifferentiableError(" ".join(self._why_no_input(i, end) for i in positions))
        return found

    def left_out(self, found: Sequence[Explained], target: TargetPlan) -> list[str]:
        """Returns the names of inputs that a target depends on and nothing that is found explains.

        Those that are called masks are none of them, and neither are states that are carried.
        """
        end = self._view.end(target)
        told = {name for one in found for each in (one, *one.others) for name in each.inputs}
        names = enumerate(self._view.input_names)
        return [
            name
            for position, name in names
            if name not in told
            and name not in self._view.carried
            and not self._view.is_called_mask(position)
            and self._view.depends(TensorRef(None, position=position), end)
        ]

    def of_inputs(
        self, positions: Iterable[int], end: Any, strict: bool = False
    ) -> list[Explained]:
        """Returns the tensors that stand for inputs and that a gradient reaches.

        A tensor goes by the name of its input where that has no other, else by its own.
        """
        names = self._view.input_names
        by_input = {i: self._of_input(i, end, strict) for i in positions}
        found: dict[TensorRef, Explained] = {}
        for ref in dict.fromkeys(ref for refs in by_input.values() for ref in refs):
            owners = [i for i, refs in by_input.items() if ref in refs]
            start = self._starts.get(ref)
            own = start is None or ref.made == TWIN or len(by_input[owners[0]]) == 1
            name = names[owners[0]] if own and len(owners) == 1 else self._starts[ref].label
            self._check_custom_gradients(ref, end)
            found[ref] = Explained(ref, name, tuple(names[i] for i in owners), start)
        return list(found.values())

    def _of_input(self, position: int, end: Any, strict: bool = False) -> list[TensorRef]:
        """Returns the tensors that stand for an input and that a gradient reaches.

        The input itself where it is floating, and every look-up or cast of its whole numbers.
        Where none of these is there, what is made of whole numbers by way of comparisons will do (a
        mask that is asked for), but not with `strict`; floating ones have no slope there. For
        methods by scores, what no gradient reaches stands for an input that has nothing else, and
        nothing beside the input itself: what it is looked up as changes with it, and all that it is
        compared with. So do the steps that a floating number is cut to and the bin that it falls
        into, which gradients start at. Whole numbers that a model computes with, compares or sorts
        into bins are such numbers too, where others are put in their place.
        """
        means = self._of_input_by(self._view.flows, position, end, strict=True)
        loose = means or self._of_input_by(self._view.flows, position, end, strict=False)
        if not self._by_scores:
            return means if strict or self._view.input(position).is_float else loose
        own = TensorRef(None, position=position)
        if own in means:
            return [own]
        is_number = (
            self._is_floating_number(position, means, strict)
            if self._view.input(position).is_float
            else self._is_whole_number(position, means, loose, strict, end)
        )
        if is_number and self._view.depends(own, end):
            return [own]
        if loose:
            return means if strict else loose
        # Only where a gradient reaches nothing. Beside a look-up, say, ids are compared with 0.
        return self._of_input_by(self._view.depends, position, end, strict)

    def _is_floating_number(self, position: int, means: Sequence[TensorRef], strict: bool) -> bool:
        """Tells whether a floating input is hidden itself, though no gradient reaches it.

        Numbers that are sorted into bins or compared are; ids that are held as floats are not.
        """
        if means:
            looked_up = any(self._starts[ref].is_lookup for ref in means)
            return not (looked_up and self._view.holds_ids(position))
        return not strict or not self._view.only_masks(position)

    def _is_whole_number(
        self,
        position: int,
        means: Sequence[TensorRef],
        loose: Sequence[TensorRef],
        strict: bool,
        end: Any,
    ) -> bool:
        """Tells whether an input of whole numbers is hidden itself: one that is computed with.

        Ids are not. Casts of all that the model reads of it are as good, and take any number. A
        picture that the model brings to another size is hidden behind that, in a size that is
        known.
        """
        if not self._fills or self._view.input(position).dtype == "string":
            return False
        if any(self._starts[ref].resized for ref in loose):
            return False
        if any(self._starts[ref].is_lookup for ref in loose):
            counted = not means and self._is_compared(position)  # how many bounds lie below
            return counted or self._view.sorts_into_bins(position)
        if means:
            computed = any(self._starts[r].ties[position] < Tie.PART for r in means)
            return computed or self._view.depends_beside(position, means, end)
        return not strict or not self._view.only_masks(position) or self._is_compared(position)

    def _is_compared(self, position: int) -> bool:
        """Tells whether whole numbers are compared with others, and no mask."""
        masks = self._view.input(position).dtype == "bool" or self._view.is_called_mask(position)
        return self._view.compares(position) and not masks

    def _of_input_by(
        self, flows: Callable[[TensorRef, Any], bool], position: int, end: Any, strict: bool
    ) -> list[TensorRef]:
        own = TensorRef(None, position=position)
        found = [own] if self._view.input(position).is_float and flows(own, end) else []
        starts = [s for s in self._view.starts if position in s.ties]
        for start in starts:
            if start.carries(position) and flows(start.ref, end):
                self._check_usable(start)
                found.append(start.ref)
        if found or strict:
            return found
        reached = [s for s in starts if s.usable and flows(s.ref, end)]
        told = [s for s in reached if not s.masks] or reached
        return [s.ref for s in told]

    @functools.cached_property
    def _starts(self) -> dict[TensorRef, Start]:
        return {start.ref: start for start in self._view.starts}

    def _check_usable(self, start: Start) -> None:
        """Refuses a look-up whose first axis is not the batch.

        Raises:
            NotDifferentiableError: it is such a one.
        """
        if start.usable:
            return
        if start.ref.path is not None and axes.BATCH in self._view.tensor(start.ref).axes[1:]:
            raise NotDifferentiableError(
                f"what {start.label!r} makes of an input's numbers has its axes in another order "
                f"than the input; give wrt={start.ref.path!r}, whose attribution has them as they "
                "are there, or a layer behind it."
            )
        raise NotDifferentiableError(
            f"what {start.label!r} makes of an input's numbers has not the batch for its first "
            "axis (samples were joined along it, or axes turned), so that no part of it "
            "belongs to one sample; give wrt= a layer behind it, or keep the batch first."
        )

    def _why_no_input(self, position: int, end: Any) -> str:
        name = self._view.input_names[position]
        tensor = self._view.input(position)
        starts = [s for s in self._view.starts if position in s.ties]
        if not starts and not tensor.is_float:
            return (
                f"input {name!r} is {tensor.dtype} and goes into no Embedding, look-up or "
                "cast to floating numbers, so no gradient with respect to it exists; give wrt= a "
                "layer behind which values are floating."
            )
        own = TensorRef(None, position=position)
        start = own if tensor.is_float or not starts else starts[0].ref
        return self._why_blocked(start, end, f"input {name!r}")

    def check_flow(self, ref: TensorRef, end: Any, name: str) -> None:
        """Refuses a tensor that no gradient flows to, or none that an exported graph can hold.

        Raises:
            NotDifferentiableError: it is one; says where the gradient stops.
        """
        if not self.flows(ref, end):
            raise NotDifferentiableError(self._why_blocked(ref, end, f"layer {name!r}"))
        self._check_custom_gradients(ref, end)

    def _why_blocked(self, ref: TensorRef, end: Any, what: str) -> str:
        blocked = self._view.blocked_at(ref, end)
        if not blocked:
            return f"the target does not depend on {what}: no gradient exists."
        shown = ", ".join(
            f"{kind} in layer {layer!r}" if layer else kind for kind, layer in sorted(blocked)
        )
        return (
            f"the target is not differentiable with respect to {what}: the gradient stops at "
            f"{shown}. Give wrt= a layer behind that operation, a target before it, or "
            f"{_WITHOUT_GRADIENT}."
        )

    def _check_custom_gradients(self, ref: TensorRef, end: Any) -> None:
        """Refuses gradients that user code has redefined: an exported graph cannot hold them."""
        if self._by_scores:
            return
        for layer in self._view.redefined_at(ref, end):
            raise NotDifferentiableError(
                f"layer {layer!r} redefines its gradient (custom_gradient, as layers do that "
                "Keras quantised), which no exported graph can carry; use the plain operations, "
                "or the model before model.quantize(), give wrt= a layer behind it, or "
                f"{_WITHOUT_GRADIENT}."
            )

    def axes_of(self, one: Explained) -> axes.Axes:
        """Returns the axes of what is explained, called after what it is: features, embeddings.

        What does not run along the axes of its input has none that is called as these are.
        """
        names = self._view.tensor(one.ref).axes
        rank = len(names)
        numbers = one.start is not None and (one.start.is_lookup or one.start.moved)
        if one.start is not None and numbers and not self.follows_input(one):
            between = ["id"] if rank == 3 else [f"id_{i}" for i in range(rank - 2)]
            between.insert(names.index(axes.BATCH) if axes.BATCH in names[:-1] else 0, axes.BATCH)
            looked_up = one.start.is_lookup and not one.start.counts
            return (*between, EMBEDDING if looked_up else "feature")[:rank]
        if self._is_one_word(one):
            return (axes.BATCH, EMBEDDING)
        if one.start is not None and one.start.is_lookup:
            time = axes.input_axes(names[:-1], tokens=True)
            return (*time, "feature" if one.start.counts else EMBEDDING) if rank > 1 else names
        if one.ref.is_input or (one.ref.made and not one.ref.is_over_steps):
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

    def follows_input(self, one: Explained) -> bool:
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
