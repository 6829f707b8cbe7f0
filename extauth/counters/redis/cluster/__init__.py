"""Counters in a Redis Cluster."""
