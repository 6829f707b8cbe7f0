"""Names that a reload makes secret are forgotten at once, also by what was being read when the rules were swapped."""

import asyncio
import sys
from collections.abc import Iterator

import pytest

from extauth.config.merge import load_rules
from extauth.limiter.verdict import Labels
from extauth.rules.masking import SecretKeys
from extauth.rules.matcher import Matcher
from extauth.rules.model import Domain, RuleSet
from extauth.rules.rule_names import RuleName
from extauth.telemetry import catalogue
from extauth.telemetry.history import History, RuleKey
from extauth.telemetry.masked_names import MAX_GONE_BYTES, NOT_REMASKED, MaskedNames, Remasked
from extauth.telemetry.metrics import Metrics
from extauth.telemetry.tables import PIECE_CELLS, PIECE_LINES, CounterTable
from tests.support.callers import CONFIG, CallersRig
from tests.support.clock import Seconds
from tests.support.facts import batch, settled

USUAL, CUSTOMER, NOTHING = SecretKeys(), SecretKeys(frozenset({"customer"})), SecretKeys(by_name=False)
PATH = SecretKeys(frozenset({"path"}))
AUTH_PATH = SecretKeys(frozenset({"auth_path"}))  # secret by its name, too, except for the value `auth_path`
IN_D, PATHS_IN_D = Remasked(frozenset("d")), Remasked(frozenset("d"), paths=True)


def rules(**domains: Domain) -> RuleSet:
    return RuleSet(domains)


def domain(secret: SecretKeys = USUAL, *labels: str) -> Domain:
    return Domain("d", secret=secret, labels=labels)


def test_no_text_of_earlier_rules_is_held() -> None:
    masked = MaskedNames()
    earlier = [str(memoryview(text), "utf-8") for text in (b"a domain", b"a label")]  # which nobody else has
    free = list(map(sys.getrefcount, earlier))
    masked.rules_loaded(RuleSet({earlier[0]: domain(USUAL, earlier[1])}))
    assert list(map(sys.getrefcount, earlier)) > free
    masked.rules_loaded(RuleSet({"a domain": domain(USUAL, "a label")}))
    assert len(masked.unused()) == 1
    assert list(map(sys.getrefcount, earlier)) == free


@pytest.mark.parametrize(
    ("loaded", "remasked"),
    [
        ([], NOT_REMASKED),
        ([rules(d=domain(CUSTOMER))], NOT_REMASKED),
        ([rules(d=domain()), rules(d=domain())], NOT_REMASKED),
        ([rules(d=domain()), rules(d=domain(CUSTOMER))], IN_D),
        ([rules(d=domain(CUSTOMER)), rules(d=domain(NOTHING))], IN_D),
        ([rules(d=domain(), e=domain()), rules(d=domain(), e=domain(CUSTOMER))], Remasked(frozenset("e"))),
        ([rules(d=domain()), rules(), rules(d=domain())], NOT_REMASKED),
        ([rules(d=domain()), rules(), rules(d=domain(CUSTOMER))], IN_D),
        ([rules(d=domain(USUAL, "path")), rules(d=domain(CUSTOMER))], IN_D),
        ([rules(d=domain(USUAL, "path")), rules(d=domain(PATH, "path"))], PATHS_IN_D),
        ([rules(d=domain(USUAL, "auth_path")), rules(d=domain(AUTH_PATH, "auth_path"))], PATHS_IN_D),
        ([rules(d=domain(USUAL, "auth_path")), rules(d=domain(CUSTOMER, "auth_path"))], IN_D),
        (
            [rules(d=domain(USUAL, "path")), rules(d=domain()), rules(d=domain(PATH))],
            Remasked(frozenset("d"), paths=True),
        ),
    ],
)
def test_what_is_masked_otherwise_than_before(loaded: list[RuleSet], remasked: Remasked) -> None:
    masked, found = MaskedNames(), NOT_REMASKED
    for each in loaded:
        found = masked.rules_loaded(each)
    assert found == remasked


