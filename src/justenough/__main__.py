"""`python -m justenough` is the command line."""

from justenough.cli.main import main

main()
