"""The sweep of ONNX models that strangers' tools write: made, compiled with probes, compared.

`python -m sweep.onnx_models --help` says what can be asked for; `make sweep-onnx` runs the whole
in an environment of its own. Weights are random and seeded: nothing is fetched but packages.
"""
