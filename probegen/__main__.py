"""`python -m probegen`: the command line."""

from probegen.cli import main

main()
