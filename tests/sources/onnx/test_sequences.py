"""Sequences whose members are known one by one are taken out."""

import numpy as np
import pytest

from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse


@pytest.mark.parametrize(("new_axis", "shape"), [(0, "N,6"), (1, "N,2,3")])
def test_tensors_put_together(new_axis: int, shape: str) -> None:
    model = parse(
        f"""
        g (float[N,3] x, float[N,3] z) => (float[{shape}] y, int64 n) {{
          s = SequenceConstruct(x, z)
          y = ConcatFromSequence<axis = 1, new_axis = {new_axis}>(s)
          n = SequenceLength(s)
        }}"""
    )
    feeds = [{"x": hard(n, 3), "z": hard(n, 3, seed=1)} for n in (2, 5)]
    read = assert_same(model, *feeds)
    assert not any("Sequence" in kind for kind in operators(read))


@pytest.mark.parametrize("index", [0, 1, -1])
@pytest.mark.parametrize(
    ("split", "attributes"),
    [
        (None, "axis = 1"),
        (None, "axis = 1, keepdims = 0"),
        (2, "axis = 1"),
        ([1, 3, 1], "axis = -1"),
    ],
)
def test_one_part_of_a_split(index: int, split: object, attributes: str) -> None:
    model = add_weights(
        parse(
            f"""
            g (float[N,5] x) => (float y) {{
              s = SplitToSequence<{attributes}>(x{"" if split is None else ", split"})
              h = SequenceAt(s, index)
              y = Relu(h)
            }}"""
        ),
        index=np.asarray(index),
        **({} if split is None else {"split": np.asarray(split)}),
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    read = assert_same(model, {"x": hard(2, 5)}, {"x": hard(3, 5)})
    assert operators(read) == ["Gather" if split is None else "Slice", "Relu"]


def test_one_of_several() -> None:
    model = add_weights(
        parse(
            """
            g (float[N,3] x, float[N,2] z) => (float[N,2] y) {
              s = SequenceConstruct(x, z)
              h = SequenceAt(s, index)
              y = Relu(h)
            }"""
        ),
        index=np.asarray(-1),
    )
    read = assert_same(model, {"x": hard(2, 3), "z": hard(2, 2)})
    assert operators(read) == ["Relu"]
