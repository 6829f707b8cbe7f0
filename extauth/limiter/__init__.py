"""Decides: from requests to plans, from plans to verdicts. No I/O and no clock of its own.

`planner` finds what a request counts; `limiter` has it counted and decides; `failure` decides where the store does not
answer; `templates` writes the answers. `algorithms/` has what is counted, `counters` the interface to where.
"""
