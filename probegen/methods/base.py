# ruff: noqa: PLC0414 - what is imported under its own name is given on
"""What a method says of itself: the base classes of all probes, one family a class.

A method is a frozen dataclass in a file of its own, derived from one of these families:

- `OfLayers`: gives out a tensor of layers as it is (or reduced); nothing is differentiated.
- `OfAttention`: follows positions through the weights of all attention layers together; with
  gradients at these where it is a `GradientProbe` as well.
- `OfInputs`: explains inputs (or, with `wrt`, tensors of layers) by gradients.
- `OfLayer`: explains the positions of one layer's output by gradients: class activation maps.
- `OfLayerOutput`: makes something else of the gradient at a layer's output.

The first two stand in `of_layers.py`, and what all have in common in `probe.py`; this file gives
both on, so that a method imports from one place.

Class attributes say once what the command line, the manifest, the plots and the README need to
know. The code of a method (`combine`, `gradients_at`) is written over `Operations`, and so is the
same in an ONNX graph, in TensorFlow and in numpy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Generic

from probegen.artefact.manifest import (
    DRAWN_AS_MAP,
    GRADIENT_DETAIL,
    NEVER_NEGATIVE,
    PER_TOKEN_DETAIL,
    SCORE_PER_INPUT,
    SIGNED,
    SUM_DETAIL,
)
from probegen.errors import SpecError
from probegen.methods.axes import Axes, Sizes, channel_axis, without
from probegen.methods.baselines import Baseline
from probegen.methods.fields import check_bool, check_choice, option
from probegen.methods.of_layers import PAYLOADS as PAYLOADS
from probegen.methods.of_layers import OfAttention as OfAttention
from probegen.methods.of_layers import OfLayers as OfLayers
from probegen.methods.operations import Operations, T
from probegen.methods.probe import P
from probegen.methods.probe import Probe as Probe
from probegen.methods.probe import Selector as Selector
from probegen.methods.probe import all_methods as all_methods
from probegen.methods.samples import Place, Samples
from probegen.methods.tables import OwnProducts, Product, Table
from probegen.methods.targets import Target, checked_target
from probegen.methods.tokens import (
    DOT,
    NORM,
    WAYS,
    Padded,
    one_a_token,
    vector_axis,
    without_padding,
)


@dataclasses.dataclass(frozen=True)
class GradientProbe(Probe):
    """What every probe that differentiates has in common.

    Probes of one kind that explain different outputs of a model are told apart by these: two
    `pg.Saliency` with `output="risk"` and `output="age"` are called `saliency/risk/<input>` and
    `saliency/age/<input>`, where one alone is `saliency/<input>`. Different targets of one output
    need `name=`.

    Attributes:
        needs_gradient: False where the attribution is made of the tensor alone.
        products: ONNX operator -> what takes the place of its vector-Jacobian product: the small
            form of a `table`.
        of: a selector of one layer: the score is taken from its output in the place of the model's.
            `target` is then a channel, summed over the positions, or a tuple with an entry for each
            axis; `"argmax"` is the channel with the largest sum, and `"top:k"`, `"all"`, a list, a
            contrast and `"input"` are of channels likewise.
        sums_to_score: True where the numbers of a sample add up to its score less that of a
            reference (completeness), so that pictures may stack them.
        fills: the field that says what stands in the place of what is taken away, a baseline, say;
            empty where there is none.
        has_completeness: True where such an axiom holds, if only up to what biases take.
        region: `"input"`: the artefact gets a float input `region`, `[batch, ...positions]` of the
            output (or of the layer that `of=` names), which weighs its positions before they are
            summed up; an axis of size 1 holds for all positions along it. None sums them as they
            are. The class that is best at a position is told without it, that of a layer, which is
            told by sums, by the weighed ones.
        completeness: give out what is missing to it as well, `"completeness/<output name>"`,
            `[batch]`: the sum of the attribution less the score, plus the reference's score. The
            sum is over all tensors that are moved together (those that stand for the inputs), each
            of whose outputs has the same figure beside it. The class is that of the sample at the
            reference too; several baselines are averaged over.
    """

    sign: ClassVar[str] = SIGNED
    draw: ClassVar[str] = DRAWN_AS_MAP
    needs_gradient: ClassVar[bool] = True
    sums_to_score: ClassVar[bool] = False
    fills: ClassVar[str] = ""
    has_completeness: ClassVar[bool] = False
    products: ClassVar[Mapping[str, Product]] = MappingProxyType({})

    output: str | int | None = dataclasses.field(default=None, kw_only=True)
    logits: bool = dataclasses.field(default=True, kw_only=True)
    of: Selector = dataclasses.field(default=None, kw_only=True)
    region: str | None = dataclasses.field(default=None, kw_only=True)
    completeness: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "target", checked_target(self.target))
        self._check_completeness()
        if self.of is not None and self.output is not None:
            raise SpecError(
                f"of={self.of!r} takes the score from a layer, output={self.output!r} from an "
                "output of the model; leave one of them out."
            )
        if self.of is not None and callable(self.target):
            raise SpecError("a callable target gets the model's outputs; it goes without of=.")
        check_choice("region", self.region, ("input",))
        if self.region is not None and callable(self.target):
            raise SpecError(
                "a callable target sums positions up by itself; it goes without region=."
            )
        check_bool("logits", self.logits)

    @property
    def target(self) -> Target:
        """What is differentiated: a field with a default."""
        raise NotImplementedError

    def _check_completeness(self) -> None:
        """Refuses `completeness=` where no such axiom holds.

        Raises:
            SpecError: none holds; lists the methods of which one does.
        """
        check_bool("completeness", self.completeness)
        if self.completeness and not self.has_completeness:
            known = sorted(c.__name__ for c in all_methods(GradientProbe) if c.has_completeness)
            raise SpecError(
                f"pg.{type(self).__name__}(completeness=True): the numbers of this method do not "
                f"add up to a difference of scores. Those of pg.{', pg.'.join(known)} do."
            )

    def reference(self) -> Baseline | None:
        """Returns what tensors are where completeness counts from.

        None where it counts from a score of 0.
        """
        return None

    def table(self) -> Table | None:
        """Returns what the backward pass is made of; None for gradients.

        Methods that have a table exist in ONNX artefacts alone.
        """
        return OwnProducts(frozenset(self.products.items())) if self.products else None

    @property
    def chunk(self) -> int | None:
        """How many points go through the model at once, None for a usual number: a field."""
        return None

    def gradients_at(self) -> Samples | None:
        """Returns where gradients are taken, and what is made of them; None: at the input."""
        return None

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the attribution.

        Args:
            ops: the array operations.
            gradient: of the target at the tensor that is explained, of its shape; with
                `gradients_at` what these make of the gradients at all points; the tensor where
                `needs_gradient` is false.
            value: the tensor.
            axes: its axes.
        """
        del ops, value, axes
        return gradient

    def attribution(
        self,
        ops: Operations[T],
        gradient: T,
        value: T,
        axes: Axes,
        padded: Padded[T] | None = None,
    ) -> T:
        """Returns what is given out: what `combine` makes, in the form that is asked for.

        Args:
            ops, gradient, value, axes: see `combine`.
            padded: where what is explained is padding; None where that is not known.
        """
        del padded
        return self.combine(ops, gradient, value, axes)

    @property
    def moves_with(self) -> GradientProbe:
        """The probe whose points are those of this one's `gradients_at`: itself."""
        return self

    @property
    def moves_tensors(self) -> bool:
        """True where the tensors that it explains are looked at elsewhere, too."""
        table = self.table()
        return self.gradients_at() is not None or (table is not None and table.from_baseline)

    @property
    def gives_gradient(self) -> bool:
        """True where the attribution is the gradient at the tensor, and nothing else."""
        return self.needs_gradient and self.gradients_at() is None and self.hands_gradient_on

    @property
    def hands_gradient_on(self) -> bool:
        """True where `attribution` returns the gradient as it is."""
        return type(self).combine is GradientProbe.combine

    def at_place(self: P, place: Place) -> P:
        """Returns the probe for one tensor, where fields give something for each by name: itself.

        Raises:
            InstrumentError: they say nothing for it.
        """
        del place
        return self

    def check_places(self, places: Sequence[tuple[Place, Sizes]]) -> None:
        """Checks fields against the tensors that are explained: arrays, words for positions.

        Args:
            places: the tensors and their sizes.

        Raises:
            InstrumentError: a field does not fit; says what would.
        """
        del places

    def described(self, axes: Axes) -> dict[str, Any]:
        """Returns what an `OutputSpec` says of the method; also what may be done with it."""
        told = super().described(axes)
        if self.gives_gradient and self.table() is None:
            told["detail"] = {**told["detail"], GRADIENT_DETAIL: True}
        if self.sums_to_score:
            told["detail"] = {**told["detail"], SUM_DETAIL: True}
        return told


