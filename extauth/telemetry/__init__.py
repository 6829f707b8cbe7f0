"""Metrics, logs, traces and callers: they consume one fact per batch.

`catalogue` has each metric's name and meaning, `metrics` counts; `events` has the log lines.
"""
