"""What tests of several commands share."""

from probegen import runtime


def compiled(path):
    return runtime.load(path).manifest
