"""Models that come as ONNX files, whoever wrote them; needs onnx and onnx-ir, no TensorFlow."""
