"""A model behind the preprocessing of its images: a source made of another source.

The plan is that of the model itself: what probes explain is the tensor that the model takes. What
changes are the inputs that the manifest names, and the nodes in front of the graph.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import (
    GRADIENT_DETAIL,
    SUM_DETAIL,
    InputSpec,
    Manifest,
    OutputSpec,
)
from probegen.artefact.preprocessing import (
    OF_INPUT,
    OF_MODEL,
    PLACED_DETAIL,
    ImageInput,
    Preprocessing,
    resolved,
)
from probegen.errors import ExportError, SpecError, did_you_mean
from probegen.graph.forward import ForwardGraph
from probegen.graph.preprocessing import over_input, with_arriving_images
from probegen.plan.model_view import ModelView
from probegen.plan.plan import GradientGroup, Plan, TensorRef
from probegen.runtime.resize import over_picture
from probegen.sources.base import (
    Arriving,
    MovedScores,
    Noise,
    Program,
    Reference,
    Source,
    WrappedReference,
)
from probegen.sources.preprocessed_by_numpy import prepared

Array = npt.NDArray[Any]

#: What holds preprocessing, where the model can be written so.
FORMATS = ("onnx", "savedmodel")
#: What `preprocess=` takes: of the one input that takes images, or by the names of inputs.
Preprocess = ImageInput | Mapping[str, ImageInput]


def with_preprocessing(program: Program, asked: Any) -> Program:
    """Returns a program whose images arrive as they are, and are preprocessed in the graph.

    Args:
        program: the model and its probes.
        asked: an `ImageInput`, a dict of them by input name, or None for the program as it is.

    Raises:
        SpecError: it is none of these, names no input, or does not fit one.
        ExportError: two inputs would get one name.
    """
    if asked is None:
        return program
    own = program.plan.manifest.inputs
    chosen = _by_name(asked, own)
    arriving = []
    for spec in own:
        image = chosen.get(spec.name)
        if image is None:
            arriving.append(spec)
            continue
        how, shape, axes = resolved(image, spec.name, spec.dtype, spec.shape, spec.axes)
        arriving.append(InputSpec(spec.name, image.dtype, shape, axes, preprocessing=how))
    return behind(program, tuple(arriving))


def behind(program: Program, arriving: tuple[InputSpec, ...]) -> Program:
    """Returns a program with the inputs that arrive in the place of the model's own.

    Args:
        program: the model and its probes.
        arriving: its inputs in order, some of them with `preprocessing`.
    """
    if not any(spec.preprocessing for spec in arriving):
        return program
    source = PreprocessedSource(program.source, program.plan.manifest.inputs, arriving)
    return Program(source, source.outer(program.plan))


def _by_name(asked: Any, inputs: tuple[InputSpec, ...]) -> Mapping[str, ImageInput]:
    """Returns what is asked for, by input name.

    Raises:
        SpecError: it is no `ImageInput` nor a dict of them, or it is not told of which input.
    """
    names = [spec.name for spec in inputs]
    if isinstance(asked, ImageInput):
        images = [s.name for s in inputs if {"height", "width"} <= set(s.axes)]
        if len(images) == 1:
            return {images[0]: asked}
        if len(names) == 1:
            return {names[0]: asked}
        raise SpecError(
            f"preprocess= is given once, and the model has {len(images)} inputs that take images "
            f"of {', '.join(map(repr, names))}: give a dict by name, "
            f"{{{(images or names)[0]!r}: pg.ImageInput(...)}}."
        )
    if not isinstance(asked, Mapping) or not all(isinstance(v, ImageInput) for v in asked.values()):
        raise SpecError(
            f"preprocess= takes pg.ImageInput(...) or a dict of them by input name, got {asked!r}."
        )
    for name in asked:
        if name not in names:
            raise SpecError(
                f"preprocess= names the input {name!r}, which the model has not."
                f"{did_you_mean(str(name), names)}"
            )
    return asked


class PreprocessedSource:
    """A model whose images are preprocessed in the graph; see `sources.base.Source`."""

    def __init__(
        self, inner: Source, own: tuple[InputSpec, ...], arriving: tuple[InputSpec, ...]
    ) -> None:
        """Takes a source.

        Args:
            inner: the model itself.
            own: its inputs.
            arriving: what arrives in their places, in the same order.
        """
        self._inner, self._own, self.arriving = inner, own, arriving
        self.name = inner.name
        self.batch = inner.batch
        self.formats: tuple[str, ...] = tuple(f for f in inner.formats if f in FORMATS)

    def outer(self, plan: Plan) -> Plan:
        """Returns a plan of the model with what arrives as its inputs."""
        placed = self._placed(plan)
        outputs = tuple(
            _over(o, placed[o.name]) if o.name in placed else o for o in plan.manifest.outputs
        )
        return _with(plan, self.arriving, outputs)

    def inner(self, plan: Plan) -> Plan:
        """Returns a plan with the model's own inputs, and attributions in its own size."""
        placed = self._placed(plan)
        own = {o.spec.name: o.spec for group in plan.groups for o in group.outputs}
        outputs = tuple(own[o.name] if o.name in placed else o for o in plan.manifest.outputs)
        return _with(plan, self._own, outputs)

    def _placed(self, plan: Plan) -> dict[str, InputSpec]:
        """Returns the outputs that are brought to the size of a picture -> its input."""
        found = {}
        for o in (o for group in plan.groups for o in group.outputs):
            at = o.sized_as.position if o.sized_as is not None else None
            for i, spec in enumerate(self.arriving):
                how = spec.preprocessing
                if how is None or how.attributions != OF_INPUT:
                    continue
                of_input = o.ref == TensorRef(None, position=i)
                if (of_input or at == i) and {"height", "width"} <= set(o.spec.axes):
                    found[o.spec.name] = spec
        return found

    def in_own_size(self, program: Program) -> Program:
        """Returns a program of this source with all attributions in the model's own size."""
        arriving = tuple(
            dataclasses.replace(s, preprocessing=s.preprocessing and _in_own_size(s.preprocessing))
            for s in self.arriving
        )
        source = PreprocessedSource(self._inner, self._own, arriving)
        return Program(source, source.outer(self.inner(program.plan)))

    def over_input(self, plan: Plan, name: str, heat: Array, feed: Mapping[str, Array]) -> Array:
        """Returns an output, by numpy, as it lies over the picture that arrived.

        Args:
            plan: it is an output of.
            name: of the output.
            heat: the output in the model's own size.
            feed: the inputs.
        """
        spec = self._placed(plan).get(name)
        if spec is None:
            return heat
        axes = plan.manifest.output(name).axes
        places = [list(axes).index(axis) for axis in ("height", "width")]
        height, width = (feed[spec.name].shape[spec.axes.index(a)] for a in ("height", "width"))
        first = np.moveaxis(heat, places, (0, 1))
        made = over_picture(first, (height, width), spec.preprocessing)
        return np.moveaxis(made, (0, 1), places)

    def inside(self, plan: Plan) -> Program:
        """Returns the model itself with a plan of it."""
        return Program(self._inner, self.inner(plan))

    def fed(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what the model itself is fed."""
        found = dict(feed)
        for spec in self.arriving:
            if spec.preprocessing is not None:
                found[spec.name] = prepared(feed[spec.name], spec)
        return found

    def as_written(self, kind: str) -> Source:
        """Returns this: the model is in the form that it is written in."""
        del kind
        return self

    def with_states(self, select: Any, pairs: Mapping[str, str] | None = None) -> Source:
        """Refuses: states are made inputs before images are preprocessed.

        Raises:
            ExportError: always.
        """
        del pairs
        raise ExportError(f"states={select!r} has to be asked for before preprocess=.")

    def with_carried(self, carried: Mapping[str, str]) -> Source:
        """Refuses likewise.

        Raises:
            ExportError: always.
        """
        raise ExportError(f"the states {sorted(carried)} have to be said before preprocess=.")

    def read_texts(
        self, feed: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array] | Exception]:
        """Runs the untouched model on texts and on pictures as they arrive."""
        return self._inner.read_texts(self.fed(feed))

    @property
    def view(self) -> ModelView:
        """What planning looks at: the model itself."""
        return self._inner.view

    def forward_graph(
        self, plan: Plan, opset: int, batch: int | None, *, placeholders: bool = False
    ) -> ForwardGraph:
        """Returns the forward pass with the preprocessing in front; see `sources.base.Source`."""
        forward = self._inner.forward_graph(
            self.inner(plan), opset, batch, placeholders=placeholders
        )
        behind = with_arriving_images(forward, self.arriving)
        pictures = {str(value.name): value for value in behind.graph.inputs}
        axes = {o.name: o.axes for o in plan.manifest.outputs}
        afterwards = {
            name: functools.partial(
                over_input, axes=axes[name], arriving=pictures[spec.name], spec=spec
            )
            for name, spec in self._placed(plan).items()
            if name in axes
        }
        return dataclasses.replace(behind, afterwards=afterwards)

    def reference(self, plan: Plan) -> Reference:
        """Returns the model's own reference, fed with pictures that numpy has preprocessed."""
        return PreprocessedReference(self._inner.reference(self.inner(plan)), self)

    def moved_scores(self, plan: Plan) -> MovedScores:
        """Returns the model with tensors moved, fed likewise."""
        return PreprocessedScores(self._inner.moved_scores(self.inner(plan)), self)

    def write(
        self,
        kind: str,
        plan: Plan,
        place: Path,
        batch: int | None,
        arriving: Arriving | None = None,
    ) -> Manifest:
        """Writes a format of the model's own; see `sources.base.Source`."""
        assert arriving is None  # no source is preprocessed twice
        arriving = Arriving(plan.manifest, self._placed(plan))
        return self._inner.write(kind, self.inner(plan), place, batch, arriving)


def _with(plan: Plan, inputs: tuple[InputSpec, ...], outputs: tuple[OutputSpec, ...]) -> Plan:
    changed = plan.manifest.replace(inputs=inputs, outputs=outputs)
    return dataclasses.replace(plan, manifest=changed)


def _in_own_size(how: Preprocessing) -> Preprocessing:
    return dataclasses.replace(how, attributions=OF_MODEL)


def _over(output: OutputSpec, arriving: InputSpec) -> OutputSpec:
    """Returns what the manifest says of an output that has the size of the picture."""
    sizes = dict(zip(arriving.axes, arriving.shape, strict=True))
    shape = tuple(
        sizes[axis] if axis in ("height", "width") else n
        for n, axis in zip(output.shape, output.axes, strict=True)
    )
    # What is spread over other pixels is no gradient that could be followed, and has another sum.
    kept = {k: v for k, v in output.detail.items() if k not in (GRADIENT_DETAIL, SUM_DETAIL)}
    return dataclasses.replace(
        output,
        shape=shape,
        method=f"{output.method}; brought to the size of the picture that arrived, linearly",
        detail={**kept, PLACED_DETAIL: arriving.name},
    )


class PreprocessedReference(WrappedReference):
    """The reference for pictures as they arrive."""

    def __init__(self, inner: Reference, source: PreprocessedSource) -> None:
        super().__init__(inner)
        self._source = source
        self.plan = source.outer(inner.plan)

    def fed(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what the model itself is fed."""
        return self._inner.fed(self._source.fed(feed))

    def predictions(self, feed: Mapping[str, Array], times: int = 1) -> list[dict[str, Array]]:
        """Returns what the untouched model predicts."""
        return self._inner.predictions(self._source.fed(feed), times)

    def explanations(
        self, feed: Mapping[str, Array], target: Array | None, noise: Noise | None = None
    ) -> dict[str, Array]:
        """Returns all outputs of the plan."""
        return self._inner.explanations(self._source.fed(feed), target, noise)

    def without_rounding(self, feed: Mapping[str, Array], target: Array | None) -> dict[str, Array]:
        """Returns those outputs that can be computed in float64."""
        return self._inner.without_rounding(self._source.fed(feed), target)

    def with_coarse_sigmoids(
        self, feed: Mapping[str, Array], target: Array | None
    ) -> dict[str, Array]:
        """Returns outputs with sigmoids that are exact to a rounding of 1."""
        return self._inner.with_coarse_sigmoids(self._source.fed(feed), target)

    def predictions_with(
        self, feed: Mapping[str, Array], weights: Mapping[str, Array]
    ) -> dict[str, Array] | None:
        """Returns what the model predicts with attention weights in the place of its own."""
        return self._inner.predictions_with(self._source.fed(feed), weights)

    def moved_scores(self) -> MovedScores | None:
        """Returns what a third witness moves tensors in."""
        moved = self._inner.moved_scores()
        return None if moved is None else PreprocessedScores(moved, self._source)

    def cause_of_failure(self, feed: Mapping[str, Array]) -> str | None:
        """Says why the model cannot run on inputs, None where it can."""
        return self._inner.cause_of_failure(self._source.fed(feed))

    def where_not_finite(self, feed: Mapping[str, Array]) -> str:
        """Says in sentences where the first value arises that is not finite."""
        return self._inner.where_not_finite(self._source.fed(feed))

    def remark(self, feed: Mapping[str, Array]) -> str:
        """Returns what the certificate says of the model by itself."""
        return self._inner.remark(self._source.fed(feed))


class PreprocessedScores:
    """The model with tensors moved, fed with pictures as they arrive."""

    def __init__(self, inner: MovedScores, source: PreprocessedSource) -> None:
        self._inner, self._source = inner, source

    def at(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns the scores of each group, and the tensors before they are moved."""
        return self._inner.at(self._source.fed(feed), shifts)

    def holding_masks(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns as `at` the scores where masks stay those of the unmoved tensors."""
        return self._inner.holding_masks(self._source.fed(feed), shifts)

    def is_held_back(self, group: GradientGroup, ref: TensorRef) -> bool:
        """Tells whether the model stops some gradients on the way from a tensor to the score."""
        return self._inner.is_held_back(group, ref)
