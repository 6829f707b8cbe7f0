"""What `extauth serve` logs of errors in its event loop that nobody waits for."""

import asyncio
import gc
import socket

import pytest
import uvloop

from extauth.lifecycle import report_error


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), 0),
        (OSError("something else"), 1),
    ],
)
def test_a_look_up_that_nobody_waits_for_may_fail_in_silence(
    caplog: pytest.LogCaptureFixture, error: Exception, lines: int
) -> None:
    async def leave_behind() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report_error)
        loop.create_future().set_exception(error)
        gc.collect()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave_behind())
    assert [record.levelname for record in caplog.records] == ["ERROR"] * lines
