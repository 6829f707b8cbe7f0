"""From a checked config to rules: checks what no schema can express."""

import re
from typing import NamedTuple

from extauth.config.diagnostics import MAX_PROBLEMS, Diagnostics, Locate, quoted, shown
from extauth.config.known_keys import Location
from extauth.config.schema import DescriptorModel, FileModel, RateLimitModel
from extauth.errors import NOWHERE, ConfigError, Place, nearest
from extauth.rules.masking import SecretKeys
from extauth.rules.model import CARRIED, Algorithm, Domain, Kind, Limit, Rule, Tier, Unit
from extauth.rules.patterns import RegexError, compile_regex

_UNIT_WORDS = (*(str(unit) for unit in Unit), "unknown")  # the last is Envoy's own
MAX_YEARS = 100
TIER_NAME = r"[A-Za-z0-9_.-]{1,64}"
MAX_PERIOD_US = MAX_YEARS * Unit.YEAR.seconds * 1_000_000  # microseconds since the epoch stay exact in a double


def nowhere(location: Location, *, at_key: bool = False) -> Place:
    """The place of everything in a config that came from no file."""
    return NOWHERE


def compile_domain(model: FileModel, locate: Locate = nowhere) -> Domain:
    """The rules of a config, whatever it was read from; raises ConfigError with all problems.

    `locate` finds the place of a part of it, for messages and for the rules themselves.
    """
    found = Diagnostics(locate)
    domain = Compiler(model, found).domain()
    if found.problems:
        raise ConfigError(found.problems)
    return domain


class ReplacedName(NamedTuple):
    """The name of a limit that another one replaces, and where it does so."""

    name: str
    place: Place


