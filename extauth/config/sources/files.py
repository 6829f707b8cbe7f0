"""The config's files as a source of rules: reads and watches them."""

import asyncio
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import watchfiles

from extauth.config.merge import MAX_FILE_BYTES, load_valid_domains
from extauth.config.sources.reader import read_apart
from extauth.config.sources.selection import SUFFIXES, YAML, Selection
from extauth.config.yaml_errors import place_of_byte
from extauth.errors import ConfigError, Diagnostic, Place
from extauth.rules.model import RuleSet

POLL_MS = 500  # how often to look where the system reports no change, as on network file systems
APART_BYTES = 1 << 20  # of all files; from here on it is worth starting a process, which takes half a second
SETTLE_S = 0.05  # files that changed this recently may be half written

Signature = tuple[tuple[str, int, int, int, int], ...]


def read_rules(path: Path, *, merge: bool = False) -> RuleSet:
    """Read a file, or all `*.yaml` and `*.yml` files of a folder but hidden ones; raises ConfigError.

    Whatever in the folder has such a name must be a file that can be read.
    """
    rules = read_valid_domains(path, RuleSet(), merge=merge)
    if rules.problems:
        raise ConfigError(rules.problems)
    return rules


def read_valid_domains(path: Path, old: RuleSet, *, merge: bool = False, selection: Selection = YAML) -> RuleSet:
    """As `read_rules`, but each domain by itself: one with a problem keeps the rules that `old` has for it.

    Raises ConfigError where there are no files at all.
    """
    problems: list[Diagnostic] = []
    texts: dict[str, str] = {}
    try:
        paths = selection.files(path)
    except OSError as error:
        raise ConfigError([Diagnostic.error(Place(str(path)), f"cannot be read: {error.strerror}")]) from error
    if not paths:
        raise ConfigError([_nothing_below(path) if selection.below and path.is_dir() else _nothing_at(path)])
    for file in paths:
        try:
            texts[str(file)] = _read(file)
        except FileNotFoundError:
            if file.is_symlink():
                message = f"cannot be read: it is a symlink to {str(file.readlink())!r}, which does not exist"
                problems.append(Diagnostic.error(Place(str(file)), message, "make what it points to, or remove it"))
        except UnicodeDecodeError as error:
            problems.append(not_utf8(str(file), error))
        except ConfigError as error:
            problems += error.problems
        except OSError as error:
            problems.append(Diagnostic.error(Place(str(file)), f"cannot be read: {error.strerror}"))
    rules = load_valid_domains(texts, old, problems, merge=merge)
    return rules if selection.below else replace(rules, warnings=(*rules.warnings, *_unread(path, paths)))


def _read(file: Path) -> str:
    """The file's text; raises ConfigError where it is none that could be read, OSError or UnicodeDecodeError."""
    status = file.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ConfigError(
            [Diagnostic.error(Place(str(file)), "cannot be read: it is a folder", "rename it, or move it away")]
        )
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for whoever writes into it
        raise ConfigError([Diagnostic.error(Place(str(file)), "cannot be read: it is no regular file", "move it away")])
    if status.st_size > MAX_FILE_BYTES:
        raise ConfigError([too_large(str(file))])
    return file.read_text(encoding="utf-8")


def not_utf8(file: str, error: UnicodeDecodeError) -> Diagnostic:
    """Why the file is no text."""
    place = place_of_byte(file, error.object, error.start)
    return Diagnostic.error(place, f"not UTF-8: {error.reason}", "save the file as UTF-8")


def too_large(file: str) -> Diagnostic:
    """Why the file is not read."""
    return Diagnostic.error(Place(file), f"the file is larger than {MAX_FILE_BYTES} bytes", "split it by domain")


def _nothing_at(path: Path) -> Diagnostic:
    """Why there is nothing to read; YAML in sub-folders is named."""
    if not path.is_dir():
        what = "no regular file" if path.exists() else "no such file"
        return Diagnostic.error(Place(str(path)), what, "set EXTAUTH_CONFIG to a folder or a file")
    folders = [entry.name for entry in sorted(path.iterdir()) if entry.name[0] != "." and _holds_yaml(entry)]
    if not folders:
        return Diagnostic.error(Place(str(path)), "no *.yaml file here", "put one there, or set EXTAUTH_CONFIG")
    names = ", ".join(map(repr, folders[:5])) + ("" if len(folders) <= 5 else f" and {len(folders) - 5} more")
    message = f"no *.yaml file here, only in sub-folders, which are not read: {names}"
    return Diagnostic.error(
        Place(str(path)), message, "move the files up, or set EXTAUTH_CONFIG to one of these folders"
    )


def _nothing_below(path: Path) -> Diagnostic:
    return Diagnostic.error(Place(str(path)), "no file here or below", "put one there, or set EXTAUTH_CONFIG")


def _holds_yaml(entry: Path) -> bool:
    return entry.is_dir() and any(next(entry.rglob(f"*{suffix}"), None) for suffix in SUFFIXES)


