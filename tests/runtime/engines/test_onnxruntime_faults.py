"""Faults of onnxruntime that would end the process, met in a process of its own."""

import subprocess
import sys

import onnx

_COMPILE = """
import sys
import numpy as np
import probegen as pg
from probegen import runtime

pg.compile(sys.argv[1], [], sys.argv[2])
y = runtime.load(sys.argv[2]).run(np.full((2, 7, 3), 0.5, np.float16))["y"].array
pg.differentiate(sys.argv[1], sys.argv[3], of="y", wrt=["x"])
print(y.shape, y.min(), y.max())
"""


def test_a_transposed_sum_of_float16_that_two_read(tmp_path) -> None:
    """In the file of a user, in the artefact and in that of its differentiation."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18]>
      g (float16[N,7,3] x) => (float16[N,7,2] y, float16[N,7,3] z)
      <float16[1] c = {15360}, float16[3,2] w = {15360, 15360, 15360, 15360, 15360, 15360}> {
        a = Add (x, c)
        t = Transpose <perm = [1, 0, 2]> (a)
        r = Relu (t)
        m = MatMul (t, w)
        y = Transpose <perm = [1, 0, 2]> (m)
        z = Transpose <perm = [1, 0, 2]> (r)
      }""")
    places = [str(tmp_path / name) for name in ("source.onnx", "m.onnx", "d.onnx")]
    onnx.save(model, places[0])
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE, *places], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(2, 7, 2) 4.5 4.5\n"
