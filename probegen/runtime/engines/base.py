"""What the runtime asks of an engine: open a path, say what is in it, compute outputs from feeds.

Targets, gates, class names and the checks of what a user feeds are the loaded artefact's business
(`probegen.runtime.loaded`), so a new engine is one file and one line in the table of
`probegen.runtime.engines`.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from probegen.errors import ArtefactError
from probegen.runtime.inputs import Array


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of a graph.

    Attributes:
        dtype: numpy name of its element type.
        shape: its sizes, None where one is open; None where the rank is not known.
    """

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a graph computes in one call. An ONNX graph has one; a SavedModel has several.

    Attributes:
        inputs: by their names in the graph; see `Engine.graph_name`.
        outputs: by name.
        required: names of the inputs that have no default.
    """

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    required: tuple[str, ...]


class Engine(abc.ABC):
    """An artefact's graph, opened and ready to run.

    Attributes:
        product: the program that runs it, as its makers call it.
        manifest_text: the manifest that travels with the graph.
        signatures: what can be computed, the cheapest first.
    """

    product: str
    manifest_text: str
    signatures: tuple[Signature, ...]

    @property
    def name(self) -> str:
        """What runs it and where, for people."""
        return self.product

    def graph_name(self, name: str) -> str:
        """Returns what the graph calls an input of the artefact."""
        return name

    @abc.abstractmethod
    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Computes outputs. Safe to call from several threads.

        Args:
            feeds: every input of the artefact, by the artefact's names.
            outputs: names of what is wanted; `signatures` has them all.

        Returns:
            The outputs by name, arrays that nothing else writes to. Text is numpy's `U` or `S`.

        Whatever it raises is reported as that of `product`.
        """


class Options(TypedDict, total=False):
    """What engines can be told; each engine takes some of these.

    Keys:
        threads: number of threads within an operator; by default the engine's own choice.
        device: where it computes; by default the CPU. For onnxruntime `"cpu"`, `"cuda"`, `"cuda:1"`
            or what else it was built for; for OpenVINO `"GPU"`, `"AUTO:GPU,CPU"` and the like.
        providers: onnxruntime's execution providers in order of preference, each a name or a pair
            of name and options, in place of `device`; by default `["CPUExecutionProvider"]`. CUDA
            computes float32 in float32 unless its options say `{"use_tf32": "1"}`.
        session_options: onnxruntime's session options, for everything else. `threads` must then
            be set there.
        config: OpenVINO's properties by name, for everything else, such as
            `{"INFERENCE_PRECISION_HINT": "bf16"}`; by default it computes in float32.
    """

    threads: int | None
    device: str | None
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None
    session_options: Any
    config: Mapping[str, Any] | None


def foreign(path: Path) -> ArtefactError:
    """Returns the error for a model that carries no manifest."""
    return ArtefactError(
        f"{str(path)!r} was not made by probegen: it carries no manifest, so what its outputs mean "
        "is not known. Compile the model with `probegen compile MODEL.keras -o OUT.onnx` or "
        "pg.compile(...)."
    )


def imported(module: str, problem: str) -> Any:
    """Returns a module that an engine needs.

    Args:
        module: its name.
        problem: what to say where it is not installed: what needs it, and how to install it.

    Raises:
        ArtefactError: it is not installed, or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ArtefactError(problem) from error
