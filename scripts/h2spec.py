"""Runs h2spec against the gRPC listener, in clear and over TLS: `./dev h2spec`, or `./dev h2spec http2/6.5`.

h2spec: `go install github.com/summerwind/h2spec/cmd/h2spec@latest`.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trustme

ROOT = Path(__file__).resolve().parent.parent


def find(name: str = "h2spec") -> str | None:
    """The program, on PATH or where `go install` puts it."""
    folders = [
        os.environ.get("GOBIN", ""),
        *(f"{path}/bin" for path in os.environ.get("GOPATH", "").split(":") if path),
    ]
    path = os.pathsep.join([os.environ.get("PATH", ""), *filter(None, folders), str(Path.home() / "go" / "bin")])
    return shutil.which(name, path=path)


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def check(program: str, folder: Path, sections: list[str], *, tls: bool) -> bool:
    """Serve, run h2spec strictly, and say how it went."""
    grpc, admin = free_port(), free_port()
    (folder / "api.yaml").write_text("domain: api\n")
    env = os.environ | {
        "EXTAUTH_ENGINE": "h2",
        "EXTAUTH_CONFIG": str(folder / "api.yaml"),
        "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{grpc}",
        "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{admin}",
        "EXTAUTH_DRAIN_DELAY": "0",
    }
    if tls:
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        env |= {
            "EXTAUTH_GRPC_TLS_CERT": str(folder / "cert.pem"),
            "EXTAUTH_GRPC_TLS_KEY": str(folder / "key.pem"),
        }
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen([sys.executable, "-m", "extauth", "serve"], env=env, cwd=ROOT, stderr=output)
    try:
        _wait(grpc, server, log)
        options = ["--tls", "--insecure"] if tls else []
        argv = [program, "--strict", "--host", "127.0.0.1", "--port", str(grpc), *options, *sections]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    finally:
        server.terminate()
        server.wait(20)
    counts = re.search(r"\d+ tests, \d+ passed, \d+ skipped, \d+ failed", done.stdout)
    print(f"{'over TLS' if tls else 'in clear'}: {counts[0] if counts else 'h2spec did not finish'}", flush=True)
    if done.returncode or not counts:
        print(done.stdout, done.stderr, log.read_text(), sep="\n")
        return False
    return True


def _wait(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"extauth did not start:\n{log.read_text()}") from None
            time.sleep(0.02)
        else:
            return


def main() -> int:
    """0 where all passed."""
    program = find()
    if program is None:
        print(__doc__, file=sys.stderr)
        return 2
    good = True
    for tls in (False, True):
        with tempfile.TemporaryDirectory(prefix="xa") as folder:
            good = check(program, Path(folder), sys.argv[1:], tls=tls) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
