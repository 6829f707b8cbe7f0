"""Counters in a Redis Cluster.

`topology` has the masters and who serves which slot, `counters` sends each `master` its part, and `moving` follows
redirections (MOVED, ASK, TRYAGAIN). `guard` has a circuit breaker for each master.
"""
