"""The panels about the replicas' processes, and what they know of each other and of the rules."""

from observability.grafana.panels import Panel, lines
from observability.grafana.selectors import extauth, rate

CPU = rate(extauth("process_cpu_seconds_total"))


def replicas() -> list[Panel]:
    """The panels."""
    return [
        lines(
            "CPU of the replicas",
            "Cores that each process uses. Each is one event loop: near 1, it is time for another replica or worker.",
            "none",
            (CPU, "{{instance}} {{worker}}"),
            span=8,
        ),
        lines(
            "Memory of the replicas",
            "Resident memory of each process.",
            "bytes",
            (extauth("process_resident_memory_bytes"), "{{instance}} {{worker}}"),
            span=8,
        ),
        lines(
            "Rules",
            "Rules in force at each replica.",
            "none",
            (extauth("extauth_rules"), "{{instance}}"),
            span=8,
        ),
        lines(
            "Replicas by heartbeat",
            "How many replicas each one knows by heartbeat, itself included. Fewer than are up: some count apart.",
            "none",
            (extauth("extauth_replicas"), "{{instance}}"),
            span=8,
        ),
        lines(
            "Cut off from Redis",
            "1: this replica does not reach Redis though another one does, and its health checks report NOT_SERVING.",
            "none",
            (extauth("extauth_cut_off"), "{{instance}}"),
            span=8,
        ),
        lines(
            "Local share",
            "The share of each limit that a replica admits by itself while Redis is away (EXTAUTH_LOCAL_SHARE).",
            "percentunit",
            (extauth("extauth_local_share"), "{{instance}}"),
            span=8,
        ),
        lines(
            "Rule reloads",
            "Edits taken up (ok) and refused (error), in five minutes.",
            "none",
            (f"sum by (outcome) (increase({extauth('extauth_config_reloads_total')}[5m]))", "{{outcome}}"),
        ),
        lines(
            "Age of the rules",
            "Time since all that a replica's files hold was last put in force.",
            "s",
            (f"time() - {extauth('extauth_config_last_reload_success_timestamp_seconds')}", "{{instance}}"),
        ),
    ]
