"""Where counts live: the implementations of `limiter.counters.Counters`.

`redis/` counts in Redis, `memory` in this process. Before Redis stand `denial_cache`, which repeats sure denials,
`breaker`, which asks no store that is away, and `local`, which counts for this replica alone meanwhile.
`several_shards` is for requests whose counters lie on several masters; `heartbeat` and `cut_off` are about the other
replicas.
"""
