"""Makes calls over grpcio: ADDRESS METHOD MESSAGE_HEX SECONDS CALLS CONCURRENCY prints {"ok", "failed"}."""

import json
import sys
import threading
import time
from collections import Counter

import grpc


def main() -> None:
    address, method, message = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
    end, calls, concurrency = time.monotonic() + float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
    begun = ok = 0
    failed: Counter[str] = Counter()
    lock, room = threading.Lock(), threading.Semaphore(concurrency)

    def done(future: "grpc.Future[bytes]") -> None:
        nonlocal ok
        error = future.exception()
        with lock:
            if error is None:
                ok += 1
            else:
                failed[str(error.details())] += 1  # type: ignore[attr-defined]
        room.release()

    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        while time.monotonic() < end and begun < calls:
            room.acquire()
            begun += 1
            call.future(message, timeout=20).add_done_callback(done)
        for _ in range(concurrency):
            room.acquire()
    print(json.dumps({"ok": ok, "failed": failed}))


main()
