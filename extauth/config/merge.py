"""From the texts of config files to a RuleSet, or to every problem in them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import reduce

from extauth.config.compile import identities
from extauth.config.diagnostics import MAX_PROBLEMS, bounded, quoted, shown
from extauth.config.parse import ParsedFile, parse_file
from extauth.errors import ConfigError, Diagnostic, nearest
from extauth.rules.masking import SecretKeys
from extauth.rules.model import Domain, RuleSet, Tier

MAX_FILE_BYTES = 32 * 1024 * 1024


def load_rules(texts: Mapping[str, str], *, merge: bool = False) -> RuleSet:
    """Read config files, given as name → text; raises ConfigError with all problems of all files.

    With `merge`, several files may define one domain.
    """
    rules = load_valid_domains(texts, RuleSet(), merge=merge)
    if rules.problems:
        raise ConfigError(rules.problems)
    return rules


def load_valid_domains(
    texts: Mapping[str, str], old: RuleSet, unread: Iterable[Diagnostic] = (), *, merge: bool = False
) -> RuleSet:
    """As `load_rules`, but each domain by itself: one with a problem retains the rules that `old` has for it.

    `unread` are problems of files that could not even be read.
    """
    return combine([parse_file(file, text) for file, text in sorted(texts.items())], old, unread, merge=merge)


def combine(
    files: Iterable[ParsedFile],
    old: RuleSet,
    unread: Iterable[Diagnostic] = (),
    *,
    keep: Collection[str] = (),
    merge: bool = False,
) -> RuleSet:
    """The rules of what was parsed, each domain by itself, as `load_valid_domains` does.

    The domains to `keep` retain their rules, too, where nothing that was parsed defines them.
    """
    files = list(files)
    problems = list(unread)
    broken_files = {problem.place.file for problem in problems}
    broken: set[str] = set()
    by_domain: dict[str, list[ParsedFile]] = {}
    for parsed in files:
        if parsed.name is not None:
            by_domain.setdefault(parsed.name, []).append(parsed)
        if parsed.problems:
            problems += parsed.problems
            broken_files.add(parsed.file)
            if parsed.name is not None:
                broken.add(parsed.name)
    broken |= {name for name, domain in old.domains.items() if not broken_files.isdisjoint(domain.files)}
    domains: dict[str, Domain] = {}
    warnings = [warning for parsed in files for warning in parsed.warnings]
    for name, group in by_domain.items():
        clashes = _clashes(group, merge=merge)
        problems += clashes
        if clashes:
            broken.add(name)
        elif name not in broken:
            domains[name] = _merged([parsed.domain for parsed in group if parsed.domain is not None])
            warnings += _replaced_nothing(group)
    broken |= set(keep)
    retained = {name: domain for name, domain in old.domains.items() if name not in domains and name in broken}
    return RuleSet(
        domains | retained,
        warnings=tuple(warnings),
        problems=ConfigError(problems).problems,
        retained=frozenset(retained),
    )


def _clashes(files: list[ParsedFile], *, merge: bool) -> list[Diagnostic]:
    """The reasons why the files of one domain cannot be merged."""
    first, *others = files
    if others and not merge:
        message = f"domain {shown(first.name or '')!r} is already defined in {first.file}"
        hint = "merge the two files, or set EXTAUTH_MERGE_DOMAINS=true"
        return [Diagnostic.error(other.place, message, hint) for other in others]
    problems = []
    labels = {label for parsed in files if parsed.domain for label in parsed.domain.labels}
    tiers: dict[str, tuple[Tier, str]] = {}
    where: dict[tuple[object, ...], str] = {}
    for parsed in files:
        domain = parsed.domain
        if domain is None:
            continue
        problems += [
            Diagnostic.error(
                parsed.place,
                f"the tier {tier.name!r} differs from the one in {tiers[tier.name][1]}",
                "make them the same, or rename one",
            )
            for tier in domain.tiers
            if tiers.setdefault(tier.name, (tier, parsed.file))[0] != tier
        ]
        for rule in domain.rules:
            if rule.key in labels:
                message = f"{shown(rule.key)!r} is one of `labels`, so no rule of its own can apply"
                problems.append(Diagnostic.error(rule.place, message, "remove the rule, or the label"))
            for identity in identities(rule):
                file = where.setdefault(identity, parsed.file)
                if file != parsed.file:
                    message = f"the same descriptor is already defined in {file}"
                    problems.append(Diagnostic.error(rule.place, message, "keep one of the two"))
    return problems


def _merged(domains: list[Domain]) -> Domain:
    first, *others = domains
    if not others:
        return first
    tiers = {tier.name: tier for domain in domains for tier in domain.tiers}
    return replace(
        first,
        rules=tuple(rule for domain in domains for rule in domain.rules),
        tiers=tuple(tiers.values()),
        labels=tuple(dict.fromkeys(label for domain in domains for label in domain.labels)),
        files=tuple(file for domain in domains for file in domain.files),
        secret=reduce(SecretKeys.merged, (domain.secret for domain in domains)),
        together=any(domain.together for domain in domains),
        digest=" ".join(domain.digest for domain in domains),
    )


def _replaced_nothing(files: list[ParsedFile]) -> list[Diagnostic]:
    names = {name for parsed in files for name in parsed.names if name}
    warnings: list[Diagnostic] = []
    for parsed in files:
        for name, place in parsed.replaced:
            if name not in names:
                known = names if len(warnings) < MAX_PROBLEMS else ()
                near = nearest(name, known)
                hint = f"did you mean {near!r}?" if near else "remove it, or give a limit this name"
                what = f"is named{name_shown}" if (name_shown := quoted(name, known)) else "has this name"
                message = f"no limit {what}, so nothing is replaced"
                warnings.append(Diagnostic.warning(place, message, hint))
    return bounded(files[0].file, warnings, "warnings")
