"""Metrics and logs: they consume one fact per batch."""
