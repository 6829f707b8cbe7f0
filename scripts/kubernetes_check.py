"""Check deploy/, and the manifests in docs/deploy: the chart with each set of values, by Kubernetes' own schemas.

`./dev check` runs it by scripts/kubernetes.sh, in a venv with kubernetes-validate; `--write` writes deploy/kubernetes/.
It calls helm, and promtool where there is one. ServiceMonitor and PrometheusRule belong to the Prometheus operator, so
no schema here knows them; the rules of the latter go through promtool, and tests/deploy/test_kinds.py reads both.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-not-found]
import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "deploy/helm/extauth"
VERSIONS: Final = ("1.29", "1.37")
"""The oldest and the newest release whose schemas there are, among those that the chart is for."""
KNOWN: Final = ("v1", "apps/v1")
"""The kinds in the pages that Kubernetes itself has."""
OPERATOR: Final = "monitoring.coreos.com/v1"
EVERYTHING: Final = (
    "serviceMonitor.enabled=true,prometheusRule.enabled=true,networkPolicy.enabled=true,autoscaling.enabled=true,"
    "tls.secret=certificate,tls.clientCA=true,ipv6=true,keySecret.name=keys,redis.urlSecret.name=redis"
)
CASES: Final = {
    "defaults": (),
    "everything": ("--set", EVERYTHING),
    "sentinel": ("--values", str(CHART / "values-sentinel.yaml")),
    "cluster": ("--values", str(CHART / "values-cluster.yaml")),
}
SHIPPED: Final = {
    "extauth.yaml": ("--set", "networkPolicy.enabled=true"),
    "servicemonitor.yaml": ("--set", "serviceMonitor.enabled=true", "--show-only", "templates/servicemonitor.yaml"),
}
"""The files of deploy/kubernetes, by what the chart is given for each. Alerts are not among them: they stand once."""
HEAD: Final = "# Made from deploy/helm/extauth by `./dev manifests`: change that, or this copy as you like.\n"


def main() -> int:
    """Check, or write with `--write`; the exit code."""
    if "--write" in sys.argv:
        for name, options in SHIPPED.items():
            (ROOT / "deploy/kubernetes" / name).write_text(HEAD + template(*options))
        return 0
    wrong = [f"helm lint: {line}" for line in lint()]
    for case, options in CASES.items():
        for document in yaml.safe_load_all(template(*options)):
            wrong += [f"{case}: {each}" for each in check(document)]
    for path in sorted((ROOT / "docs/deploy").glob("*.md")):
        for block in re.findall(r"^```yaml\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
            document = yaml.safe_load(block)
            if document.get("apiVersion") in KNOWN:
                wrong += [f"{path.name}: {each}" for each in check(document)]
    for name, options in SHIPPED.items():
        if (ROOT / "deploy/kubernetes" / name).read_text() != HEAD + template(*options):
            wrong.append(f"deploy/kubernetes/{name} is not what the chart makes; write it anew: ./dev manifests")
    for line in wrong:
        print(line, file=sys.stderr)
    return bool(wrong)


def template(*options: str) -> str:
    """What helm makes of the chart."""
    return helm("template", "extauth", str(CHART), "--kube-version", f"{VERSIONS[-1]}.0", *options)


def lint() -> list[str]:
    """What `helm lint` has to say against the chart."""
    try:
        helm("lint", "--strict", "--quiet", "--kube-version", f"{VERSIONS[-1]}.0", str(CHART))
    except subprocess.CalledProcessError as error:
        said: str = error.stdout + error.stderr
        return said.splitlines()
    return []


def helm(*arguments: str) -> str:
    """What helm prints."""
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, check=True).stdout


def check(document: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest."""
    if document["apiVersion"] == OPERATOR:
        return check_rules(document["spec"]) if document["kind"] == "PrometheusRule" else []
    wrong = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(part) for part in error.path)
            wrong.append(f"{document['kind']} in Kubernetes {version}: {place}: {error.message}")
    return wrong


def check_rules(spec: dict[str, Any]) -> list[str]:
    """What promtool has to say against alerts."""
    if shutil.which("promtool") is None:
        return []
    with NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(spec, file)
        file.flush()
        done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


if __name__ == "__main__":
    sys.exit(main())
