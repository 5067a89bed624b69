"""A Keras model as a source."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegen.artefact.manifest import STATE, Manifest
from probegen.errors import ExportError, SourceError
from probegen.graph.forward import ForwardGraph
from probegen.plan.plan import Plan
from probegen.sources.base import Arriving
from probegen.sources.keras.caches import has_cache, with_cache
from probegen.sources.keras.explicit_states import with_own_states, with_states
from probegen.sources.keras.instrumented import ProbedModel
from probegen.sources.keras.keras_model import KerasModel, as_keras_model
from probegen.sources.keras.moved_scores import KerasMovedScores
from probegen.sources.keras.reference import KerasReference
from probegen.sources.keras.savedmodel import write_savedmodel
from probegen.sources.keras.texts.attached import Attached, attached
from probegen.sources.keras.texts.fewest_words import checked_in_graph
from probegen.sources.keras.texts.leftovers import refuse_strings
from probegen.sources.keras.texts.token_model import TokenModel, behind_texts, takes_text
from probegen.sources.keras.view import KerasView

if TYPE_CHECKING:
    from probegen.sources.keras.to_onnx.lowering import Conversion


class KerasSource:
    """A built Keras model that probes are compiled into; see `sources.base.Source`."""

    formats: tuple[str, ...] = ("onnx", "savedmodel", "keras")

    def __init__(self, model: KerasModel) -> None:
        self.keras_model = model
        self.name: str = model.model.name
        self.batch = model.batch
        #: What tf2onnx made, and of what: parts of a plan, and how they were asked for.
        self._conversion: tuple[tuple[Any, ...], Conversion] | None = None

    def as_written(self, kind: str) -> KerasSource:
        """Returns the model, for ONNX cut behind its text layers.

        Raises:
            ExportError: it takes text and cannot be cut.
        """
        if kind != "onnx" or not takes_text(self.keras_model):
            return self
        return KerasSource(behind_texts(self.keras_model))

    def with_carried(self, carried: Mapping[str, str]) -> KerasSource:
        """Returns the model with the states that an artefact of it has; see `sources.base`."""
        if set(carried) <= set(self.view.input_names):
            return self.with_states(None, carried)
        if has_cache(self.keras_model):
            return self.with_states(None)
        paths = (name.removeprefix(STATE).partition(":")[0] for name in carried)
        return self.with_states(list(dict.fromkeys(paths)))

    def with_states(self, select: Any, pairs: Mapping[str, str] | None = None) -> KerasSource:
        """Returns the model with recurrent states as inputs and outputs; see `sources.base`."""
        if pairs is not None:
            return KerasSource(with_own_states(self.view, pairs))
        if isinstance(self.keras_model, TokenModel):
            raise ExportError(
                "states='io' is for models that take numbers: split the model behind its text "
                "layers, and compile what stands behind them."
            )
        if select is None and has_cache(self.keras_model):
            return KerasSource(with_cache(self.keras_model))
        return KerasSource(with_states(self.view, select))

    def read_texts(
        self, feed: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any] | Exception]:
        """Runs the untouched model on texts; see `sources.base.Source`."""
        taking = self.keras_model if isinstance(self.keras_model, TokenModel) else self._attached
        if taking is None:
            raise SourceError(f"{self.name!r} takes no text, got {sorted(feed)}.")
        return taking.read_texts(feed)

    @functools.cached_property
    def _attached(self) -> Attached | None:
        return attached(self.keras_model)

    @functools.cached_property
    def view(self) -> KerasView:
        """What planning looks at; the model is traced when it is first asked for."""
        view = KerasView(self.keras_model)
        if isinstance(self.keras_model, TokenModel):
            view.texts = self.keras_model.texts
            refuse_strings(view.trace)
        elif self._attached is not None:
            view.texts = (self._attached.spec,)
        return view

    def forward_graph(
        self, plan: Plan, opset: int, batch: int | None, *, placeholders: bool = False
    ) -> ForwardGraph:
        """Returns the forward pass of a plan as an ONNX graph, through tf2onnx.

        tf2onnx is not run again for what it was last run for: the verification of methods with a
        backward pass of their own reads the graph that the artefact was made from.
        """
        from probegen.sources.keras.to_onnx.lowering import convert_forward, converted_graph

        asked = (*plan.plain, *plan.groups, opset, batch, placeholders)
        last, conversion = self._conversion or ((), None)
        if conversion is None or len(asked) != len(last) or not all(map(operator.is_, asked, last)):
            conversion = convert_forward(
                self.keras_model, plan, opset, batch, placeholder_weights=placeholders
            )
            self._conversion = asked, conversion
        return converted_graph(self.keras_model, plan, conversion)

    def reference(self, plan: Plan) -> KerasReference:
        """Returns the model called eagerly, and TensorFlow's gradients."""
        return KerasReference(self.keras_model, plan)

    def moved_scores(self, plan: Plan) -> KerasMovedScores:
        """Returns the model with the tensors moved that a plan differentiates by."""
        return KerasMovedScores(self.keras_model, plan)

    def write(
        self,
        kind: str,
        plan: Plan,
        place: Path,
        batch: int | None,
        arriving: Arriving | None = None,
    ) -> Manifest:
        """Writes a SavedModel folder or a `.keras` file; returns its manifest.

        Raises:
            ExportError: a `.keras` file is to preprocess pictures.
        """
        if kind != "savedmodel" and arriving is not None:
            raise ExportError(
                f"preprocess= is for ONNX and SavedModel, not for {kind}; use a name ending in "
                ".onnx, or a folder."
            )
        probed = ProbedModel(self.keras_model, plan)
        if kind == "savedmodel":
            with checked_in_graph(self.view.needed_words):
                return write_savedmodel(probed, place, batch, arriving)
        probed.save(place)
        return plan.manifest


def open_source(model: Any, inputs: Any = None) -> KerasSource:
    """Returns a model, or the path of one, as a source.

    Raises:
        SourceError: it is no Keras model, or not built.
    """
    if isinstance(model, KerasModel):
        return KerasSource(model)
    return KerasSource(as_keras_model(model, inputs))
