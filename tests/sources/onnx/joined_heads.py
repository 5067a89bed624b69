"""Attention whose heads are joined with the samples, as torch's bmm has them."""

from __future__ import annotations

import numpy as np
import onnx

from tests.sources.onnx.support import add_weights, parse


def joined_heads(batch: str = "N") -> onnx.ModelProto:
    """Returns a model of 5 steps and 3 heads, `[batch, 5, 12] -> [batch, 5, 12]`."""
    model = parse(
        f"""
        g (float[{batch},5,12] x) => (float[{batch},5,12] y) {{
          q = Reshape(x, four)
          heads = Transpose<perm=[0,2,1,3]>(q)
          joined = Reshape(heads, three)
          turned = Transpose<perm=[0,2,1]>(joined)
          scores = MatMul(joined, turned)
          weights = Softmax(scores)
          mixed = MatMul(weights, joined)
          apart = Reshape(mixed, back)
          last = Transpose<perm=[0,2,1,3]>(apart)
          y = Reshape(last, whole)
        }}"""
    )
    return add_weights(
        model,
        four=np.array([-1, 5, 3, 4]),
        three=np.array([-1, 5, 4]),
        back=np.array([-1, 3, 5, 4]),
        whole=np.array([-1, 5, 12]),
    )
