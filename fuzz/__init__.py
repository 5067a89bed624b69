"""The fuzzer: random models, random probes, and what comes out held against other witnesses.

`python -m fuzz --help` says what can be asked for; `make fuzz` runs all for some minutes.
"""
