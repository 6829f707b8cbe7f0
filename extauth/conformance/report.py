"""What a run tells."""

import json
from collections import Counter
from collections.abc import Sequence

from extauth.conformance.case import Case, Mark, Outcome, Result

Results = Sequence[tuple[Case, Result]]


def line(case: Case, result: Result) -> str:
    """One case: its outcome, name and mark, and why it did not pass."""
    mark = "" if case.mark is Mark.REFERENCE else f" [{case.mark}]"
    text = f"{result.outcome:<14}  {case.name}{mark}"
    indent = "\n" + " " * 16
    if result.outcome is Outcome.FAILED:
        details = (case.about, f"specified: {case.where}", f"expected:  {result.expected}", f"seen:      {result.seen}")
        return indent.join([text, *details])
    return f"{text}: {result.reason}" if result.reason else text


def totals(results: Results) -> str:
    """How many cases had each outcome."""
    counts = _counts(results)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome)


def as_json(address: str, results: Results) -> str:
    """The whole run as an object: `address`, a number an outcome, and `cases`."""
    counts = _counts(results)
    cases = [
        {
            "name": case.name,
            "mark": case.mark,
            "about": case.about,
            "where": case.where,
            "outcome": result.outcome,
            **{key: text for key in ("expected", "seen", "reason") if (text := getattr(result, key))},
        }
        for case, result in results
    ]
    run = {"address": address, **{outcome.replace(" ", "_"): counts[outcome] for outcome in Outcome}, "cases": cases}
    return json.dumps(run, indent=2, ensure_ascii=False)


def _counts(results: Results) -> Counter[Outcome]:
    return Counter(result.outcome for _, result in results)
