"""An ONNX file as a source, whoever wrote it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probegen.artefact.manifest import STATE, Manifest
from probegen.errors import ExportError, SourceError
from probegen.graph.assemble import DEFAULT_OPSET
from probegen.graph.forward import ForwardGraph
from probegen.plan.axes import Axes
from probegen.plan.plan import Plan
from probegen.sources.base import Arriving
from probegen.sources.onnx.explicit_states import StatesFile, with_states
from probegen.sources.onnx.lowering import forward_graph
from probegen.sources.onnx.moved_scores import OnnxMovedScores
from probegen.sources.onnx.reading import OnnxModel, read_onnx
from probegen.sources.onnx.reference import OnnxReference
from probegen.sources.onnx.reference_from_zero import ReferenceFromZero
from probegen.sources.onnx.view import OnnxView

#: What exporters call a graph, whichever it is.
_CHOSEN_BY_EXPORTERS = frozenset(
    {"", "main", "main_graph", "graph", "model", "torch_jit", "torch-jit-export", "tf2onnx"}
    | {"torch-jit-export-graph", "tf_model", "onnx_model", "mlmodel"}
)


class OnnxSource:
    """An ONNX model that probes are compiled into; see `sources.base.Source`."""

    formats: tuple[str, ...] = ("onnx",)

    def __init__(
        self,
        read: OnnxModel,
        axes: Mapping[str, Axes] | None = None,
        states: StatesFile | None = None,
        untouched: tuple[OnnxModel, int | None] | None = None,
    ) -> None:
        """Takes a model that was read.

        Args:
            read: the prepared model.
            axes: input or output name -> its axes, where a user says them.
            states: its states, where these are inputs and outputs.
            untouched: the model before states were added to it, and the batch it is bound to.
        """
        self._read, self._axes = read, dict(axes or {})
        self._states, self._untouched = states, untouched
        self.name = _name(read if untouched is None else untouched[0])
        self.batch = self.view.batch

    @functools.cached_property
    def view(self) -> OnnxView:
        """What planning looks at."""
        producer = self._read.model.producer_name or ""
        view = OnnxView(self._read.model.graph, self.name, producer, self._axes, self._read.notes)
        if self._states is not None:
            view.carried = self._states.carried
        return view

    def with_states(self, select: Any, pairs: Mapping[str, str] | None = None) -> OnnxSource:
        """Returns the file with recurrent states as inputs and outputs; see `sources.base`."""
        return self._with(with_states(self._read, self.view, select, pairs))

    def with_carried(self, carried: Mapping[str, str]) -> OnnxSource:
        """Returns the file with the states that an artefact of it has; see `sources.base`."""
        names = self.view.input_names
        own = {name: following for name, following in carried.items() if name in names}
        added = (name for name in carried if name not in names)
        paths = list(dict.fromkeys(n.removeprefix(STATE).partition(":")[0] for n in added))
        return self._with(with_states(self._read, self.view, paths or None, own))

    def _with(self, states: StatesFile) -> OnnxSource:
        untouched = (self._read, self.batch) if states.added else None
        return OnnxSource(states.read, {**states.axes, **self._axes}, states, untouched)

    def as_written(self, kind: str) -> OnnxSource:
        """Returns this."""
        del kind
        return self

    def read_texts(
        self, feed: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any] | Exception]:
        """Refuses: an ONNX model takes no text by itself."""
        raise SourceError(f"{self.name!r} takes no text, got {sorted(feed)}.")

    def forward_graph(
        self, plan: Plan, opset: int, batch: int | None, *, placeholders: bool = False
    ) -> ForwardGraph:
        """Returns the forward pass of a plan: a copy of the file's own graph.

        The artefact keeps the file's operator set where that is newer than `opset`.

        Raises:
            ExportError: another one is asked for, or the batch cannot be fixed.
        """
        del placeholders  # weights stay where they lie
        if opset > self._read.opset or opset not in (DEFAULT_OPSET, self._read.opset):
            raise ExportError(
                f"opset={opset}: the artefact of an ONNX file keeps the file's operator set, which "
                f"is {self._read.opset} here; leave opset= (--opset) out."
            )
        return forward_graph(self._read, self.view, plan, None if batch == self.batch else batch)

    def reference(self, plan: Plan) -> OnnxReference:
        """Returns the original file in onnxruntime, and what its scores do when tensors move."""
        if self._untouched is None or self._states is None:
            return OnnxReference(self._read, self.view, plan)
        added = self._states.added
        return ReferenceFromZero(self._read, self.view, plan, self._untouched, added)

    def moved_scores(self, plan: Plan) -> OnnxMovedScores:
        """Returns the original file with the tensors moved that a plan differentiates by."""
        return OnnxMovedScores(self._read, self.view, plan)

    def write(
        self,
        kind: str,
        plan: Plan,
        place: Path,
        batch: int | None,
        arriving: Arriving | None = None,
    ) -> Manifest:
        """Refuses: an ONNX model is written as ONNX alone."""
        del plan, place, batch, arriving
        raise ExportError(f"an ONNX model cannot be written as {kind}; use a name ending in .onnx.")


def _name(read: OnnxModel) -> str:
    """Returns what a model is called: as its graph is, or its file where exporters chose that."""
    name = read.model.graph.name or ""
    stem = read.original.stem if isinstance(read.original, Path) else ""
    return stem or name or "model" if name.lower() in _CHOSEN_BY_EXPORTERS else name


def open_source(model: Any, inputs: Any = None) -> OnnxSource:
    """Returns an ONNX model, or the path of one, as a source.

    Args:
        model: a path, bytes, an `onnx.ModelProto` or an `onnx_ir.Model`.
        inputs: input or output name -> names of its axes, where they are not as usual:
            `{"x": ("time", "batch", "feature")}` or `{"x": "time,batch,feature"}`.

    Raises:
        SourceError: it is no ONNX model, or axes are none.
    """
    read = read_onnx(os.fspath(model) if isinstance(model, os.PathLike) else model, _ranks(inputs))
    return OnnxSource(read, _axes(inputs, read))


def _ranks(given: Any) -> dict[str, int]:
    """Returns how many axes are named, by input or output; `_axes` says what is wrong with them."""
    if not isinstance(given, Mapping):
        return {}
    words = {str(name): _words(axes) for name, axes in given.items()}
    return {name: len(named) for name, named in words.items() if isinstance(named, Sequence)}


def _words(axes: Any) -> Any:
    return axes.split(",") if isinstance(axes, str) else axes


def _axes(given: Any, read: OnnxModel) -> dict[str, Axes]:
    if given is None:
        return {}
    graph = read.model.graph
    ranks = {
        str(v.name): None if v.shape is None else len(v.shape)
        for v in [*graph.inputs, *graph.outputs]
    }
    if not isinstance(given, Mapping):
        raise SourceError(
            "inputs= of an ONNX model takes a dict of axes, such as "
            "{'x': ('time', 'batch', 'feature')}."
        )
    found: dict[str, Axes] = {}
    for name, axes in given.items():
        words = _words(axes)
        if name not in ranks:
            raise SourceError(f"the model has no input or output {name!r}; it has {list(ranks)}.")
        if not isinstance(words, Sequence) or ranks[name] not in (None, len(words)):
            raise SourceError(f"{name!r} has {ranks[name]} axes; got {axes!r}.")
        names = tuple(str(word).strip() for word in words)
        if len(set(names)) < len(names) or not all(names):
            raise SourceError(f"each axis of {name!r} needs a name of its own; got {axes!r}.")
        found[name] = names
    return found
