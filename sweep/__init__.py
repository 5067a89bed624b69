"""The coverage sweep: small models around everything Keras has, compiled and compared.

`python -m sweep --help` says what can be asked for; `make sweep` runs the default.
"""
