"""What a model may not hold, told by node, with what would work."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from probegen.errors import SourceError
from probegen.sources.onnx.names import nodes_of, told

#: Domains whose operators onnxruntime runs without more.
_KNOWN = frozenset({"", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview.training"})
#: Beginning of a domain -> who writes it, and what works instead.
_WRITERS: Mapping[str, str] = {
    "ai.onnx.contrib": "onnxruntime-extensions write it for text and images before and after a "
    "model: export the model without them",
    "com.microsoft.extensions": "onnxruntime-extensions write it for text and images before and "
    "after a model: export the model without them",
    "com.microsoft.nchwc": "onnxruntime's optimiser writes it for one kind of processor: compile "
    "the file that was optimised",
    "com.ms.internal": "onnxruntime's optimiser writes it: compile the file that was optimised",
    "aten": "torch.onnx.export writes it for operations without an ONNX form",
    "org.pytorch": "torch.onnx.export writes it for operations without an ONNX form",
    "prim": "torch.onnx.export writes it for operations without an ONNX form",
    "pkg.onnxscript": "torch.onnx.export(dynamo=True) writes it; the file lacks its functions: "
    "export anew, without taking functions out",
    "pkg.torch": "torch.onnx.export(dynamo=True) writes it; the file lacks its functions: export "
    "anew, without taking functions out",
    "mmcv": "OpenMMLab's exporters write it: use their export to plain ONNX operators",
    "mmdeploy": "OpenMMLab's exporters write it: use their export to plain ONNX operators",
    "trt": "TensorRT's plugins are meant: export without them",
    "nvidia": "TensorRT's plugins are meant: export without them",
    "qonnx": "QONNX and Brevitas write it: export with QuantizeLinear and DequantizeLinear (QCDQ)",
    "onnx.brevitas": "Brevitas writes it: export with QuantizeLinear and DequantizeLinear (QCDQ)",
    "finn": "FINN writes it: compile the model that FINN was given",
    "org.openvinotoolkit": "OpenVINO's tools write it: compile the model that they were given",
    "qti": "Qualcomm's tools write it: compile the model that they were given",
}
_QUANTISED = (
    "computes with whole numbers of 8 bits, through which no gradient passes. Compile the model "
    "as it was before it was quantised, or quantise it with QuantizeLinear and DequantizeLinear "
    "(quantize_static(..., quant_format=QuantFormat.QDQ))"
)
_PACKED = (
    "holds weights of a few bits in a form of its own. Compile the model as it was before its "
    "weights were packed"
)
#: Operators of quantised models that compute with whole numbers.
_WHOLE_NUMBERS = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QLinearAdd", "QLinearMul"}
    | {"QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearSigmoid", "QLinearLeakyRelu"}
    | {"QLinearConcat", "QLinearSoftmax", "QLinearReduceMean", "QLinearWhere", "QGemm"}
    | {"QAttention", "QEmbedLayerNormalization", "QOrderedMatMul", "NhwcMaxPool"}
    | {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
)
_PACKED_WEIGHTS = frozenset({"MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized"})
_GROUPED = (
    "keeps its past in a buffer that it shares with its result. Export the model with the "
    "standard Attention, or with plain attention (attn_implementation='eager')"
)
_REASONS: Mapping[str, str] = {
    **dict.fromkeys(_WHOLE_NUMBERS, _QUANTISED),
    **dict.fromkeys(_PACKED_WEIGHTS, _PACKED),
    "GroupQueryAttention": _GROUPED,
}


def refuse_unknown(model: ir.Model) -> None:
    """Refuses operators that cannot be run or taken apart.

    Needs: functions written out.

    Raises:
        SourceError: there is one; names the node, and who writes such.
    """
    for node in nodes_of(model.graph):
        domain = node.domain
        if domain not in _KNOWN:
            writer = next((w for d, w in _WRITERS.items() if domain.lower().startswith(d)), None)
            hint = writer or (
                "onnxruntime does not know it without a library of its own. Export the model with "
                "standard operators, or add a function of that name to the file"
            )
            raise SourceError(f"{told(node)} is of the domain {domain!r}: {hint}.")
        reason = _REASONS.get(node.op_type)
        if reason is not None:
            raise SourceError(f"{told(node)} {reason}.")