class Compiler:
    """Compiles one config; what is wrong goes to `found`.

    With `some_tiers_unknown`, tiers are missing because they were refused, so that unknown ones are not reported.
    `names` are those of the limits, and `replaced` those that limits replace, once `domain` was called.
    """

    def __init__(
        self, model: FileModel, found: Diagnostics, *, digest: str = "", some_tiers_unknown: bool = False
    ) -> None:
        self.names: set[str] = set()
        self.replaced: list[ReplacedName] = []
        self._model = model
        self._found = found
        self._digest = digest
        self._some_tiers_unknown = some_tiers_unknown
        self._tiers: dict[str, Tier] = {}

    def domain(self) -> Domain:
        """The rules; they make sense only if no problem was found."""
        model = self._model
        for name, tier in model.tiers.items():
            at: Location = ("tiers", name)
            if not re.fullmatch(TIER_NAME, name):
                message = "this cannot be a tier's name, because the name appears in headers"
                self._found.error(at, message, "use up to 64 of A-Z a-z 0-9 _ . -", at_key=True)
            if tier.name:
                self._found.error((*at, "name"), "a tier's name is its key", "remove `name`", at_key=True)
            self._tiers[name] = Tier(name, self._limit(tier, at, name))
        return Domain(
            model.domain,
            rules=self._rules(model.descriptors, ("descriptors",)),
            tiers=tuple(self._tiers.values()),
            labels=tuple(model.labels),
            files=(self._found.locate(()).file,),
            algorithm=model.algorithm,
            count_denied=self._count_denied(model.algorithm, None),
            on_store_failure=model.on_store_failure,
            secret=SecretKeys(frozenset(model.secret or ()), by_name=model.secret != []),
            together=model.together,
            digest=self._digest,
        )

    def _rules(self, descriptors: list[DescriptorModel], at: Location) -> tuple[Rule, ...]:
        first: dict[tuple[object, ...], int] = {}
        rules: list[Rule] = []
        for i, descriptor in enumerate(descriptors):
            rule = self._rule(descriptor, (*at, i))
            entries = identities(rule)
            for entry in entries:
                if entry in first:
                    what = "key and value" if rule.kind is not Kind.ANY else "key"
                    line = rules[first[entry]].place.line
                    where = f"on line {line}" if line else f"as {at[-1]}[{first[entry]}]"
                    message = f"a descriptor with this {what} is already defined {where}"
                    self._found.error((*at, i), message, "keep one of the two")
                    break
            for entry in entries:
                first.setdefault(entry, i)
            rules.append(rule)
        return tuple(rules)

    def _rule(self, model: DescriptorModel, at: Location) -> Rule:
        kind, value, values = self._match(model, at)
        limits = self._limits(model, at)
        if model.share_threshold and kind is not Kind.WILDCARD:
            message = "share_threshold needs a value with a wildcard, such as `value: api/*`"
            self._found.error((*at, "share_threshold"), message, "add one, or remove share_threshold", at_key=True)
        if not limits:
            for flag in ("shadow_mode", "quota_mode", "detailed_metric"):
                if getattr(model, flag):
                    self._found.warn((*at, flag), f"{flag} has no effect without a limit", "remove it", at_key=True)
        return Rule(
            model.key,
            value=value,
            kind=kind,
            values=values,
            limits=limits,
            tier=model.tier or None,
            rules=self._rules(model.descriptors, (*at, "descriptors")) if model.descriptors else (),
            place=self._found.locate(at),
            **{key: carried for key in CARRIED if (carried := getattr(model, key))},
        )

    def _match(
        self, model: DescriptorModel, at: Location
    ) -> tuple[Kind, str | None, tuple[str, ...] | tuple[int, int]]:
        given = [
            key
            for key in ("value", "values", "value_sha256", "value_regex", "value_range", "value_cidr")
            if getattr(model, key)
        ]
        if len(given) > 1:
            self._found.error(
                (*at, given[1]), f"a descriptor has {given[0]} or {given[1]}, not both", "remove one", at_key=True
            )
        if "*" in model.key and given and given[0] != "value":
            self._found.error(
                (*at, given[0]), f"a key with a * takes no {given[0]}", "name the key, or use `value`", at_key=True
            )
        if model.value or (not given and "*" in model.key):
            wild = "*" in model.key + model.value
            return Kind.WILDCARD if wild else Kind.VALUE, model.value or None, ()
        if model.values is not None:
            return Kind.VALUES, None, self._several(model.values, (*at, "values"), "value")
        if model.value_cidr is not None:
            return Kind.CIDR, None, self._several(model.value_cidr, (*at, "value_cidr"), "network")
        return self._pattern(model, at)

    def _several(self, values: list[str], at: Location, what: str) -> tuple[str, ...]:
        if not values:
            self._found.error(at, f"{at[-1]!r} must not be empty", f"name a {what}")
        if len(set(values)) < len(values):
            self._found.error(at, f"{at[-1]!r} names a {what} twice", "keep one of the two")
        return tuple(values)

    def _pattern(self, model: DescriptorModel, at: Location) -> tuple[Kind, str | None, tuple[int, int] | tuple[()]]:
        if model.value_sha256 is not None:
            return Kind.SHA256, model.value_sha256, ()
        if model.value_regex is not None:
            self._check_regex(model.value_regex, (*at, "value_regex"))
            return Kind.REGEX, model.value_regex, ()
        if model.value_range is not None:
            start, end = model.value_range.start, model.value_range.end
            if start >= end:
                self._found.error(
                    (*at, "value_range"), "no number is at least 'start' and less than 'end'", "raise `end`"
                )
            return Kind.RANGE, None, (start, end)
        return Kind.ANY, None, ()

    def _check_regex(self, regex: str, at: Location) -> None:
        try:
            compile_regex(regex)
        except RegexError as error:
            self._found.error(at, f"not an RE2 regex: {error}", "RE2 has no look-around and no back-references")

    def _limits(self, model: DescriptorModel, at: Location) -> tuple[Limit, ...]:
        given = [key for key in ("rate_limit", "rate_limits", "tier") if getattr(model, key)]
        if len(given) > 1:
            self._found.error(
                (*at, given[1]), f"a descriptor has {given[0]} or {given[1]}, not both", "remove one", at_key=True
            )
        if model.tier:
            return self._tier_limits(model.tier, (*at, "tier"))
        if model.rate_limits is not None:
            if not model.rate_limits:
                self._found.error(
                    (*at, "rate_limits"), "'rate_limits' must not be empty", "add a limit, or use `rate_limit`"
                )
            here = (*at, "rate_limits")
            limits = tuple(self._limit(limit, (*here, i), limit.name) for i, limit in enumerate(model.rate_limits))
            for i, limit in enumerate(limits):
                if limit.unlimited:
                    self._found.error((*here, i), "one of several limits cannot be unlimited", "remove it")
            return limits
        return (
            ()
            if model.rate_limit is None
            else (self._limit(model.rate_limit, (*at, "rate_limit"), model.rate_limit.name),)
        )

    def _tier_limits(self, name: str, at: Location) -> tuple[Limit, ...]:
        if name in self._tiers:
            return (self._tiers[name].limit,)
        if self._some_tiers_unknown:
            return ()
        few = len(self._found.problems) < MAX_PROBLEMS
        near = nearest(name, self._tiers) if few else ""
        hint = f"did you mean {near!r}?" if near else self._tiers_there_are() if few else ""
        self._found.error(at, f"unknown tier{quoted(name, self._tiers if few else ())}", hint)
        return ()

    def _tiers_there_are(self) -> str:
        names = ", ".join(name for name in self._tiers if re.fullmatch(TIER_NAME, name))
        return f"the tiers are {shown(names)}" if names else "no tier is defined"

    def _limit(self, model: RateLimitModel, at: Location, name: str) -> Limit:
        self.names.add(name)
        for i, replaced in enumerate(model.replaces):
            self.replaced.append(ReplacedName(replaced.name, self._found.locate((*at, "replaces", i, "name"))))
            if replaced.name == name:
                self._found.error((*at, "replaces", i), "this limit replaces itself", "remove this item")
        replaces = tuple(replaced.name for replaced in model.replaces)
        unit = Unit.__members__.get(model.unit.upper())
        if model.unlimited:
            return self._unlimited(model, unit, at, Limit(0, Unit.SECOND, name=name, replaces=replaces, unlimited=True))
        if unit is None:
            if "unit" in model.model_fields_set:
                hint = "write one of " + ", ".join(map(str, Unit))
                self._found.error((*at, "unit"), f"invalid unit{quoted(model.unit.lower(), _UNIT_WORDS)}", hint)
            else:
                self._found.error(at, "'unit' is missing", "add unit: …")
            unit = Unit.SECOND
        if "requests_per_unit" not in model.model_fields_set:
            self._found.warn(at, "'requests_per_unit' is missing, so everything is denied", "add requests_per_unit: …")
        algorithm = model.algorithm or self._model.algorithm
        if model.burst is not None and "burst" not in algorithm.own_keys:
            self._found.error(
                (*at, "burst"), f"burst is for gcra, and this limit is a {algorithm}", "remove it", at_key=True
            )
        if model.burst and model.requests_per_unit and "burst" in algorithm.own_keys:
            years = model.burst * unit.seconds * model.unit_multiplier / model.requests_per_unit / Unit.YEAR.seconds
            if years > MAX_YEARS:
                self._found.error(
                    (*at, "burst"), f"a bucket that refills in more than {MAX_YEARS} years", "lower burst"
                )
        if unit.seconds * model.unit_multiplier * 1_000_000 > MAX_PERIOD_US:
            self._found.error(
                (*at, "unit_multiplier"), f"the window is longer than {MAX_YEARS} years", "lower unit_multiplier"
            )
            return Limit(0, unit)
        return Limit(
            model.requests_per_unit,
            unit,
            algorithm,
            count_denied=self._count_denied(algorithm, model.count_denied),
            name=name,
            replaces=replaces,
            unit_multiplier=model.unit_multiplier,
            burst=model.burst,
            on_store_failure=model.on_store_failure or self._model.on_store_failure,
        )

    def _unlimited(self, model: RateLimitModel, unit: Unit | None, at: Location, limit: Limit) -> Limit:
        if unit is not None:
            self._found.error(
                (*at, "unit"), "an unlimited limit has no unit", "remove `unit`, or `unlimited`", at_key=True
            )
        for key in ("unit_multiplier", "algorithm", "burst", "count_denied", "on_store_failure"):
            if key in model.model_fields_set:
                self._found.error((*at, key), f"an unlimited limit has no {key}", "remove it", at_key=True)
        return limit

    def _count_denied(self, algorithm: Algorithm, own: bool | None) -> bool:
        default = self._model.count_denied
        return own if own is not None else default if default is not None else algorithm.counts_denied


def identities(rule: Rule) -> list[tuple[object, ...]]:
    """What no other rule of the same level may have in common with this one."""
    if rule.kind is Kind.VALUES:
        return [(rule.key, Kind.VALUE, value) for value in rule.values]
    if rule.kind is Kind.CIDR:
        return [(rule.key, Kind.CIDR, network) for network in rule.values]
    return [(rule.key, rule.kind, rule.value, rule.values)] if rule.values else [(rule.key, rule.kind, rule.value)]
