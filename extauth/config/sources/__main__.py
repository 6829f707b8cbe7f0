"""The process that `reader.py` starts: the job is on its input, the pieces go to its output."""

import sys

from extauth.config.sources.files import read_valid_domains
from extauth.config.sources.reader import run

if __name__ == "__main__":
    sys.exit(run(read_valid_domains, sys.stdin.read(), sys.stdout.buffer))
