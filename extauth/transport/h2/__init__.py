"""gRPC over HTTP/2 (RFC 9113).

`server` listens, `protocol` has a connection's socket, and `connection` does no I/O: `receiver` reads its frames,
`requests` has the calls in them, `sender` writes answers, and `streams` owns the states of its streams. `closing` lists
who closes a connection, and why.
"""
