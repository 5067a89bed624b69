"""What a source offers: a view to plan on, a forward graph, and what to verify against.

A source is one kind of model (Keras, ONNX). `sources.SOURCES` lists them; nothing above this
package knows which one it works on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from probegen.artefact.manifest import InputSpec, Manifest
from probegen.graph.forward import ForwardGraph
from probegen.plan.model_view import ModelView
from probegen.plan.plan import GradientGroup, GradientOutput, Plan, TensorRef

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Arriving:
    """Pictures that arrive in the place of what a model takes.

    Attributes:
        manifest: of the artefact; its inputs are what arrives.
        over: outputs that are brought to the size of a picture -> its input.
    """

    manifest: Manifest
    over: Mapping[str, InputSpec]


@dataclasses.dataclass(frozen=True)
class Noise:
    """Rounding noise where the floating numbers of a model begin.

    It goes where noise on what is fed does not reach: behind whole numbers and texts, and behind
    inputs of a coarser type than the model computes in.

    Attributes:
        size: how much, relative to what is moved; negative for the opposite noise.
        zeros: whether zeros are moved as well, relative to the largest value.
        draw: 0 moves equal numbers alike, so that ties stay ties; others move them apart, each
            draw in another way.
    """

    size: float
    zeros: bool = False
    draw: int = 0


class MovedScores(Protocol):
    """The untouched model with some of its tensors moved: a forward pass, and nothing else."""

    def at(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns the scores of each group of the plan, and the tensors before they are moved.

        Args:
            feed: the inputs.
            shifts: tensor -> what is added to it.
        """

    def holding_masks(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns as `at` the scores where masks stay those of the unmoved tensors.

        So methods that take gradients at several points hold them.
        """

    def is_held_back(self, group: GradientGroup, ref: TensorRef) -> bool:
        """Tells whether the model stops some gradients on the way from a tensor to the score.

        What it asks for then is not the slope: a straight-through estimate is far from it.
        """


class Reference(Protocol):
    """Says what the outputs of an artefact should be.

    Attributes:
        plan: what is computed: the artefact's plan, and the gradients that outputs are made of.
        computed_in: the coarsest element type that the model computes in.
        gradients_by: what computes the gradients, for the certificate.
        words: input of text -> texts that the model knows, where it tells some.
        begins_inside: whether floating numbers begin inside the model, where noise on what is fed
            does not reach: behind ids, texts, and inputs of a coarser type.
    """

    plan: Plan
    computed_in: str
    gradients_by: str
    words: Mapping[str, Sequence[str]]

    @property
    def begins_inside(self) -> bool:
        """See above."""

    @property
    def sizes(self) -> frozenset[int]:
        """Every size that a tensor of the model has, for samples that hit its edges."""

    def shares_gradients_with(self, engine: str) -> bool:
        """Tells whether artefacts of a runtime engine hold these very gradients.

        Agreement with them then proves nothing, and differences of the scores are heard.
        """

    def predictions(self, feed: Mapping[str, Array], times: int = 1) -> list[dict[str, Array]]:
        """Returns what the untouched model predicts, called `times` times on the same inputs."""

    def explanations(
        self, feed: Mapping[str, Array], target: Array | None, noise: Noise | None = None
    ) -> dict[str, Array]:
        """Returns all outputs of the plan.

        Args:
            feed: the inputs.
            target: the targets asked for, where they are.
            noise: what the model's first floating numbers are moved by, where they are not fed.

        Raises:
            VerificationError: they cannot be computed for these inputs.
        """

    def without_rounding(self, feed: Mapping[str, Array], target: Array | None) -> dict[str, Array]:
        """Returns those outputs of which it can be told what they are without their rounding.

        They are computed in float64 as `explanations` are in fewer bits: what the two differ by is
        the rounding of the reference, wherever it arises. Of a model that computes in float64 each
        number is as near to 0 as its rounding lets it be, which is less than that of the same in
        float32 by as much as one unit in the last place is less.
        """

    def with_coarse_sigmoids(
        self, feed: Mapping[str, Array], target: Array | None
    ) -> dict[str, Array]:
        """Returns those outputs of which it can be told what they are with other sigmoids.

        They are exact to a rounding of 1, as onnxruntime's are: 0 far below 0.
        """

    def fed(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what the model itself is fed: the inputs, images preprocessed."""

    def computed_by(self, name: str) -> str:
        """Returns what computes an output that is an attribution, for the certificate."""

    def raw_name(self, output: GradientOutput) -> str | None:
        """Returns what the gradient is called that an output is made of, None if there is none.

        Integrated gradients are made of many.
        """

    def moved_scores(self) -> MovedScores | None:
        """Returns what a third witness moves tensors in; None where there is none."""

    def predictions_with(
        self, feed: Mapping[str, Array], weights: Mapping[str, Array]
    ) -> dict[str, Array] | None:
        """Returns what the model predicts with attention weights in the place of its own.

        None where that cannot be done, or proves nothing that `explanations` does not.

        Args:
            feed: the inputs.
            weights: whole weights by the name of the output that gives them.
        """

    def computed_near(self, name: str) -> float:
        """Returns the size of the numbers that an output's last function computes with.

        1 for a sigmoid, however small the probability; 0 where there is no such function.
        """

    def cause_of(self, error: Exception) -> str:
        """Returns on one line what an exception of the model says."""

    def cause_of_failure(self, feed: Mapping[str, Array]) -> str | None:
        """Says why the model cannot run on inputs, None where it can."""

    def where_not_finite(self, feed: Mapping[str, Array]) -> str:
        """Says in sentences where the first value arises that is not finite."""

    def remark(self, feed: Mapping[str, Array]) -> str:
        """Returns what the certificate says of the model that is no question of agreement.

        `""` where there is nothing to say.
        """


class DirectReference:
    """What references share that run a model on its own inputs.

    Attributes:
        gradients_by: what computes the gradients, for the certificate.
    """

    gradients_by: str
    _raw: Mapping[str, str]  # output -> what the gradient is called that it is made of

    def fed(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the inputs: the model takes them as they are."""
        return dict(feed)

    def computed_by(self, name: str) -> str:
        """Returns what computes an attribution: one and the same for all."""
        del name
        return self.gradients_by

    def raw_name(self, output: GradientOutput) -> str | None:
        """Returns what the gradient is called that an output is made of, None if there is none.

        What is made of gradients at several points has none.
        """
        return self._raw.get(output.spec.name)


class WrappedReference:
    """Answers what another reference does; a subclass says what it answers otherwise."""

    def __init__(self, inner: Reference) -> None:
        self._inner = inner
        self.plan: Plan = inner.plan
        self.computed_in = inner.computed_in
        self.gradients_by = inner.gradients_by
        self.words = inner.words

    @property
    def sizes(self) -> frozenset[int]:
        """Every size that a tensor of the model has."""
        return self._inner.sizes

    @property
    def begins_inside(self) -> bool:
        """Tells whether floating numbers begin where noise on what is fed does not reach."""
        return self._inner.begins_inside

    def shares_gradients_with(self, engine: str) -> bool:
        """Tells whether artefacts of a runtime engine hold these very gradients."""
        return self._inner.shares_gradients_with(engine)

    def predictions(self, feed: Mapping[str, Array], times: int = 1) -> list[dict[str, Array]]:
        """Returns what the untouched model predicts."""
        return self._inner.predictions(feed, times)

    def explanations(
        self, feed: Mapping[str, Array], target: Array | None, noise: Noise | None = None
    ) -> dict[str, Array]:
        """Returns all outputs of the plan."""
        return self._inner.explanations(feed, target, noise)

    def without_rounding(self, feed: Mapping[str, Array], target: Array | None) -> dict[str, Array]:
        """Returns outputs without their rounding."""
        return self._inner.without_rounding(feed, target)

    def with_coarse_sigmoids(
        self, feed: Mapping[str, Array], target: Array | None
    ) -> dict[str, Array]:
        """Returns outputs with sigmoids that are exact to a rounding of 1."""
        return self._inner.with_coarse_sigmoids(feed, target)

    def fed(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what the model itself is fed."""
        return self._inner.fed(feed)

    def computed_by(self, name: str) -> str:
        """Returns what computes an output, for the certificate."""
        return self._inner.computed_by(name)

    def raw_name(self, output: GradientOutput) -> str | None:
        """Returns what the gradient is called that an output is made of."""
        return self._inner.raw_name(output)

    def predictions_with(
        self, feed: Mapping[str, Array], weights: Mapping[str, Array]
    ) -> dict[str, Array] | None:
        """Returns what the model predicts with attention weights in the place of its own."""
        return self._inner.predictions_with(feed, weights)

    def moved_scores(self) -> MovedScores | None:
        """Returns what a third witness moves tensors in."""
        return self._inner.moved_scores()

    def computed_near(self, name: str) -> float:
        """Returns the size of the numbers that an output's last function computes with."""
        return self._inner.computed_near(name)

    def cause_of(self, error: Exception) -> str:
        """Returns on one line what an exception of the model says."""
        return self._inner.cause_of(error)

    def cause_of_failure(self, feed: Mapping[str, Array]) -> str | None:
        """Says why the model cannot run on inputs, None where it can."""
        return self._inner.cause_of_failure(feed)

    def where_not_finite(self, feed: Mapping[str, Array]) -> str:
        """Says in sentences where the first value arises that is not finite."""
        return self._inner.where_not_finite(feed)

    def remark(self, feed: Mapping[str, Array]) -> str:
        """Returns what the certificate says of the model by itself."""
        return self._inner.remark(feed)


class Source(Protocol):
    """A model that probes are compiled into.

    Attributes:
        name: the model's name.
        batch: the batch size that it is bound to, None where any will do.
        view: what planning looks at.
        formats: what it can be written as.
    """

    name: str
    batch: int | None
    formats: tuple[str, ...]

    def as_written(self, kind: str) -> Source:
        """Returns the model as it is written in a format: for ONNX it is cut behind text layers.

        Raises:
            ExportError: it takes text and cannot be cut.
        """

    def with_states(self, select: Any, pairs: Mapping[str, str] | None = None) -> Source:
        """Returns the model with recurrent states as inputs and outputs.

        Args:
            select: of which layers; None for the usual ones.
            pairs: input -> output, of states that the model takes and gives out already; in the
                place of `select`.

        Raises:
            SelectionError: it matches no recurrent layer.
            ExportError: a layer, or a source, has none that can be fed; says why.
        """

    def with_carried(self, carried: Mapping[str, str]) -> Source:
        """Returns the model with the states that an artefact of it has: input -> output.

        Raises:
            SelectionError, ExportError: see `with_states`.
        """

    def read_texts(
        self, feed: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array] | Exception]:
        """Runs the untouched model on texts, where it takes some (`view.texts`).

        Args:
            feed: texts (bytes as objects), and other inputs, by name.

        Returns:
            What it makes of the texts by the name of the artefact's input, and its predictions, or
            what it raised instead, of a text that is too long, say.
        """

    @property
    def view(self) -> ModelView:
        """What planning looks at."""

    def forward_graph(
        self, plan: Plan, opset: int, batch: int | None, *, placeholders: bool = False
    ) -> ForwardGraph:
        """Returns the forward pass of a plan as an ONNX graph.

        Args:
            plan: what is taken from it.
            opset: ONNX operator set.
            batch: a fixed batch size, or None for an open one.
            placeholders: leave out what the weights hold, for a graph that is only looked at.

        Raises:
            UnsupportedOpsError: operations without ONNX form; lists each with its layer.
            ExportError: it cannot be written.
        """

    def reference(self, plan: Plan) -> Reference:
        """Returns what an artefact of a plan is verified against."""

    def moved_scores(self, plan: Plan) -> MovedScores:
        """Returns the untouched model with the tensors moved that a plan differentiates by."""

    def write(
        self,
        kind: str,
        plan: Plan,
        place: Path,
        batch: int | None,
        arriving: Arriving | None = None,
    ) -> Manifest:
        """Writes a format of the source's own (one of `formats` but ONNX); returns its manifest.

        Args:
            kind: the format.
            plan: what is computed.
            place: where it goes.
            batch: a fixed batch size, or None for an open one.
            arriving: what the artefact preprocesses, where it does that.

        Raises:
            ExportError: the format cannot hold it.
        """


@dataclasses.dataclass(frozen=True)
class Program:
    """A model and what is compiled into it."""

    source: Source
    plan: Plan
