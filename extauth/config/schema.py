"""The schema of a config: which keys a file, a descriptor and a limit may have, and the type of each value.

The models take plain data, whatever it was read from. `known_keys.py` helps with keys that they do not have.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from extauth.config.field_types import (
    AlgorithmName,
    Count,
    Digest,
    Flag,
    Label,
    Metadata,
    Multiplier,
    Name,
    NetworkText,
    PolicyName,
    Positive,
    Text,
    Whole,
)
from extauth.rules.model import Algorithm

# envoyproxy/ratelimit checks keys against one list, wherever they stand, and ignores those that mean nothing there.
REFERENCE_KEYS = frozenset(
    [
        "domain",
        "key",
        "value",
        "descriptors",
        "rate_limit",
        "unit",
        "requests_per_unit",
        "unlimited",
        "shadow_mode",
        "quota_mode",
        "name",
        "replaces",
        "detailed_metric",
        "value_to_metric",
        "share_threshold",
        "metadata",
    ]
)


class Model(BaseModel):
    """A mapping. A key with nothing after it counts as absent, unless it is one of `never_empty`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    never_empty: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:  # noqa: ANN401 - any data
        if isinstance(data, dict) and None in data.values():
            return {
                key: "" if value is None and key in cls.never_empty else value
                for key, value in data.items()
                if value is not None or key in cls.never_empty or key not in cls.model_fields
            }
        return data


class ReplacesModel(Model):
    """`{name: NAME}`: a limit by that name does not apply where this one does."""

    never_empty = frozenset({"name"})

    name: Name = Field(description="The name of a limit or tier.")


class RateLimitModel(Model):
    """A limit: `rate_limit`, an item of `rate_limits`, or one of `tiers`."""

    unit: Text = Field("", description="second, minute, hour, day, week, month (30 days) or year (365 days).")
    requests_per_unit: Count = Field(0, description="How many requests a unit; 0 denies all.")
    unlimited: Flag = Field(False, description="Count nothing and admit all; takes no unit.")
    name: Text = Field("", description="The name by which another limit's `replaces` refers to this one.")
    replaces: list[ReplacesModel] = Field(
        default_factory=list, description="Limits that do not apply to a request to which this one does."
    )
    unit_multiplier: Multiplier = Field(1, description="The number of units that a window lasts.")
    algorithm: AlgorithmName | None = Field(None, description="How to count; by default the file's.")
    burst: Positive | None = Field(
        None, description="gcra: how many requests at one instant after a rest; by default requests_per_unit."
    )
    count_denied: Flag | None = Field(
        None, description="Whether hits count even when the request is denied; by default only in fixed windows."
    )
    on_store_failure: PolicyName | None = Field(
        None, description="What a call gets when the store does not answer; by default the file's policy."
    )


class RangeModel(Model):
    """Whole numbers from `start` to before `end`, as Envoy's Int64Range."""

    start: Whole = Field(description="The first number that matches.")
    end: Whole = Field(description="The first number that matches no more.")


class DescriptorModel(Model):
    """A descriptor: what it matches, its limits or tier, and the descriptors under it."""

    never_empty = frozenset(
        {"tier", "value_sha256", "value_regex", "value_range", "value_cidr", "values"}
    )  # which would match all

    key: Name = Field(description="The entry's key.")
    value: Text = Field(
        "", description="The entry's value, in which each * stands for any text; without one, any value."
    )
    values: list[Name] | None = Field(None, description="The entry's value is one of these.")
    value_sha256: Digest | None = Field(None, description="The SHA-256 of the entry's value: `extauth hash` prints it.")
    value_regex: Name | None = Field(None, description="An RE2 regex that the whole of the entry's value matches.")
    value_range: RangeModel | None = Field(None, description="The entry's value is a whole number in this range.")
    value_cidr: list[NetworkText] | None = Field(
        None, description="The entry's value is an IP address, or a network, in one of these; the longest prefix wins."
    )
    rate_limit: RateLimitModel | None = Field(None, description="The limit.")
    rate_limits: list[RateLimitModel] | None = Field(None, description="Several limits, which must all admit.")
    tier: Name = Field("", description="The name of one of the file's tiers, whose limit applies.")
    descriptors: list["DescriptorModel"] = Field(default_factory=list, description="What the next entry may match.")
    shadow_mode: Flag = Field(False, description="Count and report, and never deny.")
    quota_mode: Flag = Field(False, description="Deny only where all quotas that apply are used up.")
    share_threshold: Flag = Field(False, description="All values that match the wildcard share one counter.")
    detailed_metric: Flag = Field(False, description="The metric names all entries with their values.")
    value_to_metric: Flag = Field(False, description="The metric names the entry's value.")
    metadata: Metadata | None = Field(None, description="Goes into the answer's dynamic metadata.")


class FileModel(Model):
    """A config file of extauth: a superset of envoyproxy/ratelimit's."""

    domain: Name = Field(description="Which requests the rules are for: the rate-limit filter's `domain`.")
    algorithm: AlgorithmName = Field(Algorithm.FIXED_WINDOW, description="How limits count, where they do not say.")
    count_denied: Flag | None = Field(None, description="The default of limits that do not say.")
    on_store_failure: PolicyName | None = Field(
        None,
        description="The default of limits without a policy of their own; without one, the service's setting applies.",
    )
    labels: list[Label] = Field(
        default_factory=list, description="Keys whose descriptors limit nothing: their values label the metrics."
    )
    secret: list[Name] | None = Field(
        None,
        description="Keys whose values are shown only masked, besides those whose names look so; `[]`: no key's are.",
    )
    together: Flag = Field(
        False, description="Keep all counters of a request on one shard: that of the request's first descriptor."
    )
    tiers: dict[Name, RateLimitModel] = Field(default_factory=dict, description="Named limits, by name.")
    descriptors: list[DescriptorModel] = Field(default_factory=list, description="The rules.")
