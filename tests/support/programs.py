"""Programs that tests run: where they are, and what they print."""

import asyncio
import os
from typing import NoReturn

import pytest

from scripts.h2spec import find


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where CI=true: there a silent gap would look like a pass."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def program(name: str, source: str) -> str:
    """Where it is; without it the test is skipped, and fails where CI=true."""
    path = find(name)
    if path is None:
        missing(f"no {name} here ({source})")
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
