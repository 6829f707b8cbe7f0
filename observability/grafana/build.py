"""Writes the dashboards: `python -m observability.grafana.build`."""

from observability.grafana import internals, rate_limiting, runbook
from observability.grafana.queries import DASHBOARDS

BUILT = {
    DASHBOARDS[rate_limiting.TITLE]: rate_limiting.build,
    DASHBOARDS[internals.TITLE]: internals.build,
    DASHBOARDS[internals.TITLE].with_name("extauth-runbook.json"): runbook.build,
}

if __name__ == "__main__":
    for file, build in BUILT.items():
        file.write_text(build(), encoding="utf-8")
