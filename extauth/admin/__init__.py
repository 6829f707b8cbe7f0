"""The HTTP port for operators: probes, metrics, the rules in force, the live page.

`server` has the paths and what they answer; `http` accepts clients, and `connection` answers each of them.
"""
