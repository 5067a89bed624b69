"""What is written out for float64, against onnxruntime's own operators in float32."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.graph.passes.after.write_out_doubles import write_out_doubles
from tests.graph.passes.harness import onnxruntime_of, operators, parsed

RNG = np.random.default_rng(0)
KNOWN, OPEN = "[batch, 4, 7, 6]", "[batch, 4, rows, columns]"
#: Name -> the node, the sizes of its weights, and whether it has a bias.
CASES: dict[str, tuple[str, tuple[int, ...]]] = {
    "plain": ("y = Conv(x, w, b)", (5, 4, 3, 2)),
    "around": ("y = Conv<pads=[1, 0, 2, 1], strides=[2, 3]>(x, w)", (5, 4, 3, 2)),
    "groups": ("y = Conv<group=2, dilations=[2, 1]>(x, w, b)", (6, 2, 3, 2)),
    "one a channel": ("y = Conv<group=4, auto_pad=\"SAME_UPPER\">(x, w)", (4, 1, 3, 2)),
    "by itself": ("y = Conv<auto_pad=\"SAME_LOWER\", strides=[2, 3]>(x, w)", (5, 4, 2, 4)),
    "apart": ("y = Conv<auto_pad=\"SAME_UPPER\", strides=[3, 2]>(x, w)", (5, 4, 1, 1)),
    "transposed": ("y = ConvTranspose(x, w, b)", (4, 5, 3, 2)),
    "transposed, apart": (
        "y = ConvTranspose<strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0]>(x, w)",
        (4, 5, 3, 2),
    ),
    "transposed, cut": ("y = ConvTranspose<pads=[2, 1, 2, 1], strides=[2, 1]>(x, w)", (4, 5, 3, 2)),
    "transposed, groups": ("y = ConvTranspose<group=2, dilations=[1, 2]>(x, w, b)", (4, 3, 2, 2)),
    "mean": ("y = AveragePool<kernel_shape=[2, 3], strides=[2, 1]>(x)", ()),
    "mean of what is there": (
        "y = AveragePool<kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 2]>(x)",
        (),
    ),
    "mean with zeros": (
        "y = AveragePool<kernel_shape=[3, 2], pads=[1, 1, 1, 0], count_include_pad=1>(x)",
        (),
    ),
    "mean by itself": ("y = AveragePool<kernel_shape=[3, 2], auto_pad=\"SAME_UPPER\">(x)", ()),
    "mean of all": ("y = GlobalAveragePool(x)", ()),
    "elu": ("y = Elu<alpha=1.5>(x)", ()),
    "leaky": ("y = LeakyRelu<alpha=0.25>(x)", ()),
    "softsign": ("y = Softsign(x)", ()),
    "repeated": (
        """y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric",
        nearest_mode="floor">(x, , scales)""",
        (),
    ),
}  # fmt: skip


def model(body: str, sizes: str, shape: tuple[int, ...], kind: type) -> ir.Model:
    """Returns one of the cases in an element type; its weights are small whole numbers."""
    name = "double" if kind is np.float64 else "float"
    weights = np.random.default_rng(1).integers(-4, 5, shape).astype(kind)
    bias = np.arange(6).astype(kind)[: 6 if "group=2" in body else 5]
    scales = np.array([1, 1, 2, 3], np.float32)
    return parsed(body, inputs=f"{name}{sizes} x", w=weights, b=bias, scales=scales)


@pytest.mark.parametrize("sizes", [KNOWN, OPEN], ids=["known", "open"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_as_in_float32(name: str, sizes: str) -> None:
    body, shape = CASES[name]
    plain = onnxruntime_of(model(body, sizes, shape, np.float32))
    made = model(body, sizes, shape, np.float64)
    write_out_doubles(made)
    onnx.checker.check_model(ir.to_proto(made), full_check=True)
    assert made.graph.outputs[0].name == "y"
    run = onnxruntime_of(made)
    for batch, rows, columns in ((3, 7, 6), (1, *((7, 6) if sizes == KNOWN else (9, 5)))):
        x = RNG.integers(-4, 5, (batch, 4, rows, columns))
        (expected,) = plain({"x": x.astype(np.float32)})
        (found,) = run({"x": x.astype(np.float64)})
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_other_axes_than_two() -> None:
    for count in (1, 3):
        positions = "".join(f", {n}" for n in (5, 4, 6)[:count])
        shape = (3, 2, *(2, 3, 1)[:count])
        body = f"y = Conv<strides=[{', '.join('121'[:count])}]>(x, w)"
        plain = onnxruntime_of(model(body, f"[batch, 2{positions}]", shape, np.float32))
        made = model(body, f"[batch, 2{positions}]", shape, np.float64)
        write_out_doubles(made)
        x = RNG.integers(-4, 5, (2, 2, *(5, 4, 6)[:count]))
        (expected,) = plain({"x": x.astype(np.float32)})
        np.testing.assert_array_equal(
            onnxruntime_of(made)({"x": x.astype(np.float64)})[0], expected
        )


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("y = Conv(x, w)", np.float32),
        ("y = AveragePool<kernel_shape=[2, 2], ceil_mode=1>(x)", np.float64),
        ('y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2, 2]>(x, w)', np.float64),
        ('y = Resize<mode="linear">(x, , scales)', np.float64),
    ],
)
def test_what_is_left(body: str, kind: type) -> None:
    made = model(body, KNOWN, (4, 4, 3, 2), kind)
    before = operators(made)
    write_out_doubles(made)
    assert operators(made) == before
