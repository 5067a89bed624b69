"""The captured forward pass of a Keras model as an ONNX graph, through tf2onnx."""
