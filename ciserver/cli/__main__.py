"""`python -m ciserver.cli`: the command `ci`."""

from ciserver.cli import main

main()
