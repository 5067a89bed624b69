"""What writers and readers of artefacts share; imports no framework and no onnx."""
