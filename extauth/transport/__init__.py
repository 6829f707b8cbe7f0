"""Bytes to calls and back: two gRPC engines, `h2/` and `grpcio`, and what both of them need.

`batching` makes batches of calls and has them answered, `deadlines` watches the time of each; `engine` says what an
engine does, and what limits clients have.
"""
