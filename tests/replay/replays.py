"""Replays of lines under configs given as text."""

from collections.abc import Iterable
from pathlib import Path

from extauth.config.merge import load_rules
from extauth.counters.memory import MAX_BYTES
from extauth.limiter.build import LimiterOptions
from extauth.limiter.modes import NO_MODES, GlobalModes
from extauth.replay.log_file import LogFile
from extauth.replay.replayer import Replayer
from extauth.replay.report import View, view_replay
from extauth.replay.side import Side
from extauth.replay.tally import Timeline
from tests.replay.logs import SECRET, text


def replayed(
    folder: Path,
    config: str,
    *logs: Iterable[str],
    before: str | None = None,
    secret: str = SECRET,
    modes: GlobalModes = NO_MODES,
    max_bytes: int = MAX_BYTES,
) -> View:
    """The report on logs of these lines."""
    paths = []
    for number, lines in enumerate(logs):
        paths.append(folder / f"log{number}")
        paths[-1].write_bytes(text(lines))
    return replayed_files(config, *paths, before=before, secret=secret, modes=modes, max_bytes=max_bytes)


def replayed_files(
    config: str,
    *paths: Path,
    before: str | None = None,
    secret: str = SECRET,
    modes: GlobalModes = NO_MODES,
    max_bytes: int = MAX_BYTES,
) -> View:
    """The report on logs in files."""
    timeline = Timeline()
    options = LimiterOptions(key_secret=secret, modes=modes)

    def side(name: str, config: str) -> Side:
        return Side(name, load_rules({f"{name}.yaml": config}), options, timeline, max_bytes)

    replayer = Replayer(side("after", config), None if before is None else side("before", before), timeline)
    files = list(map(LogFile, paths))
    replayer.run(files)
    return view_replay(replayer, files)
