"""gRPC over HTTP/2 (RFC 9113)."""
