"""Whether a graph computes in float16, read from its bytes."""

import numpy as np
import onnx
import pytest

from probegen.artefact.float16_graphs import computes_in_float16

#: A graph of one input and one output: what it reads and stores, its nodes, and the answer.
GRAPHS = {
    "an input": ("float16[N, 3] x", "", "y = Relu (x)", True),
    "a cast": ("float[N, 3] x", "", "h = Cast <to = 10> (x)  y = Neg (h)", True),
    "rounded": ("float[N, 3] x", "", "h = Cast <to = 10> (x)  y = Cast <to = 1> (h)", False),
    "a table": ("int64[N] x", "<float16[2] w = {1, 2}>", "y = Gather (w, x)", True),
    "a constant": ("float x", "", "c = Constant <value = float16[1] {1}> ()  y = Shape (c)", True),
    "stored": ("float x", "<float16 w = {1}>", "v = Cast <to = 1> (w)  y = Mul (x, v)", False),
    "a branch": ("float x", "<bool c = {1}>", """
        y = If (c) <
          then_branch = a () => (float p) {
            q = Cast <to = 10> (x)
            r = Neg (q)
            p = Cast <to = 1> (r)
          },
          else_branch = b () => (float e) { e = Neg (x) }
        >""", True),
    "bfloat16": ("bfloat16[N, 3] x", "", "h = Cast <to = 16> (x)  y = Neg (h)", False),
}  # fmt: skip


@pytest.mark.parametrize("kind", GRAPHS)
def test_what_computes_in_float16(kind: str, tmp_path) -> None:
    read, stored, nodes, expected = GRAPHS[kind]
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 18]>
        g ({read}) => (float y) {stored} {{ {nodes} }}""")
    large = np.random.default_rng(3).integers(0, 255, 70_001).astype(np.uint8)
    model.graph.initializer.insert(0, onnx.numpy_helper.from_array(large, "large"))
    content = model.SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content)
    assert computes_in_float16(content) == expected
    assert computes_in_float16(tmp_path / "m.onnx") == expected


def test_functions_of_a_file() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18, "own" : 1]>
        g (float[N, 3] x) => (float[N, 3] y) { y = own.Rounded (x) }
        <domain: "own", opset_import: ["" : 18]>
        Rounded (a) => (d) { b = Cast <to = 10> (a)  c = Neg (b)  d = Cast <to = 1> (c) }""")
    assert computes_in_float16(model.SerializeToString())


def test_what_is_no_file_of_onnx(tmp_path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18]>
        g (float16[N, 3] x) => (float16[N, 3] y) { y = Relu (x) }""")
    content = model.SerializeToString()
    for size in range(len(content)):  # nothing is raised, whatever is left
        computes_in_float16(content[:size])
    for other in (b"", b"\xff" * 40, b"text, and no model"):
        (tmp_path / "m.onnx").write_bytes(other)
        assert not computes_in_float16(tmp_path / "m.onnx")
