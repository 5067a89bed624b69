"""Artefacts behind the Open Inference Protocol (V2): requests, batches, a server, its metrics.

`inference.infer` is a function from the bytes of a request to those of a response; servers are
built around it. Everything stands on `probegen.runtime`, and needs neither TensorFlow nor Keras.
"""
