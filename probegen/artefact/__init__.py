"""What those who write artefacts and those who read them share; no framework, no onnx."""
