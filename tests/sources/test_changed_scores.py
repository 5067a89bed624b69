"""Scores at several points at once: only where a batch of them says what each says alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import probegen as pg
from probegen.artefact.manifest import InputSpec
from probegen.errors import VerificationError
from probegen.plan.plan import TensorRef
from probegen.sources.changed_scores import ScoresAt, scores_by_moving

INPUT = TensorRef(None, position=0)
AXES = {INPUT: ("time", "batch", "feature")}
X = np.random.default_rng(0).normal(size=(5, 2, 3))
POINTS = [{INPUT: np.full(X.shape, 0.1 * i)} for i in range(4)]


def scores(
    model: Any, batch: int | None = None, time: int | None = None
) -> tuple[ScoresAt, list[int]]:
    """Returns the scores of a model of series with time first, and the batches that it saw."""
    spec = InputSpec("x", "float32", (time, batch, 3), AXES[INPUT])
    seen: list[int] = []

    def run(feed: Mapping[str, Any], shifts: Mapping[TensorRef, Any]) -> Any:
        moved = feed["x"] + shifts[INPUT]
        seen.append(moved.shape[1])
        return model(moved)

    return ScoresAt(run, {"x": X}, [spec]), seen


def by_row(x: np.ndarray) -> np.ndarray:
    return np.tanh(x).sum(0)


def by_batch(x: np.ndarray) -> np.ndarray:
    return np.tanh(x - x.mean(1, keepdims=True)).sum(0)


def of_two(x: np.ndarray) -> np.ndarray:
    return by_row(x.reshape(5, 2, 3))


@pytest.mark.parametrize(
    ("model", "batch", "seen"),
    [
        (by_row, None, [2, 2, 2, 2, 8, 8]),  # tried, and then at once
        (by_batch, None, [2, 2, 2, 2, 8, *[2] * 4]),  # rows depend on each other: never again
        (of_two, None, [2, 2, 2, 2, 8, *[2] * 4]),  # bound to two rows inside
        (by_row, 2, [2] * 8),
    ],
)
def test_points_go_together_where_that_changes_nothing(
    model: Any, batch: int | None, seen: list[int]
) -> None:
    found, batches = scores(model, batch)
    for _ in range(2):
        values = found.at(POINTS, AXES)
        for value, shifts in zip(values, POINTS, strict=True):
            np.testing.assert_allclose(value, model(X + shifts[INPUT]), rtol=1e-6)
    assert batches[: len(seen)] == seen
    assert len(batches) <= len(seen)


def test_large_inputs_go_one_by_one() -> None:
    found, _ = scores(by_row)
    assert found.most == 16
    found.feed = {"x": np.zeros((2**21, 2, 3), np.int8)}
    assert found.most == 1


def test_a_number_of_scores_that_depends_on_the_input_is_told(tmp_path: Path) -> None:
    """As behind the suppression of boxes: those above 0 are left."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18]>
      g (float[1, 5] x) => (float[boxes] kept) <float zero = {0.0}, int64[1] flat = {-1}> {
        row = Reshape(x, flat)  above = Greater(row, zero)  some = Compress(row, above)
        kept = Tanh(some) }""")
    sample = {"x": np.float32([[0.5, -1.0, 2.0, 0.3, -0.2]])}
    asked = {"inputs": {"kept": "box"}, "samples": sample}
    told = r"\[3\] for a sample and \[2\] where a part of it is hidden .*of= a layer"
    with pytest.raises(VerificationError, match=told):
        pg.compile(model, [pg.FeatureAblation(target=(0,))], tmp_path / "m.onnx", **asked)
    assert not list(tmp_path.iterdir())


def test_tensors_that_depend_on_other_moved_ones_come_to_their_points() -> None:
    """A chain of three, each made of the one before it as it was moved; two points at once."""
    refs = [TensorRef(None, position=i) for i in range(3)]

    def at(feed: Mapping[str, Any], shifts: Mapping[TensorRef, Any]) -> Any:
        before, value = {}, feed["x"]
        for ref in refs:
            before[ref] = value
            value = np.floor((value + shifts.get(ref, 0.0)) / 2)
        last = before[refs[2]] + shifts.get(refs[2], 0.0)
        return [None, last * 10 + before[refs[1]] + shifts.get(refs[1], 0.0)], before

    x = np.float32([[8, 20, 37]])
    tensors = at({"x": x}, {})[1]
    points = np.float64([[[9, 0, 1]], [[0, 5, 50]]])
    wanted = {ref: np.concatenate(points) + i for i, ref in enumerate(refs)}
    shifts = {ref: wanted[ref] - tensors[ref] for ref in refs}
    found = scores_by_moving(at, 1, tensors)({"x": np.concatenate([x, x])}, shifts)
    np.testing.assert_allclose(found, wanted[refs[2]] * 10 + wanted[refs[1]])
