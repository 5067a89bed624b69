"""Open sizes that can be one number alone are that number."""

import numpy as np
import pytest

from probegen.graph.core.values import shape_of
from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_batch_that_a_state_tells(kind: str) -> None:
    gates = {"GRU": 3, "LSTM": 4}[kind]
    model = add_weights(
        parse(
            f"""
            g (float[time,batch,3] x) => (float[M] y) {{
              h, last = {kind}<hidden_size = 4>(x, w, r, , , state)
              y = Squeeze(h)
            }}"""
        ),
        w=hard(1, gates * 4, 3, seed=1),
        r=hard(1, gates * 4, 4, seed=2),
        state=np.zeros((1, 1, 4), np.float32),
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    read = assert_same(model, {"x": hard(5, 1, 3)}, {"x": hard(2, 1, 3)}, tolerance=1e-5)
    assert shape_of(read.model.graph.inputs[0]) == ("time", 1, 3)
    assert read.notes == (
        f"The size 'batch' of the inputs is 1: {kind} 'h' has states for 1 alone.",
    )
    assert operators(read) == [kind, "Squeeze"]
