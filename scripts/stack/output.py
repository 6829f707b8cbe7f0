"""What the commands print."""

import sys


def say(line: str) -> None:
    """To standard output, at once: a start takes seconds."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
