"""What a model may not hold is told by node, with what works."""

import numpy as np
import pytest

from probegen.errors import SourceError
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import parse


@pytest.mark.parametrize(
    ("domain", "told"),
    [
        ("ai.onnx.contrib", "onnxruntime-extensions"),
        ("org.pytorch.aten", r"torch\.onnx\.export"),
        ("pkg.onnxscript.torch_lib", "lacks its functions"),
        ("mmdeploy", "OpenMMLab"),
        ("qonnx.custom_op.general", "QCDQ"),
        ("my.own", "library of its own"),
    ],
)
def test_unknown_domains(domain: str, told: str) -> None:
    model = parse(
        f"g (float[N] x) => (float[N] y) {{ h = Abs(x)\n y = {domain}.Strange(h) }}",
        more=f', "{domain}" : 1',
    )
    model.graph.node[1].name = "/layer1/odd"
    with pytest.raises(SourceError, match=rf"{domain}::Strange '/layer1/odd' is of .*{told}"):
        read_onnx(model)


@pytest.mark.parametrize(
    ("call", "domain"),
    [
        ("MatMulInteger(a, b)", ""),
        ("ConvInteger(a, b)", ""),
        ("com.microsoft.DynamicQuantizeMatMul(a, b, s)", ', "com.microsoft" : 1'),
    ],
)
def test_products_of_whole_numbers(call: str, domain: str) -> None:
    text = f"g (uint8[N,3] a, uint8[3,2] b, float s) => (int32[N,2] y) {{ y = {call} }}"
    with pytest.raises(SourceError, match=r"'y' computes with whole numbers.*QDQ"):
        read_onnx(parse(text, more=domain))


def test_packed_weights() -> None:
    text = """
        g (float[N,32] x, uint8[2,1,16] b, float[2] s) => (float[N,2] y) {
          y = com.microsoft.MatMulNBits<K = 32, N = 2, bits = 4, block_size = 32>(x, b, s)
        }"""
    with pytest.raises(SourceError, match="'y' holds weights of a few bits"):
        read_onnx(parse(text, more=', "com.microsoft" : 1'))


def test_training_dropout() -> None:
    text = """
        g (float[N] x, bool t) => (float[N] y) {
          r = Constant<value_float = 0.5>()
          y = Dropout(x, r, t)
        }"""
    with pytest.raises(SourceError, match="Dropout 'y' works in training mode"):
        read_onnx(parse(text))
    assert np.isfinite(read_onnx(parse(text.replace("r, t)", "r)"))).opset)
