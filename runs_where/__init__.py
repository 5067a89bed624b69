"""Runs the same artefacts in every runtime that can be had, and writes docs/RUNS_WHERE.md.

`make runs-where` makes the environments and runs all; `python -m runs_where --help`.
"""
