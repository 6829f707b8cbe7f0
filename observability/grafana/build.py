"""Writes the dashboards: `python -m observability.grafana.build`."""

from observability.grafana import internals, rate_limiting
from observability.grafana.queries import DASHBOARDS

BUILT = {rate_limiting.TITLE: rate_limiting.build, internals.TITLE: internals.build}

if __name__ == "__main__":
    for title, build in BUILT.items():
        DASHBOARDS[title].write_text(build(), encoding="utf-8")
