"""`python -m spattn` is `spattnc`."""

from spattn.cli import main

main()
