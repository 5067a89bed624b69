"""Reference for a file whose states became inputs: fed zeros, the untouched file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.rows import as_described, batch_axis, rows_first
from probegen.errors import VerificationError
from probegen.plan.axes import Axes
from probegen.plan.plan import Plan
from probegen.sources.base import Noise
from probegen.sources.onnx.reading import OnnxModel
from probegen.sources.onnx.reference import OnnxReference
from probegen.sources.onnx.view import OnnxView

Array = npt.NDArray[Any]

#: How far the two may be apart, over the largest number: one operator of one runtime, which is
#: told its zeros or makes them.
_APART = 1e-5


class ReferenceFromZero(OnnxReference):
    """Answers as the changed file does, after the untouched one agreed where states are zero."""

    def __init__(
        self,
        read: OnnxModel,
        view: OnnxView,
        plan: Plan,
        untouched: tuple[OnnxModel, int | None],
        added: Sequence[str],
    ) -> None:
        """Takes the changed file and the untouched one.

        Args:
            read: the file with states among its inputs.
            view: of it.
            plan: what is asked for.
            untouched: the file as it was, and the batch size that it is bound to.
            added: names of the inputs that it did not have.
        """
        super().__init__(read, view, plan)
        self._untouched = self._runner(untouched[0].original)
        self._batch, self._added = untouched[1], tuple(added)

    def explanations(
        self, feed: Mapping[str, Array], target: Array | None, noise: Noise | None = None
    ) -> dict[str, Array]:
        """Returns all outputs of the plan.

        Raises:
            VerificationError: from zeros the file predicts something else than the untouched file;
                or as in `OnnxReference.explanations`.
        """
        zeros = {name: np.zeros_like(feed[name]) for name in self._added}
        from_zero = self.predictions({**feed, **zeros})[0]
        for name, right in self._by_itself(feed).items():
            got = from_zero[name].astype(np.float64)
            wide = right.astype(np.float64)
            both = np.isfinite(wide) & np.isfinite(got)
            off = np.abs(wide - got)[both].max(initial=0.0)
            size = np.abs(wide[both]).max(initial=0.0)
            if off > _APART * size or (np.isfinite(wide) != np.isfinite(got)).any():
                raise VerificationError(
                    f"with its states fed as zeros the file predicts {name!r} {off:.1e} apart from "
                    f"what it predicts by itself, whose largest value is {size:.1e}: states='io' "
                    "cannot be compiled of it."
                )
        return super().explanations(feed, target, noise)

    def _by_itself(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what the untouched file predicts: as many rows at a time as it takes."""
        inputs, outputs = self._axes(self._view.input_names), self._axes(self._untouched.outputs)
        fed = {name: feed[name] for name in self._untouched.inputs}
        rows = {name: rows_first(fed[name], inputs[name]) for name in fed}
        count = max(len(array) for array in rows.values())
        size = self._batch or count
        parts: list[list[Array]] = []
        for start in range(0, count, size):
            chosen = np.arange(start, start + size) % count
            some = {
                name: as_described(rows[name][chosen], inputs[name])
                if batch_axis(inputs[name]) is not None
                else fed[name]
                for name in fed
            }
            found = self._untouched.run(some)
            parts.append([rows_first(v, outputs[n]) for n, v in zip(outputs, found, strict=True)])
        return {
            name: as_described(np.concatenate(of_parts)[:count], outputs[name])
            for name, of_parts in zip(outputs, zip(*parts, strict=True), strict=True)
        }

    def _axes(self, names: Sequence[str]) -> dict[str, Axes]:
        view = self._view
        return {
            name: view.input(view.input_names.index(name)).axes
            if name in view.input_names
            else view.output(view.output_names.index(name)).axes
            for name in names
        }
