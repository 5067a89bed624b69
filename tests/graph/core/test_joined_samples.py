"""Which operators make one number of several samples."""

import onnx.parser
import onnx_ir as ir
import pytest

from probegen.graph.core.joined_samples import node_that_joins
from probegen.graph.shape_inference import infer_shapes

HEAD = """<ir_version: 8, opset_import: ["" : 18]>
g (float[batch, 6, 4] x) => (float[unknown] y)
<float[4, 6] w, int64[1] zero = {0}, int64[1] one = {1}, int64[1] far = {9223372036854775807},
 int64[2] starts = {0, 1000000000}, int64[2] ends = {1000000000, -1000000000},
 int64[2] axes = {0, 1}, int64[2] steps = {1, -1}, int64[2] flat = {-1, 4},
 int64[2] whole = {1, -1}, int64[3] apart = {-1, 6, 4}>
"""

JOINED = {
    "ReduceMax": "y = ReduceMax <keepdims = 0> (x)",
    "ReduceMean": "y = ReduceMean (x, zero)",
    "ReduceMin of what is reshaped": "r = Reshape (x, flat) y = ReduceMin (r, zero)",
    "a softmax": "y = Softmax <axis = 0> (x)",
    "a softmax of all": "r = Reshape (x, whole) y = Softmax <axis = 1> (r)",
    "CumSum": "y = CumSum (x, zero)",
    "BatchNormalization": """c = ReduceMean <keepdims = 0> (w, one)
        t = Transpose <perm = [0, 2, 1]> (x)
        y, m, v = BatchNormalization <training_mode = 1> (t, c, c, c, c)""",
    "MeanVarianceNormalization": """u = Unsqueeze (x, one)
        y = MeanVarianceNormalization (u)""",
    "LayerNormalization": "y = LayerNormalization <axis = 0> (x, x)",
    "pairs": """m = ReduceMean <keepdims = 0> (x, one)
        t = Transpose (m)
        y = MatMul (m, t)""",
    "pairs by Einsum": """m = ReduceMean <keepdims = 0> (x, one)
        y = Einsum <equation = "ac,bc->ab"> (m, m)""",
    "a product over samples": """m = ReduceMean <keepdims = 0> (x, one)
        y = Gemm <transA = 1> (m, m)""",
    "differences of pairs": """m = ReduceMean <keepdims = 0> (x, one)
        a = Unsqueeze (m, zero)
        b = Unsqueeze (m, one)
        y = Sub (a, b)""",
    "behind what is gathered": """i = Gather <axis = 1> (x, zero)
        y = ReduceMax <keepdims = 0> (i, zero)""",
    "the first sample": "y = Slice (x, zero, one, zero)",
    "the others": "y = Slice (x, one, far, zero)",
    "in a branch": """s = ReduceSum <keepdims = 0> (w)
        n = Greater (s, s)
        y = If (n) <then_branch = a () => (float[1] p) {p = ReduceMax <keepdims = 0> (x)},
                    else_branch = b () => (float[1] q) {q = ReduceSum (w)}>""",
}
APART = {
    "channels": "y = ReduceMax (x, one)",
    "a softmax over channels": "y = Softmax <axis = 2> (x)",
    "reshaped and back": """r = Reshape (x, flat)
        m = MatMul (r, w)
        t = Transpose <perm = [1, 0]> (m)
        b = Transpose <perm = [1, 0]> (t)
        y = LayerNormalization <axis = 1> (b, b)""",
    "frames": "r = Reshape (x, flat) s = Reshape (r, apart) y = Softmax <axis = 1> (s)",
    "whole samples": "y = Slice (x, zero, far, zero)",
    "whole samples, cut and turned": """s = Slice (x, starts, ends, axes, steps)
        y = Relu (s)""",
    "a maximum of masks": """c = Cast <to = 9> (x)
        f = Cast <to = 1> (c)
        y = ReduceMax <keepdims = 0> (f)""",
    "what nothing reads": "m = ReduceMax (x) y = Relu (x)",
    "inference": """c = ReduceMean <keepdims = 0> (w, one)
        t = Transpose <perm = [0, 2, 1]> (x)
        y = BatchNormalization (t, c, c, c, c)""",
}


def joining(body: str) -> str:
    """Returns the operator that joins samples in a graph; `""` where none does."""
    model = ir.from_proto(onnx.parser.parse_model(f"{HEAD}{{ {body} }}"))
    infer_shapes(model)
    (x,) = model.graph.inputs
    found = node_that_joins(model.graph, {x: 0}, list(model.graph.outputs))
    return "" if found is None else found.op_type


@pytest.mark.parametrize("case", JOINED)
def test_what_joins_samples(case: str) -> None:
    assert joining(JOINED[case])


@pytest.mark.parametrize("case", APART)
def test_what_treats_each_by_itself(case: str) -> None:
    assert not joining(APART[case])
