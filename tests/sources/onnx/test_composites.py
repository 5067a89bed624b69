"""Operators of onnxruntime's own domain are written out in standard ones."""

import numpy as np
import pytest

from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse

MS = ', "com.microsoft" : 1'


def standard(read) -> bool:
    return all(not n.domain for n in read.model.graph.all_nodes())


@pytest.mark.parametrize(
    "call",
    [
        "Gelu(x)",
        "BiasGelu(x, b)",
        "FastGelu(x)",
        "FastGelu(x, b)",
        "QuickGelu(x)",
        "QuickGelu<alpha = 1.3>(x)",
    ],
)
def test_activations(call: str) -> None:
    text = f"g (float[N,3,7] x) => (float[N,3,7] y) {{ y = com.microsoft.{call} }}"
    model = add_weights(parse(text, more=MS), b=hard(7, seed=3))
    read = assert_same(model, {"x": hard(2, 3, 7)}, {"x": hard(5, 3, 7)})
    assert standard(read)


@pytest.mark.parametrize("call", ["FastGelu(x)", "QuickGelu(x)"])
def test_activations_in_float64(call: str) -> None:
    """onnxruntime has six digits of the factors of one, and that of the other in float32."""
    text = f"g (double[N,3,7] x) => (double[N,3,7] y) {{ y = com.microsoft.{call} }}"
    x = np.random.default_rng(0).normal(size=(2, 3, 7))
    assert standard(assert_same(parse(text, more=MS), {"x": x}, tolerance=1e-12))


def test_a_type_taken_from_another_tensor() -> None:
    """As torch writes a bias of zeros without its optimiser; the bias does not depend on x."""
    model = parse(
        """
        g (float[N,2,7] x) => (float[N,3,M] y) {
          nought = Constant<value_int = 0>()
          typed = CastLike(nought, x)
          three = Constant<value_ints = [3]>()
          bias = Expand(typed, three)
          y = Conv(x, w, bias)
        }"""
    )
    add_weights(model, w=hard(3, 2, 2))
    read = assert_same(model, {"x": hard(2, 2, 7)}, {"x": hard(5, 2, 7)})
    assert operators(read) == ["Conv"]


@pytest.mark.parametrize(
    "call",
    [
        "FusedMatMul(x, w)",
        "FusedMatMul<alpha = 0.3>(x, w)",
        "FusedMatMul<transB = 1>(x, v)",
        "FusedMatMul<transA = 1, alpha = -2.0>(u, w)",
    ],
)
def test_products_that_transpose_and_scale(call: str) -> None:
    model = add_weights(
        parse(
            f"""
            g (float[N,3,7] x, float[N,7,3] u) => (float[N,3,4] y) {{
              h = com.microsoft.{call}
              y = Relu(h)
            }}""",
            more=MS,
        ),
        w=hard(7, 4, seed=1),
        v=hard(4, 7, seed=2),
    )
    feeds = [{"x": hard(n, 3, 7), "u": hard(n, 7, 3, seed=4)} for n in (2, 5)]
    assert standard(assert_same(model, *feeds, tolerance=1e-5))


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", ""),
        ("Tanh", ""),
        ("Sigmoid", ""),
        ("LeakyRelu", ", activation_params = [0.3]"),
        ("Clip", ", activation_params = [-0.5, 1.5]"),
        ("HardSigmoid", ", activation_params = [0.3, 0.4]"),
    ],
)
@pytest.mark.parametrize("added", [False, True])
def test_convolutions_with_what_follows(activation: str, parameters: str, added: bool) -> None:
    model = add_weights(
        parse(
            f"""
            g (float[N,2,7,5] x, float[N,3,5,3] z) => (float[N,3,5,3] y) {{
              y = com.microsoft.FusedConv<activation = "{activation}"{parameters}>(
                x, w, b{", z" if added else ""})
            }}""",
            more=MS,
        ),
        w=hard(3, 2, 3, 3, seed=1),
        b=hard(3, seed=2),
    )
    feeds = [{"x": hard(n, 2, 7, 5), "z": hard(n, 3, 5, 3, seed=3)} for n in (2, 3)]
    assert standard(assert_same(model, *feeds, tolerance=1e-5))


def test_gemm_with_what_follows() -> None:
    model = add_weights(
        parse(
            """
            g (float[N,4] x) => (float[N,3] y) {
              y = com.microsoft.FusedGemm<transB = 1, alpha = 0.5, beta = 2.0,
                activation = "LeakyRelu", activation_alpha = 0.2>(x, w, b)
            }""",
            more=MS,
        ),
        w=hard(3, 4, seed=1),
        b=hard(3, seed=2),
    )
    assert standard(assert_same(model, {"x": hard(2, 4)}, {"x": hard(5, 4)}))


@pytest.mark.parametrize("skip", ["N,3,7", "1,3,7"])
@pytest.mark.parametrize("inputs", ["x, s, w, b, c", "x, s, w", "x, s, w, b"])
def test_normalisation_of_a_sum(skip: str, inputs: str) -> None:
    model = add_weights(
        parse(
            f"""
            g (float[N,3,7] x, float[{skip}] s) => (float[N,3,7] y, float[N,3,7] t) {{
              y, m, i, t = com.microsoft.SkipLayerNormalization<epsilon = 0.01>({inputs})
            }}""",
            more=MS,
        ),
        w=hard(7, seed=1),
        b=hard(7, seed=2),
        c=hard(7, seed=3),
    )
    feeds = [
        {"x": hard(n, 3, 7), "s": hard(1 if skip[0] == "1" else n, 3, 7, seed=4)} for n in (2, 5)
    ]
    assert standard(assert_same(model, *feeds, tolerance=1e-5))


