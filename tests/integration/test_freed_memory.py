"""Memory that was freed between blocks in use goes back to the system."""

import subprocess
import sys

import pytest

PROGRAM = """
from extauth.freed_memory import FreedMemory, resident_bytes

memory = FreedMemory()
assert not memory.look(), "nothing was freed"
before = resident_bytes()
used, blocks = [], []
for i in range(10_000):
    blocks.append(bytearray(6_000 + i % 3_000))
    if i % 50 == 0:
        used.append(bytes(700))
most = resident_bytes()
assert not memory.look(), "all of it is in use"
del blocks
kept = resident_bytes()
gave = memory.look()
print(most - before, kept - before, gave, resident_bytes() - before, memory.look())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc and glibc")
def test_much_of_it_is_given_back_once() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert ran.stderr == ""
    most, kept, gave, after, again = ran.stdout.split()
    assert int(most) > 60_000_000
    assert int(kept) > 0.9 * int(most), "the C library keeps it"
    assert (gave, again) == ("True", "False")
    assert int(after) < 0.2 * int(most)
