"""Attributions that lie over the picture that arrived, and what they were before.

What is brought to a picture's size is no longer what methods define. So a second graph gives the
attributions as they were before, which are judged as any others are; and what the artefact gives
has to be these, brought to that size by numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

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


class OverPictures:
    """The outputs of an artefact that lie over pictures.

    Attributes:
        before: the same program with all attributions in the model's own size.
    """

    def __init__(
        self, source: PreprocessedSource, plan: Plan, before: Program, names: list[str]
    ) -> None:
        self._source, self._plan, self.before, self._names = source, plan, before, names
        model, _ = onnx_model(
            before.plan,
            before.source.forward_graph,
            gate=False,
            opset=DEFAULT_OPSET,
            batch=source.batch,
        )
        self._session: onnxruntime.InferenceSession = open_graph(model)

    @classmethod
    def of(cls, program: Program, described: Manifest) -> OverPictures | None:
        """Returns those of an artefact; None where it has none."""
        names = [o.name for o in described.explanations if PLACED_DETAIL in o.detail]
        if not names or not isinstance(program.source, PreprocessedSource):
            return None
        source = program.source
        return cls(source, program.plan, source.in_own_size(program), names)

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
        fed = dict(batch.feed)
        if target is not None:
            fed[TARGET_INPUT] = target
        found = dict(zip(self._names, self._session.run(self._names, fed), strict=True))
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