@dataclasses.dataclass(frozen=True)
class Sized(Generic[T]):
    """The tensor whose sizes an attribution is brought to.

    Attributes:
        like: the tensor.
        pairs: axis of the attribution, and axis of the tensor that it gets the size of.
    """

    like: T
    pairs: tuple[tuple[int, int], ...]


def resized(ops: Operations[T], attribution: T, sized: Sized[T] | None) -> T:
    """Returns an attribution in its final size; None leaves it as it is."""
    if sized is not None:
        for axis, like_axis in sized.pairs:
            attribution = ops.resize(attribution, axis, sized.like, like_axis)
    return attribution


@dataclasses.dataclass(frozen=True)
class OfInputs(GradientProbe):
    """Explains the inputs (`wrt="input"`), or what the field `wrt` selects.

    Attributes:
        per_token: one number for each token, `[batch, time]`, in the place of a vector: `"norm"`,
            the vector's Euclidean length; `"dot"`, the token's signed share: gradients times the
            embedding, summed over it, and what is such a product already summed. What holds no
            tokens (images, features) stays as it is. Padding is 0, where the model tells it.
        vector_equation: how the vectors are defined, where they are not what `combine` makes.
    """

    selects: ClassVar[str] = "wrt"
    point: ClassVar[str] = "gradient"

    vector_equation: ClassVar[str] = ""

    per_token: str | None = option(None, "One number a token (norm or dot)", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("per_token", self.per_token, WAYS)
        if self.per_token == NORM and self.completeness:
            raise SpecError(
                "completeness= holds sums against scores, and per_token='norm' gives lengths, "
                "which add up to nothing; use per_token='dot'."
            )

    def resolved(self: P, paths: Sequence[str]) -> P:
        """Returns the probe with explicit paths; `"input"` stays, for it is explicit."""
        return self if self.selector == "input" else self.with_selector(list(paths))

    @property
    def gives_slopes(self) -> bool:
        """True where the numbers are slopes, which times the value are shares of the score."""
        return self.unit == SCORE_PER_INPUT

    @property
    def hands_gradient_on(self) -> bool:
        """True where `attribution` returns the gradient as it is."""
        return self.per_token is None and super().hands_gradient_on

    def token_axis(self, axes: Axes) -> int | None:
        """Returns the axis of which one number a token is made; None where all is given out."""
        return None if self.per_token is None else vector_axis(axes)

    def vectors(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the attribution as it is before vectors become one number: as `combine` does."""
        return self.combine(ops, gradient, value, axes)

    def attribution(
        self,
        ops: Operations[T],
        gradient: T,
        value: T,
        axes: Axes,
        padded: Padded[T] | None = None,
    ) -> T:
        """Returns what is given out: one number a token, where that is asked for."""
        if self.per_token is None or self.token_axis(axes) is None:
            return self.combine(ops, gradient, value, axes)
        vectors = self.vectors(ops, gradient, value, axes)
        found = one_a_token(ops, self.per_token, vectors, value, axes, self.gives_slopes)
        return found if padded is None else without_padding(ops, found, padded)

    def result(self, axes: Axes, sizes: Sizes, layer: str = "the layer") -> tuple[Axes, Sizes]:
        """Returns the axes and sizes of what is given out."""
        at = self.token_axis(axes)
        if at is None:
            return super().result(axes, sizes, layer)
        return without(axes, at), tuple(d for i, d in enumerate(sizes) if i != at)

    def described_as_vectors(self, axes: Axes) -> dict[str, Any]:
        """Returns what an `OutputSpec` says of the attribution before vectors are one number."""
        return super().described(axes)

    def described(self, axes: Axes) -> dict[str, Any]:
        """Returns what an `OutputSpec` says of the method, of what is given out."""
        told = self.described_as_vectors(axes)
        if self.token_axis(axes) is None:
            return told
        detail = {**told["detail"], PER_TOKEN_DETAIL: self.per_token}
        inner = f"{self.vector_equation} ({self.paper})" if self.vector_equation else told["method"]
        told = {**told, "title": f"{told['title']} per token"}
        if self.per_token == DOT:
            of = "embedding times " if self.gives_slopes else ""
            line = f"sum over the embedding of {of}({inner})"
            return {**told, "detail": detail, "method": line, "unit": "score", "sign": SIGNED}
        detail.pop(SUM_DETAIL, None)
        line = f"Euclidean norm over the embedding of ({inner})"
        return {**told, "detail": detail, "method": line, "sign": NEVER_NEGATIVE}


@dataclasses.dataclass(frozen=True)
class OfLayerOutput(GradientProbe):
    """Makes something of the gradient at the outputs of layers: `layer` selects them."""

    selects: ClassVar[str] = "layer"
    point: ClassVar[str] = "gradient"

    def resolved(self: P, paths: Sequence[str]) -> P:
        """Returns the probe with the path of its layer, or a list where there are several."""
        return self.with_selector(paths[0] if len(paths) == 1 else list(paths))


@dataclasses.dataclass(frozen=True)
class OfLayer(GradientProbe):
    """Explains the positions of the output of `layer`: a class activation map, never negative.

    Attributes:
        upsample: bring the map to the size of the input whose positions the layer's are.
    """

    sign: ClassVar[str] = NEVER_NEGATIVE
    selects: ClassVar[str] = "layer"
    point: ClassVar[str] = "grad_cam"

    upsample: bool = option(False, "Maps in the size of the input", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool("upsample", self.upsample)

    def resolved(self: P, paths: Sequence[str]) -> P:
        """Returns the probe with the path of its layer, or a list where there are several."""
        return self.with_selector(paths[0] if len(paths) == 1 else list(paths))

    def kept_axes(self, axes: Axes, layer: str = "the layer") -> tuple[int, ...]:
        """Returns batch and positions."""
        del layer
        channel = channel_axis(axes)
        return tuple(i for i in range(len(axes)) if i != channel)
