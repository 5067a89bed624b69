"""The ONNX side: the captured forward graph, its differentiation, clean-ups and the gate.

It works on any ONNX graph, whoever wrote it: no framework and no source is imported here.
"""