def test_of_domains_that_are_gone_the_oldest_are_forgotten_with_their_names() -> None:
    masked = MaskedNames()
    names = [str(number) + "x" * (MAX_GONE_BYTES // 4) for number in range(10)]
    found = [masked.rules_loaded(RuleSet({name: domain(USUAL, "path")})) for name in names]
    assert found == [*[NOT_REMASKED] * 4, *[Remasked(frozenset({name}), paths=True) for name in names[:6]]]
    assert masked.rules_loaded(RuleSet({names[-2]: domain(CUSTOMER)})).domains == {names[-2]}


def test_what_was_done_before_rules_are_loaded_holds_for_these_alone() -> None:
    masked, first, second = MaskedNames(), rules(d=domain(USUAL, "path")), rules(d=domain(CUSTOMER))
    masked.before_rules(second)
    masked.rules_loaded(first)
    masked.before_rules(rules(d=domain(CUSTOMER)))
    assert masked.rules_loaded(rules()) == NOT_REMASKED
    masked.before_rules(second)
    assert masked.rules_loaded(second) == IN_D
    assert masked.rules_loaded(second) == NOT_REMASKED


def test_names_of_other_rules_are_shown_if_these_masked_the_same() -> None:
    masked = MaskedNames()
    assert masked.show("d", CUSTOMER), "nothing is known of the domain"
    masked.rules_loaded(rules(d=domain(CUSTOMER)))
    assert masked.show("d", SecretKeys(frozenset({"customer"})))
    assert not masked.show("d", USUAL)
    assert masked.show("e", USUAL)


def table(series: int) -> CounterTable:
    made = CounterTable(catalogue.RULE_CALLS)
    for i in range(series):
        made.cell("d", f"clear-{i}").value = 1
        made.cell("e", f"other-{i}").value = 1
    return made


def test_a_scrape_that_has_begun_goes_on_without_them() -> None:
    made = table(2 * PIECE_LINES)
    pieces = made.pieces()
    begun = next(pieces) + next(pieces)
    assert "clear" in begun
    made.forget(["d"])
    rest = "".join(pieces)
    assert "clear" not in rest
    assert (begun + rest).count("other-") == 2 * PIECE_LINES


def test_a_reading_that_has_begun_goes_on_without_them() -> None:
    made = table(PIECE_CELLS)
    changes = made.changes()
    read, _ = next(changes)
    assert {values[0] for values, _ in read} == {"d"}
    made.forget(["d"])
    made.cell("d", "clear-0").value = 5  # a new one of the same name is read next time
    later = [values for piece, _ in changes for values, _ in piece]
    assert later == [("e", f"other-{i}") for i in range(PIECE_CELLS)]
    assert [each for piece, _ in made.changes() for each in piece] == [(("d", "clear-0"), 5)]


def test_forgotten_series_are_not_kept_over_reloads_and_all_can_be_forgotten() -> None:
    made = table(3)
    made.age()
    made.cell("d", "clear-0").value = 2
    made.age()
    made.forget(["d"])
    assert "clear" not in "".join(made.pieces())
    assert made.value("d", "clear-0") == 0
    assert made.value("e", "other-2") == 1
    made.forget()
    assert "other" not in "".join(made.pieces()).partition("# TYPE")[2]


def test_the_history_forgets_what_it_was_about_to_read() -> None:
    metrics, clock = Metrics(), Seconds()
    history = History(metrics.changes, clock=clock)

    def seconds() -> Iterator[None]:
        clock.now += 1
        return history.sample()

    for name in ("d", "e"):
        metrics.batch_decided(batch(settled(Labels(), 2, rule=RuleName(name, "clear"))))
    list(seconds())
    assert set(history.since().rules) == {RuleKey("d", "clear"), RuleKey("e", "clear")}
    metrics.batch_decided(batch(settled(Labels(), 2, rule=RuleName("d", "clear"))))
    reading = seconds()
    next(reading)
    metrics.rules_loaded(2, "0", ok=True, remasked=Remasked(frozenset("d")))
    history.forget("d")
    list(reading)
    assert set(history.since().rules) == {RuleKey("e", "clear")}
    assert history.forgotten == 1


async def test_a_report_of_callers_that_has_begun_is_made_anew() -> None:
    rig = CallersRig()
    for i in range(200):
        await rig.call(f"named=in-clear-{i}", calls=2)
    looking = asyncio.create_task(rig.callers.look())
    await asyncio.sleep(0)
    assert not looking.done()
    rig.load(Matcher(load_rules({"f.yaml": CONFIG + "secret: [named]"})))
    await rig.call("named=in-clear-0")
    top = await looking
    assert "in-clear" not in str(top)
    (rule,) = top.rules
    assert [caller.calls for caller in rule.denied] == [2]
