"""TensorFlow operations without a row of their own, and why."""

from __future__ import annotations

_FEEDS = "feeds data or holds a table: no part of what is converted"
_TFLITE = "of TFLite, or a name that tf2onnx gives on its way: TensorFlow has no such operation"
_LOOP = "a part of loops: tried in the rows of StatelessWhile"
_STATE = "is a constant by the time of the conversion"
_OLD = "of TensorFlow 1, or of GPUs alone: Keras writes a loop instead"

#: Operations of tf2onnx' table, and of what Keras writes, that have no row of their own.
ABSENT: dict[str, str] = {
    **dict.fromkeys(
        (
            *("FIFOQueueV2", "HashTableV2", "IteratorGetNext", "IteratorV2", "LookupTableSizeV2"),
            *("QueueDequeueManyV2", "QueueDequeueUpToV2", "QueueDequeueV2", "Placeholder"),
            *("PlaceholderV2", "PlaceholderWithDefault", "NoOp", "Assert", "LookupTableFindV2"),
        ),
        _FEEDS,
    ),
    **dict.fromkeys(
        (
            *("ConstV2", "Conv1D", "DepthwiseConv2d", "Dropout", "Flatten", "HardSwish"),
            *("L2Normalization", "Loop", "Prelu", "RandomNormal", "RandomNormalLike"),
            *("RandomUniformLike", "Scan", "SquaredDistance", "TFL_CONCATENATION"),
            *("TFL_DEQUANTIZE", "TFL_PRELU", "TFL_QUANTIZE", "TFL_WHILE"),
            "TFL_TFLite_Detection_PostProcess",
        ),
        _TFLITE,
    ),
    **dict.fromkeys(
        (
            *("TensorListFromTensor", "TensorListGetItem", "TensorListLength", "If", "While"),
            *("TensorListReserve", "TensorListResize", "TensorListSetItem", "TensorListStack"),
        ),
        _LOOP,
    ),
    **dict.fromkeys(
        ("Const", "ReadVariableOp", "VarHandleOp", "ResourceGather", "AssignVariableOp"), _STATE
    ),
    **dict.fromkeys(("CudnnRNN", "LSTMBlockCell"), _OLD),
    "CudnnRNNV3": "runs on a GPU alone; layers that become a fused operator have tests",
    **dict.fromkeys(
        ("SampleDistortedBoundingBox", "SampleDistortedBoundingBoxV2"),
        "draws random numbers, and prepares data",
    ),
    **dict.fromkeys(
        ("RaggedTensorFromVariant", "RaggedTensorToVariant"),
        "a part of loops over ragged tensors, which no Keras layer holds",
    ),
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), "a call, which is inlined"),
    "XlaCallModule": "a model of JAX, which is no Keras model of TensorFlow",
}
