"""An independent computation of what tables of rules give: numpy on the forward pass, node by node.

Guided backpropagation, DeepLIFT and LRP claim no slope, so that neither TensorFlow's gradients nor
differences of scores can say what is right. This package computes them a second time, in float64:
the forward pass as it was before any of the passes is run by onnxruntime with all its tensors as
outputs, and walked backwards with rules that are written here once more, from the papers, in numpy
and onnx's reference evaluator. It shares no rule with `probegen.graph`.
"""
