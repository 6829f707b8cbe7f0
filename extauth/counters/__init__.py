"""Where counts live: the implementations of `limiter.counters.Counters`."""
