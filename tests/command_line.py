"""Runs the command line as a shell does, within the process."""

from probegen import cli


def status_of(*arguments):
    """Runs `probegen` with arguments and returns its exit status."""
    try:
        cli.main([str(a) for a in arguments])
    except SystemExit as left:
        return left.code or 0
    return 0
