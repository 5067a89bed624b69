"""Files whose element types do not fit, and those that do."""

from typing import Any

import numpy as np
import pytest

import probegen as pg
from probegen.errors import SourceError
from tests.sources.onnx.support import add_weights, hard, parse, run

WEIGHTS = hard(4, 3)
FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "halves of a weight": (
        "g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }",
        {"w": WEIGHTS.astype(np.float16)},
        "MatMul 'y' has 'x' in float32 and 'w' in float16",
    ),
    "a bias that was left": (
        "g (float16[N,4] x) => (float16[N,3] y) { a = Gemm(x, w, b)  y = Relu(a) }",
        {"w": WEIGHTS.astype(np.float16), "b": WEIGHTS[0]},
        "Gemm 'a' has 'x' in float16 and 'b' in float32",
    ),
    "an output that was left": (
        "g (float16[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }",
        {"w": WEIGHTS.astype(np.float16)},
        "MatMul 'y' has 'x' in float16 and 'y' in float32",
    ),
    "scales in halves": (
        "g (float16[N,2,4] x) => (float16[N,2,8] y) { y = Resize(x, , s) }",
        {"s": np.array([1, 1, 2], np.float16)},
        "Resize 'y' does not take 's' as float16",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_types_that_do_not_fit_are_named(case: str, tmp_path) -> None:
    text, weights, told = FAULTS[case]
    model = add_weights(parse(text), **weights)
    with pytest.raises(Exception, match="Type"):
        run(model, {})
    for refused in (
        pg.inspect,
        lambda m: pg.compile(m, pg.Saliency(target=1), tmp_path / "m.onnx"),
    ):
        with pytest.raises(SourceError, match="the file is invalid") as caught:
            refused(model)
        assert told in str(caught.value)
        assert "as it was before it was converted" in str(caught.value)


def test_types_that_differ_where_they_may(tmp_path) -> None:
    """The exponent of a power, scales of a resizing, statistics in 32 bits, choices."""
    model = add_weights(
        parse("""g (float16[N,2,4] x) => (float[N,2,8] y) {
          a = Pow(x, two)  b = Resize(a, , scales)  c = Greater(b, b)  d = Where(c, b, b)
          e = LayerNormalization <stash_type = 1> (d, ones)  y = Cast <to = 1> (e) }"""),
        two=np.float32(2),
        scales=np.array([1, 1, 2], np.float32),
        ones=np.ones(8, np.float16),
    )
    pg.compile(model, pg.InputGradient(target=(1, 0)), tmp_path / "m.onnx")
