"""Programs that tests run: where they are, and what they print."""

import asyncio
import os

import pytest

from scripts.h2spec import find


def program(name: str, source: str) -> str:
    """Where it is; without it the test is skipped, and fails where CI=true."""
    path = find(name)
    if path is None:
        missing = f"no {name} here ({source})"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


async def said(*argv: str) -> str:
    """What the program printed, once it has ended well."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, (output, errors)
    return output.decode()
