"""What pages and chart hold for Envoy Gateway, Contour and the Prometheus operator, by the types of these projects."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.charts import helm
from tests.support.programs import missing

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "kinds"


@pytest.fixture(scope="module")
def checker() -> Path:
    """The program in kinds/, built once."""
    if shutil.which("go") is None:
        missing("no go on PATH for the program in tests/deploy/kinds")
    content = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))
    binary = ROOT / ".run" / f"kinds-{hashlib.sha256(content).hexdigest()[:16]}"
    if not binary.exists():
        build = ["go", "build", "-o", str(binary), "."]
        done = subprocess.run(build, cwd=SOURCES, capture_output=True, text=True, timeout=500, check=False)
        if done.returncode:
            missing(f"the program in tests/deploy/kinds cannot be built: {done.stderr}")
    return binary


def shown(page: str, kind: str) -> list[str]:
    """The YAML of a page that has this line."""
    text = (ROOT / f"docs/deploy/{page}.md").read_text()
    found = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for block in found if re.search(rf"^{re.escape(kind)}$", block, re.MULTILINE)]


def made(value: str, template: str) -> list[str]:
    return [
        helm("--set", f"{value}.enabled=true", "--show-only", f"templates/{template}.yaml").stdout.removeprefix("---\n")
    ]


DOCUMENTS = {
    "EnvoyGateway": lambda: shown("envoy-gateway", "kind: EnvoyGateway") + shown("envoy-gateway", "# the same place"),
    "ExtensionService": lambda: shown("contour", "kind: ExtensionService"),
    "contour.yaml": lambda: shown("contour", "rateLimitService:"),
    "ServiceMonitor": lambda: made("serviceMonitor", "servicemonitor"),
    "PrometheusRule": lambda: made("prometheusRule", "prometheusrule"),
}


def refusal(checker: Path, kind: str, *documents: str) -> str:
    """Why it does not take these documents."""
    given = "\n---\n".join(f"# {kind}\n{document}" for document in documents)
    return subprocess.run([checker], input=given, capture_output=True, text=True, timeout=60, check=False).stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_its_types_have_every_field(checker: Path, kind: str) -> None:
    documents = DOCUMENTS[kind]()
    assert documents
    assert refusal(checker, kind, *documents) == ""
    assert "misspelt" in refusal(checker, kind, *(f"{document}\nmisspelt: 1" for document in documents))
