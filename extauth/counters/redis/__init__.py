"""Counters in Redis or Valkey.

`counters` asks and `lua/take.lua` counts; `takes` has what they say to each other. `connection` keeps a connection to
the server that `server`, `sentinel` or `cluster/` finds.
"""
