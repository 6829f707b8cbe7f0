"""The stack as a whole: up, down, and the parts between."""

import contextlib
import fcntl
import hashlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from scripts.stack import parts, programs
from scripts.stack.errors import StackError
from scripts.stack.parts import Part
from scripts.stack.ports import Ports, is_taken
from scripts.stack.process import Process
from scripts.stack.render import Edit

_POLL_S = 0.05
# A unix socket's address holds 104 bytes on macOS, 108 on Linux.
_SOCKET_PATH_BYTES = 100


class Stack:
    """Redis, extauth, echo, Envoy and, where it is installed, Prometheus.

    State, pid files and logs stand in `state_dir`, `.run/` unless told otherwise. On the default ports the shipped
    configuration runs as it is; on others, copies of it. `env` are the settings of the extauth replicas; without it the
    EXTAUTH_* variables of this process are. `ratelimit_timeout_s` replaces what Envoy gives extauth for an answer, for
    tests that count exactly on a machine that may stall; `edit_envoy` changes Envoy's files further. `redis_urls`, one
    a replica, are stores from elsewhere in place of the stack's own. `run_extauth` is the beginning of a command line
    that becomes each replica by exec. A part that another Stack object, or an earlier command, started is found by its
    pid file.
    """

    def __init__(
        self,
        root: Path,
        state_dir: Path | None = None,
        *,
        ports: Ports | None = None,
        env: Mapping[str, str] | None = None,
        prometheus: bool = True,
        ratelimit_timeout_s: float | None = None,
        edit_envoy: Edit | None = None,
        redis_urls: Sequence[str] = (),
        run_extauth: Sequence[str] = (),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.root = root.resolve()
        self.state = (state_dir or self.root / ".run").absolute()
        self.ports = ports or Ports.default()
        self._env = (
            {name: value for name, value in os.environ.items() if name.startswith("EXTAUTH_")}
            if env is None
            else dict(env)
        )
        self._ratelimit_timeout_s = ratelimit_timeout_s
        self._edit_envoy = edit_envoy
        self._redis_urls = redis_urls
        self._run_extauth = run_extauth
        self._with_prometheus = prometheus
        self._say = say
        self._processes: dict[str, Process] = {}
        self._socket = self._socket_path()
        self.redis_url = parts.redis_url(self._socket)

    @property
    def url(self) -> str:
        """The edge, without a trailing slash."""
        return f"http://127.0.0.1:{self.ports.edge}"

    def up(self, timeout_s: float = 60) -> None:
        """Start what does not run, and return when all of it is ready.

        Raises StackError where a port is taken or a part fails; then whatever this call started is stopped again.
        """
        with self._locked():
            every = self._parts()
            missing = [part for part in every if self.process(part.name).pid() is None]
            self._refuse_taken_ports(missing)
            self._make_socket_folder()
            started: list[str] = []
            try:
                # One group waits for the one before it, so that no part's log opens with errors about another.
                for group in (("redis",), ("extauth", "echo", "prometheus"), ("envoy",)):
                    members = [part for part in every if part.name.split("-")[0] in group]
                    for part in members:
                        if part in missing:
                            started.append(part.name)
                            self._start(part)
                    for part in members:
                        self._wait_ready(part, timeout_s)
                        state = (
                            "ready"
                            if part in missing
                            else "already ran, as it was started; ./dev down first for other settings"
                        )
                        self._say(f"{part.name:<11} {state}: {part.where}")
            except BaseException:
                self._stop(started)
                raise

    def down(self) -> list[str]:
        """Stop every part that runs, Envoy first; returns their names."""
        if not self.state.is_dir():
            return []
        with self._locked():
            running = [name for name in self._known() if self.process(name).pid() is not None]
            self._stop(self._known())
            self._socket.unlink(missing_ok=True)
            if self._socket.parent != self.state:
                with contextlib.suppress(OSError):
                    self._socket.parent.rmdir()
            return running

    def start(self, name: str, timeout_s: float = 60) -> None:
        """Start one part and wait until it is ready."""
        part = self._part(name)
        self._refuse_taken_ports([part])
        self._start(part)
        self._wait_ready(part, timeout_s)

    def stop(self, name: str, sig: signal.Signals = signal.SIGTERM) -> int | None:
        """Stop one part; returns its exit code where this object started it, else None."""
        process = self.process(name)
        process.send(sig)
        return process.wait()

    def restart(self, name: str, sig: signal.Signals = signal.SIGTERM) -> None:
        """Stop one part and start it again."""
        self.stop(name, sig)
        self.start(name)

    def status(self) -> list[tuple[str, str, str]]:
        """(part, state, where) of each: ready, not ready (runs, but its probe fails) or stopped."""
        rows = []
        for part in self._parts():
            pid = self.process(part.name).pid()
            state = "stopped" if pid is None else f"ready, pid {pid}" if part.ready() else f"not ready, pid {pid}"
            rows.append((part.name, state, part.where))
        return rows

    def logs(self) -> dict[str, Path]:
        """The log of each part that ever ran."""
        return {log.stem: log for log in sorted(self.state.glob("*.log"))}

    def process(self, name: str) -> Process:
        """The process of a part, running or not."""
        if name not in self._processes:
            self._processes[name] = Process(self.state / f"{name}.pid", self.state / f"{name}.log")
        return self._processes[name]

    def _parts(self) -> list[Part]:
        every = [] if self._redis_urls else [parts.store(self.state, self._socket)]
        urls = self._redis_urls or [self.redis_url] * len(self.ports.extauth)
        for index, (replica, url) in enumerate(zip(self.ports.extauth, urls, strict=True), start=1):
            every.append(parts.extauth(index, replica, self.root, url, self._env, within=self._run_extauth))
        every.append(parts.echo(self.root, self.ports))
        every.append(parts.envoy(self.root, self.state, self.ports, self._ratelimit_timeout_s, self._edit_envoy))
        if self._with_prometheus and (program := programs.prometheus()) is not None:
            every.append(parts.prometheus(program, self.root, self.state, self.ports))
        return every

    def _part(self, name: str) -> Part:
        return next(part for part in self._parts() if part.name == name)

    def _known(self) -> Sequence[str]:
        """The parts that may run."""
        return sorted({file.stem for file in self.state.glob("*.pid")} | self._processes.keys())

    def _stop(self, names: Sequence[str]) -> None:
        """Stop the edge, then all between, then the store, so that nobody misses what it still needs."""
        for is_in_turn in (lambda n: n == "envoy", lambda n: n not in ("envoy", "redis"), lambda n: n == "redis"):
            processes = [self.process(name) for name in names if is_in_turn(name)]
            for process in processes:
                process.send()
            for process in processes:
                process.wait()

    def _start(self, part: Part) -> None:
        part.prepare()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("EXTAUTH_")}
        self.process(part.name).start(part.argv, cwd=part.cwd, env={**environ, **part.env})

    def _wait_ready(self, part: Part, timeout_s: float) -> None:
        process = self.process(part.name)
        deadline = time.monotonic() + timeout_s
        while not part.ready():
            if process.pid() is None:
                problem = "ended before it was ready"
            elif time.monotonic() > deadline:
                problem = f"is not ready after {timeout_s:.0f} s"
            else:
                time.sleep(_POLL_S)
                continue
            msg = f"{part.name} {problem}. The end of {process.log}:\n\n{process.last_lines()}"
            raise StackError(msg)

    def _refuse_taken_ports(self, starting: Sequence[Part]) -> None:
        taken = [
            f"port {port} is taken; {part.name} needs it ({use})"
            for part in starting
            for port, use in part.ports.items()
            if is_taken(part.host, port)
        ]
        if taken:
            port = taken[0].split()[1]
            msg = "\n".join(taken) + (
                f"\nSee who holds it: lsof -nP -iTCP:{port} -sTCP:LISTEN"
                "\nand stop that; if it is this project's own Docker Compose stack: docker compose down"
            )
            raise StackError(msg)

    def _make_socket_folder(self) -> None:
        """A folder of ours alone: in a shared /tmp somebody else may have made one of that name."""
        folder = self._socket.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if folder != self.state and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
            msg = f"{folder} is open to others; remove it, or use a state folder with a shorter path"
            raise StackError(msg)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One up or down at a time on a state folder."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _socket_path(self) -> Path:
        path = self.state / "redis.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"extauth-{os.geteuid()}-{name}" / "redis.sock"
