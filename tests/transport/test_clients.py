"""Clients on other HTTP/2 libraries: ghz on grpc-go, h2load on nghttp2. Each call is counted once and answered."""

import json
from pathlib import Path

import pytest

from extauth.transport.h2.grpc_framing import prefixed
from tests.support.h2_peer import MESSAGE, PATH, serving
from tests.support.programs import program, said

CALLS = 4000
PROTO = Path(__file__).with_name("ratelimit.proto")
DATA = {"domain": "api", "descriptors": [{"entries": [{"key": "api_key", "value": "{{.RequestNumber}}"}]}]}


@pytest.mark.parametrize("compressed", [False, True])
async def test_ghz_gets_every_answer(short_path: Path, *, compressed: bool) -> None:
    ghz = program("ghz", "go install github.com/bojand/ghz/cmd/ghz@latest")
    options = [f"--total={CALLS}", "--connections=4", "--concurrency=80", "--cpus=1", "--insecure", "--format=json"]
    if compressed:
        options.append("--enable-compression")
    method = ["--proto", str(PROTO), "--call", PATH[1:], "--data", json.dumps(DATA)]
    async with serving(short_path) as served:
        told = json.loads(await said(ghz, *options, *method, f"unix:{served.path}"))
        assert (told["count"], told["statusCodeDistribution"]) == (CALLS, {"OK": CALLS})
        assert not told.get("errorDistribution")
        assert served.counters.calls == CALLS
        assert not served.tripped


@pytest.mark.parametrize("windows", [(), ("-w5", "-W10")], ids=["wide", "narrow"])
async def test_h2load_gets_every_answer(short_path: Path, windows: tuple[str, ...]) -> None:
    """Narrow windows, of 31 bytes a stream and 1,023 a connection, hold less than what is answered."""
    h2load = program("h2load", "Debian: apt install nghttp2-client")
    (short_path / "body").write_bytes(prefixed(MESSAGE))
    call = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", f"{short_path}/body"]
    async with serving(short_path) as served:
        where = ["-B", f"unix:{served.path}", f"http://x{PATH}"]
        output = await said(h2load, f"-n{CALLS}", "-c4", "-m20", *windows, *call, *where)
        assert f"{CALLS} done, {CALLS} succeeded, 0 failed, 0 errored, 0 timeout" in output
        assert f"{CALLS} 2xx, 0 3xx, 0 4xx, 0 5xx" in output
        assert served.counters.calls == CALLS
        assert not served.tripped
