"""What is done to a process in which there are very many objects."""

import ctypes
import subprocess
import sys

import pytest

# A table as large as one that was freed before, and whether it has a mapping of its own.
MAPPED = """
import ctypes
from extauth.config.many_objects import map_large_tables
CALL
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks".split() + list("abcdef")]
info = ctypes.CDLL(None).mallinfo2
info.restype = Info
first = bytearray(4 << 20)
del first
before = info().hblks
second = bytearray(3 << 20)
print(info().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc 2.33 or later")
@pytest.mark.parametrize(("call", "mapped"), [("map_large_tables()", "1\n"), ("", "0\n")], ids=["called", "not"])
def test_large_tables_have_mappings_of_their_own(call: str, mapped: str) -> None:
    code = MAPPED.replace("CALL", call)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == mapped


# Whether all of the objects that were freed have left memory.
FREED = """
import sys
from extauth.config.many_objects import free_kept_objects
tuples = [(str(i), i) for i in range(1000, 2500)]
before = sys.getallocatedblocks()
tuples.clear()
CALL
print(before - sys.getallocatedblocks() >= 3 * 1500)
"""


@pytest.mark.parametrize(("call", "freed"), [("free_kept_objects()", "True\n"), ("", "False\n")], ids=["called", "not"])
def test_objects_that_python_would_use_again_are_freed(call: str, freed: str) -> None:
    code = FREED.replace("CALL", call)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == freed
