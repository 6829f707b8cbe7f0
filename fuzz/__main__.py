"""`./dev fuzz [--seconds N] [TARGET…]`: coverage-guided fuzzing, each target in turn."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from fuzz.replay import TARGETS, load

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".run" / "fuzz"
MAX_BYTES = 4096  # of an input


def fuzz(name: str, seconds: int) -> list[Path]:
    """Fuzz one target, say how far that came, and return what was found; what was learnt is kept for the next time."""
    corpus, seeds, findings = (WORK / kind / name for kind in ("corpus", "seeds", "findings"))
    for folder in (corpus, seeds, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for seed, data in load(name).seeds.items():
        (seeds / seed).write_bytes(data)
    log = WORK / f"{name}.log"
    argv = [sys.executable, "-m", "fuzz.run", name, f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}"]
    argv += ["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", f"-artifact_prefix={findings}/"]
    print(f"{name}: {seconds} s; {log.relative_to(ROOT)} has libFuzzer's own words", flush=True)
    with log.open("wb") as output:
        done = subprocess.run([*argv, corpus, seeds], cwd=ROOT, stdout=output, stderr=output, check=False)
    said = log.read_text(errors="replace")
    found = [Path(file) for file in re.findall(r"Test unit written to (.+)$", said, re.MULTILINE)]
    inputs = re.search(r"stat::number_of_executed_units: (\d+)", said)
    if inputs is None or (done.returncode and not found):
        raise SystemExit(f"{said[-4000:]}\n{name}: the fuzzer itself failed; its last words stand above.")
    reached = re.findall(r"cov: (\d+)", said)
    print(f"  {inputs[1]} inputs, {reached[-1] if reached else 0} edges, {'a finding' if found else 'no finding'}")
    return found


def main() -> int:
    """0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Fuzz what reads bytes from clients.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target; 60 by default")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    told = parser.parse_args()
    if unknown := [name for name in told.targets if name not in TARGETS]:
        parser.error(f"no target {unknown[0]}; there are {', '.join(TARGETS)}")
    found = [(name, file) for name in told.targets or TARGETS for file in fuzz(name, told.seconds)]
    if found:
        print("\nFound. Each of these says what is wrong:")
        for name, file in found:
            print(f"  .venv/bin/python -m fuzz.replay {name} {file.relative_to(ROOT)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
