"""Benchmarks: explained against plain models, as ratios measured in one run.

`python -m bench --help` says what can be asked for; `make bench` runs the default.
"""
