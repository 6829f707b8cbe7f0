"""One `ratelimit.config.ratelimit.v3.RateLimitConfig` of an xDS server: from its bytes to a Domain, or to its problems.

Its fields mean what the keys of a YAML file do. What is harmless in generated rules, such as shadow_mode where there is
no limit, is no warning here.
"""

from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from extauth.config.compile import Compiler
from extauth.config.diagnostics import Diagnostics, bounded, shown
from extauth.config.known_keys import Location
from extauth.config.parse import ParsedFile
from extauth.config.schema import DescriptorModel, FileModel, RateLimitModel, ReplacesModel
from extauth.config.sources.config_message import MAX_DESCRIPTORS, Config, ConfigDecoder, Descriptor, Policy
from extauth.config.sources.discovery import TYPE, Resource
from extauth.config.sources.plain_rules import UNITS, NotPlainError, PlainRules
from extauth.errors import Diagnostic, InvalidRequestError, Place
from extauth.rules.masking import NAMED_SO, SecretKeys
from extauth.rules.model import Domain

_FIX = "see what the control plane sends for this resource"


def parse_resource(resource: Resource, secret: SecretKeys = NAMED_SO) -> ParsedFile:
    """Read a resource. Of one that cannot be decoded, or names no domain, the `name` is None.

    A resource has no field for what is `secret`.
    """
    if resource.type_url != TYPE:
        message = f"the resource cannot be decoded: its type is {shown(resource.type_url)!r} instead of {TYPE!r}"
        return _undecoded("", message)
    decoder = ConfigDecoder(resource.value)
    try:
        config = decoder.config()
        if not config.domain:
            return _undecoded(config.name, "the resource names no domain")
        parsed = _parsed(config, sha256(resource.value).hexdigest(), decoder.parts)
    except InvalidRequestError as error:
        return _undecoded(decoder.name, f"the resource cannot be decoded: {error}")
    except UnicodeDecodeError:
        return _undecoded(decoder.name, "the resource cannot be decoded: a text in it is not UTF-8")
    except Exception as error:  # noqa: BLE001 - a reader's fault must not keep the other resources from being read
        return _undecoded(
            decoder.name, f"the resource cannot be read, by a fault of the reader: {type(error).__name__}"
        )
    if parsed.domain is not None:
        parsed.domain = replace(parsed.domain, secret=secret)
    return parsed


def _parsed(config: Config, digest: str, parts: int) -> ParsedFile:
    file = file_of(config.name or config.domain)
    place = Place(file)
    plain = PlainRules(place)
    try:
        domain = Domain(config.domain, rules=plain.rules(config.descriptors), files=(file,), digest=digest)
    except NotPlainError:
        return _compiled(config, digest, place, parts)
    return ParsedFile(file, place, config.domain, domain, names=plain.names, replaced=plain.replaced, parts=parts)


def _compiled(config: Config, digest: str, place: Place, parts: int) -> ParsedFile:
    """The same by the schema of files, with the problems that it finds."""
    found = _Diagnostics(place)
    model = FileModel.model_construct(domain=config.domain, descriptors=list(map(_model, config.descriptors)))
    _check_names(model.descriptors, ("descriptors",), found)
    compiler = Compiler(model, found, digest=digest)
    domain = compiler.domain()
    parsed = ParsedFile(place.file, place, config.domain, names=compiler.names, replaced=compiler.replaced, parts=parts)
    parsed.problems = bounded(place.file, found.problems, "problems")
    parsed.domain = None if parsed.problems else domain
    return parsed


def _model(descriptor: Descriptor) -> DescriptorModel:
    key, value, policy, inner, shadow_mode, detailed_metric, quota_mode, metadata = descriptor
    return DescriptorModel.model_construct(
        key=key,
        value=value,
        rate_limit=None if policy is None else _limit_model(policy),
        descriptors=list(map(_model, inner)),
        shadow_mode=shadow_mode,
        detailed_metric=detailed_metric,
        quota_mode=quota_mode,
        metadata=metadata,
    )


def _limit_model(policy: Policy) -> RateLimitModel:
    given: dict[str, Any] = {"unit": str(UNITS.get(policy.unit, policy.unit))} if policy.unit else {}
    return RateLimitModel.model_construct(
        requests_per_unit=policy.requests_per_unit,  # 0 denies everything; it cannot be told from an absent one
        unlimited=policy.unlimited,
        name=policy.name,
        replaces=[ReplacesModel.model_construct(name=name) for name in policy.replaces],
        **given,
    )


TOO_MANY: Final = Diagnostic.error(
    Place("xds:"),
    f"all resources together have more than {MAX_DESCRIPTORS} descriptors, limits that they replace, and values of "
    "metadata, so no rules are changed",
    "have the control plane send fewer",
)


def file_of(name: str) -> str:
    """What messages and views have in place of a file's name."""
    return f"xds:{shown(name) or '(unnamed)'}"


def _undecoded(name: str, message: str) -> ParsedFile:
    file = file_of(name)
    return ParsedFile(file, Place(file), problems=[Diagnostic.error(Place(file), message, _FIX)])


def _check_names(descriptors: list[DescriptorModel], at: Location, found: Diagnostics) -> None:
    """Check what the schema of files requires of names."""
    for i, descriptor in enumerate(descriptors):
        here = (*at, i)
        if not descriptor.key:
            found.error((*here, "key"), "must not be empty", "name the key of the entry that it matches")
        if descriptor.rate_limit is not None:
            for j, replaced in enumerate(descriptor.rate_limit.replaces):
                if not replaced.name:
                    found.error((*here, "rate_limit", "replaces", j, "name"), "must not be empty", "name a limit")
        if descriptor.descriptors:
            _check_names(descriptor.descriptors, (*here, "descriptors"), found)


class _Diagnostics(Diagnostics):
    """The problems of a resource, each with the path to where it is; `place` is that of all rules."""

    def __init__(self, place: Place) -> None:
        super().__init__(self._whole)
        self._place = place

    def _whole(self, location: Location, *, at_key: bool = False) -> Place:
        return self._place

    def error(self, location: Location, message: str, hint: str = "", *, at_key: bool = False) -> None:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")
        place = Place(f"{self._place.file}#{path}") if path else self._place
        self.problems.append(Diagnostic.error(place, message, hint))

    def warn(self, location: Location, message: str, hint: str = "", *, at_key: bool = False) -> None:
        pass