@pytest.mark.parametrize("inputs", ["x, s, w, c", "x, s, w"])
def test_root_mean_square_of_a_sum(inputs: str) -> None:
    model = add_weights(
        parse(
            f"""
            g (float[N,3,7] x, float[N,3,7] s) => (float[N,3,7] y, float[N,3,7] t) {{
              y, , , t = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 0.01>({inputs})
            }}""",
            more=MS,
        ),
        w=hard(7, seed=1),
        c=hard(7, seed=3),
    )
    feeds = [{"x": hard(n, 3, 7), "s": hard(n, 3, 7, seed=4)} for n in (2, 5)]
    assert standard(assert_same(model, *feeds, tolerance=1e-5))


def test_root_mean_square() -> None:
    model = add_weights(
        parse(
            """
            g (float[N,3,7] x) => (float[N,3,7] y) {
              y = SimplifiedLayerNormalization<epsilon = 0.01, axis = -1>(x, w)
            }"""
        ),
        w=hard(7, seed=1),
    )
    assert_same(model, {"x": hard(2, 3, 7)}, {"x": hard(5, 3, 7)}, tolerance=1e-5)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_embeddings(segments: bool, mask: bool) -> None:
    inputs = ["ids", "kinds" if segments else "", "words", "places"]
    inputs += ["table" if segments else "", "w", "b", *(["mask"] if mask else [])]
    model = add_weights(
        parse(
            f"""
            g (int32[B,S] ids, int32[B,S] kinds, int32[B,S] mask)
                => (float[B,S,6] y, int32[B] m) {{
              y, m = com.microsoft.EmbedLayerNormalization<epsilon = 0.01>({", ".join(inputs)})
            }}""",
            more=MS,
        ),
        words=hard(11, 6, seed=1),
        places=hard(9, 6, seed=2),
        table=hard(2, 6, seed=3),
        w=hard(6, seed=4),
        b=hard(6, seed=5),
    )
    feeds = [
        {
            "ids": np.arange(n * s, dtype=np.int32).reshape(n, s) % 11,
            "kinds": np.arange(n * s, dtype=np.int32).reshape(n, s) % 2,
            "mask": (np.arange(s)[None] < np.arange(n)[:, None] + 1).astype(np.int32),
        }
        for n, s in ((2, 5), (3, 4))
    ]
    assert standard(assert_same(model, *feeds, tolerance=1e-5))


def test_attention_whose_mask_comes_of_an_operator_that_onnx_does_not_know() -> None:
    """As onnxruntime's optimiser writes BERT: at first not even the rank of the mask is known."""
    model = add_weights(
        parse(
            """
            g (int32[B,S] ids, int32[B,S] mask) => (float[B,S,6] y) {
              e, lengths = com.microsoft.EmbedLayerNormalization(ids, , words, places, , w, b, mask)
              y = com.microsoft.Attention<num_heads = 2>(e, weights, bias, lengths)
            }""",
            more=MS,
        ),
        words=hard(11, 6, seed=1),
        places=hard(9, 6, seed=2),
        w=hard(6, seed=4),
        b=hard(6, seed=5),
        weights=hard(6, 18, seed=6),
        bias=hard(18, seed=7),
    )
    feeds = [
        {
            "ids": np.arange(n * s, dtype=np.int32).reshape(n, s) % 11,
            "mask": (np.arange(s)[None] < np.arange(n)[:, None] + 1).astype(np.int32),
        }
        for n, s in ((2, 5), (3, 4))
    ]
    assert standard(assert_same(model, *feeds, tolerance=1e-4))


def test_a_row_of_them_is_taken_apart_in_few_rounds() -> None:
    """Types behind an operator that onnx does not know are told by what else it reads."""
    text = "g (float[N,3,4] x0) => (float[N,3,4] x40) {\n"
    for i in range(40):
        text += f"h{i} = MatMul(x{i}, w)\nx{i + 1} = com.microsoft.Gelu(h{i})\n"
    model = add_weights(parse(text + "}", more=MS), w=np.eye(4, dtype=np.float32))
    assert standard(assert_same(model, {"x0": hard(2, 3, 4)}))


@pytest.mark.parametrize("kept", [[True, False, True], [False, True]])
def test_a_known_part_of_an_axis_has_known_sizes(kept) -> None:
    """Samples that are regrouped behind it are told apart by them."""
    count = sum(kept)
    text = f"""g (float[N, 2, 3] x) => (float[N, {2 * count}] y) {{
      part = Compress <axis = -1> (x, kept)
      y = Reshape (part, sizes)
    }}"""
    sizes = np.array([-1, 2 * count])
    model = add_weights(parse(text), kept=np.array(kept), sizes=sizes)
    read = assert_same(model, {"x": hard(2, 2, 3)}, {"x": hard(5, 2, 3)})
    (part,) = (n for n in read.model.graph if n.op_type == "Gather")
    assert part.outputs[0].shape[2] == count
