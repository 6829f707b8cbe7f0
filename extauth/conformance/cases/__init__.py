"""All cases, in the order in which they run."""

from extauth.conformance.case import Case
from extauth.conformance.cases import (
    additions,
    answers,
    calls,
    compatible,
    counting,
    deviations,
    matching,
    overrides,
    several,
)

CASES: tuple[Case, ...] = (
    *answers.CASES,
    *counting.CASES,
    *matching.CASES,
    *several.CASES,
    *overrides.CASES,
    *calls.CASES,
    *deviations.CASES,
    *compatible.CASES,
    *additions.CASES,
    *calls.LAST,
)
