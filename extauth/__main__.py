"""`python -m extauth`."""

from extauth.cli import main

main()
