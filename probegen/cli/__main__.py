"""`python -m probegen.cli`."""

from probegen.cli import main

main()
