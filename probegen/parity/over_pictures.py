"""Attributions that an artefact brings to the size of the picture it was fed, and their own size.

What is brought to a picture's size is no longer what methods define. So a second artefact of the
same format gives the attributions as they were before, which are judged as any others are; and what
the artefact itself gives has to be these, brought to that size by numpy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen import runtime
from probegen.artefact.manifest import TARGET_INPUT, Manifest
from probegen.artefact.preprocessing import PLACED_DETAIL
from probegen.artefact.rows import rows_first
from probegen.errors import VerificationError
from probegen.graph.assemble import DEFAULT_OPSET, onnx_model
from probegen.graph.running import open_graph
from probegen.parity.comparison import compare
from probegen.parity.samples import Batch
from probegen.plan.plan import Plan
from probegen.sources.base import Program
from probegen.sources.preprocessed import PreprocessedSource

Array = npt.NDArray[Any]
#: Names of outputs and feeds -> outputs.
_Run = Callable[[Sequence[str], Mapping[str, Array]], dict[str, Array]]


class OverPictures:
    """The outputs of an artefact that lie over pictures.

    Attributes:
        before: the same program with all attributions in the model's own size.
    """

    def __init__(
        self,
        source: PreprocessedSource,
        plan: Plan,
        before: Program,
        names: list[str],
        run: _Run,
    ) -> None:
        self._source, self._plan, self.before, self._names = source, plan, before, names
        self._run = run

    @classmethod
    def of(cls, program: Program, described: Manifest, kind: str) -> OverPictures | None:
        """Returns those of an artefact; None where it has none.

        Args:
            program: what the artefact was made of.
            described: its manifest.
            kind: its format, `"onnx"` or `"savedmodel"`.
        """
        names = [o.name for o in described.explanations if PLACED_DETAIL in o.detail]
        if not names or not isinstance(program.source, PreprocessedSource):
            return None
        source = program.source
        before = source.in_own_size(program)
        run = (_in_tensorflow if kind == "savedmodel" else _in_onnxruntime)(before)
        return cls(source, program.plan, before, names, run)

    def as_before(
        self, got: Mapping[str, Array], batch: Batch, target: Array | None, computed_in: str
    ) -> dict[str, Array]:
        """Returns the outputs as they were before they were brought to the size of pictures.

        Args:
            got: what the artefact gave.
            batch: for these inputs.
            target: and this target.
            computed_in: the coarsest element type that the model computes in.

        Raises:
            VerificationError: the artefact gave something else than these in the pictures' size.
        """
        found = self.in_own_size(batch.feed, target)
        for name, heat in found.items():
            spec = self._plan.manifest.output(name)
            wanted = self._source.over_input(self._plan, name, heat, batch.feed)
            ours, right = (
                rows_first(np.asarray(a), spec.axes, batch.size) for a in (got[name], wanted)
            )
            if ours.shape != right.shape:
                raise VerificationError(
                    f"output {name!r} has the shape {list(ours.shape)}, and lies over pictures of "
                    f"the shape {list(right.shape)}."
                )
            figures = compare(spec, ours, right, computed_in=computed_in, hard=batch.hard)
            if not figures.passed:
                raise VerificationError(
                    f"output {name!r} is not the attribution of the model's own tensor in the "
                    f"size of the pictures ({figures.fault()})."
                )
        return found

    def in_own_size(self, feed: Mapping[str, Array], target: Array | None) -> dict[str, Array]:
        """Returns these outputs for some inputs and targets, in the size of the model's tensors."""
        asked = {} if target is None else {TARGET_INPUT: target}
        return self._run(self._names, {**feed, **asked})


def _in_onnxruntime(program: Program) -> _Run:
    model, *_ = onnx_model(
        program.plan,
        program.source.forward_graph,
        gate=False,
        opset=DEFAULT_OPSET,
        batch=program.source.batch,
    )
    session = open_graph(model)
    return lambda names, fed: dict(zip(names, session.run(list(names), dict(fed)), strict=True))


def _in_tensorflow(program: Program) -> _Run:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "before"
        program.source.write("savedmodel", program.plan, place, program.source.batch)
        engine = runtime.load(place).engine
    return lambda names, fed: engine.run(fed, names)
