"""What a scrape of the metrics reads."""

from prometheus_client.parser import text_string_to_metric_families

from extauth.telemetry.metrics import Metrics


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """A metric's samples by their label values."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(b"".join(metrics.render()).decode())
        for sample in family.samples
        if sample.name == name
    }
