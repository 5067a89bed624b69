"""The suite of TensorFlow operations: nothing is silently absent from it."""

from __future__ import annotations

from collections import Counter

import pytest
import tensorflow as tf

from sweep.outcome import AGREES, DIFFERS, FAILS, NOT_APPLICABLE, REFUSED
from sweep.suites import subjects, sweep_one
from sweep.tensorflow_ops import rows
from sweep.tensorflow_ops.row import NO_ROW, Row, run
from sweep.tensorflow_ops.samples import floats

#: Rows of every kind, by name; what they found is in the handlers.
SOME = (
    *("SelectV2: mean over a mask", "FloorMod: float32", "ScatterNd: repeated, float32"),
    *("TopKV2: large integers", "UnsortedSegmentMax: negative ids", "Transpose: negative"),
    *("Cumprod: axis -1 of three", "Softplus: float64", "MatrixBandPart: -1, 0"),
    *("ResizeArea: area, to 9 by 5", "AdjustSaturation", "IRFFT: odd"),
    *("XlaDynamicUpdateSlice: keras.ops.slice_update", "ExtractImagePatches: infinite"),
    *("Conv2D: same, stride 1, dilation 2", "RightShift: int32", "MatrixBandPart: infinite"),
)


def test_every_operation_of_the_table_has_rows() -> None:
    assert not [row.op for row in rows() if row.reason == NO_ROW]
    names = Counter(row.name for row in subjects("tensorflow"))
    assert not [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("name", SOME)
def test_a_row_agrees(name: str) -> None:
    outcome = sweep_one("tensorflow", name)
    assert outcome.verdict == AGREES, outcome.reason


def test_verdicts() -> None:
    def other(x: tf.Tensor) -> tf.Tensor:
        return x + (1.0 if tf.executing_eagerly() else 1.001)

    assert run(Row("AddV2", "", other, floats(wild=False))).verdict == DIFFERS
    assert run(Row("Digamma", "", tf.math.digamma, floats())).verdict == REFUSED
    assert run(Row("Sub", "no Sub in it", lambda x: x * 2, floats())).verdict == FAILS
    assert run(Row("Const", reason="a constant")).verdict == NOT_APPLICABLE
    assert run(Row("Forgotten", reason=NO_ROW)).verdict == FAILS
