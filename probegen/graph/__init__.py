"""The ONNX side: the captured forward graph, its differentiation, clean-ups and the gate.

Only `forward.py` knows TensorFlow. Everything else works on any ONNX graph, whoever wrote it.
"""