def _unread(path: Path, read: Sequence[Path]) -> list[Diagnostic]:
    """What looks as if it should be read, and is not."""
    known, warnings = set(read), []
    for entry in sorted(path.iterdir()) if path.is_dir() else ():
        if entry.name.startswith(".") or entry in known:
            continue
        if _holds_yaml(entry):
            warnings.append(Diagnostic.warning(Place(str(entry)), "files in sub-folders are not read", "move them up"))
        elif entry.is_file() and entry.suffix.lower() in {"", *SUFFIXES}:
            warnings.append(Diagnostic.warning(Place(str(entry)), "only *.yaml and *.yml are read", "rename it"))
    return warnings


class FileSource:
    """A file, or the files of a folder, as a source of rules."""

    def __init__(self, path: Path, *, merge: bool = False, selection: Selection = YAML) -> None:
        self._path = path
        self._selection = selection
        self._merge = merge
        self._current = RuleSet()
        self._seen: Signature = ()
        self._refreshes: list[asyncio.Future[None]] = []  # those that wait for the next rules
        self._refresh = asyncio.Event()

    def read(self) -> RuleSet:
        """Read the rules to begin with; raises ConfigError where there are no files at all."""
        return self._read(
            signature(self._path, self._selection)
        )  # before the files are read: an edit in between must not be missed

    async def updates(self) -> AsyncIterator[RuleSet | ConfigError]:
        """Yield the new rules each time the files change, or the reason why there are none left.

        A domain that has problems keeps the rules that were read before. Edits in place are seen, renames over a file,
        and symlinks that are pointed elsewhere (as Kubernetes updates a ConfigMap): the system's change events only
        make it quicker, every POLL_MS the files are looked at anyway. What has changed since `read` counts.
        """
        # The folder of a prefix may be of much else: there, looking must do.
        recursive = self._selection.below and not self._selection.prefix
        async for _ in _wakes(self._path, self._refresh, recursive=recursive):
            self._refresh.clear()
            waiting, self._refreshes = self._refreshes, []
            try:
                now = await _settled(self._path, self._selection)
                if waiting or now != self._seen:
                    yield await asyncio.to_thread(self._read_again, now)
            finally:  # whoever took the rules has come back for the next, or will not come back
                for refreshed in waiting:
                    if not refreshed.done():
                        refreshed.set_result(None)

    async def refresh(self) -> None:
        """Have `updates` yield what the files say now, even if they have not changed.

        It returns once whoever iterates over `updates` has come back for the next rules.
        """
        refreshed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refreshes.append(refreshed)
        self._refresh.set()
        await refreshed

    async def begun(self) -> None:
        """Return: what `read` has read is there."""

    def _read(self, seen: Signature) -> RuleSet:
        self._seen = seen
        self._current = self._read_valid_domains(sum(max(size, 0) for _, _, size, _, _ in seen))
        return self._current

    def _read_valid_domains(self, size: int) -> RuleSet:
        if size >= APART_BYTES:
            with suppress(OSError):  # no memory for another process, or it is forbidden
                return read_apart(self._path, self._current, merge=self._merge, selection=self._selection)
        return read_valid_domains(self._path, self._current, merge=self._merge, selection=self._selection)

    def _read_again(self, seen: Signature) -> RuleSet | ConfigError:
        """The rules, or why there are none: as a value, for a StopIteration of a thread never reaches its awaiter."""
        try:
            return self._read(seen)
        except ConfigError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a reader's fault must not end the watch
            reason = f"cannot be read, by a fault of the reader: {type(error).__name__}"
            return ConfigError([Diagnostic.error(Place(str(self._path)), reason)])


async def _wakes(path: Path, wake: asyncio.Event, *, recursive: bool = False) -> AsyncIterator[None]:
    """Yield when the files may have changed, every POLL_MS at the latest, and soon after `wake` is set."""
    while True:
        try:
            folder = path if await asyncio.to_thread(path.is_dir) else path.parent
            changes = watchfiles.watch(
                folder,
                watch_filter=None,
                step=20,
                debounce=100,
                rust_timeout=POLL_MS,
                yield_on_timeout=True,
                recursive=recursive,
                stop_event=wake,
                raise_interrupt=False,
            )
            # In a thread of our own: what awatch has for that takes a megabyte.
            while await asyncio.to_thread(next, changes, None) is not None:
                yield
        except asyncio.CancelledError:
            wake.set()  # which ends the thread
            raise
        except OSError:  # no such folder at the moment, or no inotify watch left: looking will do
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), POLL_MS / 1000)
        yield


async def _settled(path: Path, selection: Selection) -> Signature:
    """The files' signature once it has held still for SETTLE_S."""
    before = await asyncio.to_thread(signature, path, selection)  # there may be a thousand files
    while True:
        await asyncio.sleep(SETTLE_S)
        after = await asyncio.to_thread(signature, path, selection)
        if after == before:
            return after
        before = after


def signature(path: Path, selection: Selection = YAML) -> Signature:
    """What changes when a file does: its name, its inode, its size, and its times in nanoseconds.

    Of what cannot be looked at, such as a symlink to nothing, the number of the error and the link's own inode.
    """
    try:
        return tuple(map(_signature, selection.files(path)))
    except (OSError, ConfigError):  # the folder went away meanwhile
        return ()


def _signature(file: Path) -> tuple[str, int, int, int, int]:
    try:
        status = file.stat()
    except OSError as error:
        try:
            link = file.lstat().st_ino
        except OSError:
            link = 0
        return str(file), link, -(error.errno or 1), 0, 0
    return str(file), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
