"""Compares methods with the libraries that people use today, on the same weights and inputs.

`make peers` installs them in an environment of their own and writes docs/PEERS.md.
"""
