"""The chart, by helm."""

import shutil
import subprocess
from pathlib import Path

from tests.support.programs import missing

CHART = Path(__file__).parents[2] / "deploy/helm/extauth"


def helm(*options: str) -> subprocess.CompletedProcess[str]:
    """What `helm template` makes of the chart; without helm the test is skipped, and fails where CI=true."""
    if shutil.which("helm") is None:
        missing("no helm on PATH")
    command = ["helm", "template", "extauth", str(CHART), "--kube-version", "1.34.0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
