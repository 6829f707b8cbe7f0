"""Bytes to messages and back: the gRPC engines."""
