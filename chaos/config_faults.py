"""Faults of the config: files as editors, deployments and full disks leave them behind."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from chaos.faults import FEW, Cause, Fault, Faults
from chaos.stage import Stage

LIVE_S = 0.4  # within which a change is seen
COPY = "copy.yaml"


def torn(*tears: Callable[[Path, str], None]) -> Cause:
    """Each tear in turn, for as long as it takes to be seen; afterwards the file is as it was."""

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncIterator[None]:
        whole = stage.config.read_text()
        try:
            for tear in tears:
                tear(stage.config, whole)
                await asyncio.sleep(LIVE_S)
                _restore(stage.config, whole)
            yield
        finally:
            _restore(stage.config, whole)

    return fault


def _restore(file: Path, whole: str) -> None:
    """Write it beside, and rename it into place."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    file.with_name(COPY).unlink(missing_ok=True)
    beside = file.with_suffix(".new")
    beside.write_text(whole)
    beside.replace(file)


def half(file: Path, whole: str) -> None:
    """Cut in the middle of a rule."""
    file.write_text(whole[: whole.rindex("requests_per_unit")])


def empty(file: Path, _whole: str) -> None:
    """Truncated, and not written yet."""
    file.write_text("")


def zeroed(file: Path, whole: str) -> None:
    """What a full disk or a crash may leave: as long as before, and all zeros."""
    file.write_bytes(bytes(len(whole)))


def no_text(file: Path, whole: str) -> None:
    """Not UTF-8."""
    file.write_bytes(whole.encode("utf-16"))


def a_folder(file: Path, _whole: str) -> None:
    """A folder in its place."""
    file.unlink()
    file.mkdir()


def dangling(file: Path, _whole: str) -> None:
    """A link to nowhere."""
    file.unlink()
    file.symlink_to(file.with_name("nowhere"))


def twice(file: Path, whole: str) -> None:
    """A copy beside it, which defines the same domain."""
    file.with_name(COPY).write_text(whole)


def unknown_key(file: Path, whole: str) -> None:
    """A typing mistake."""
    file.write_text(whole.replace("rate_limit:", "rate_limt:"))


def piece_by_piece(file: Path, whole: str) -> None:
    """Written by somebody slow."""
    file.write_text(whole[:40])
    with file.open("a") as rest:
        rest.write(whole[40:200])


REPLACED = (a_folder, dangling, twice, unknown_key, piece_by_piece)
CONFIG: Faults = {
    "config_torn": Fault(cause=torn(half, empty, zeroed, no_text), seconds=0, policies=FEW),
    "config_replaced": Fault(cause=torn(*REPLACED), seconds=0, policies=FEW),
}
