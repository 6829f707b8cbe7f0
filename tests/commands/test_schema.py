"""`extauth schema`, and the file of it that editors read."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from extauth.cli import app
from extauth.config.schema import DescriptorModel, FileModel, RateLimitModel
from extauth.rules.model import Algorithm, OnStoreFailure

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "extauth/rules/schema.json"
RUN = CliRunner()
SCHEMA: dict[str, Any] = json.loads(SHIPPED.read_text())
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}
KNOWN = {
    *("$schema", "title", "description", "default", "definitions", "$ref", "anyOf", "type", "enum", "const", "pattern"),
    *("minimum", "maximum", "minLength", "items", "properties", "required", "additionalProperties", "propertyNames"),
}


def fits(value: Any, schema: dict[str, Any]) -> bool:  # noqa: ANN401 - any JSON
    """Draft 7, as much of it as the schema uses."""
    assert schema.keys() <= KNOWN
    if "$ref" in schema:
        return fits(value, SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]])
    types = schema.get("type", list(TYPES))
    return (
        any(is_a(value, each) for each in (types if isinstance(types, list) else [types]))
        and ("anyOf" not in schema or any(fits(value, each) for each in schema["anyOf"]))
        and value in schema.get("enum", [value])
        and value == schema.get("const", value)
        and (not is_a(value, "string") or _text_fits(value, schema))
        and (not is_a(value, "integer") or schema.get("minimum", value) <= value <= schema.get("maximum", value))
        and (not is_a(value, "array") or all(fits(item, schema.get("items", {})) for item in value))
        and (not is_a(value, "object") or _mapping_fits(value, schema))
    )


def is_a(value: Any, name: str) -> bool:  # noqa: ANN401
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _text_fits(value: str, schema: dict[str, Any]) -> bool:
    return len(value) >= schema.get("minLength", 0) and bool(re.search(schema.get("pattern", ""), value))


def _mapping_fits(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    more = schema.get("additionalProperties", True)
    properties = schema.get("properties", {})
    return (
        value.keys() >= set(schema.get("required", ()))
        and all(fits(key, schema.get("propertyNames", {})) for key in value)
        and all(fits(item, properties[key]) for key, item in value.items() if key in properties)
        and all(
            more if isinstance(more, bool) else fits(item, more) for key, item in value.items() if key not in properties
        )
    )


def test_the_file_is_in_step() -> None:
    """Where it is not: extauth schema > extauth/rules/schema.json."""
    result = RUN.invoke(app, ["schema"])
    assert (result.exit_code, result.stdout) == (0, SHIPPED.read_text())
    line = RUN.invoke(app, ["schema", "--json"]).stdout
    assert (json.loads(line), line.count("\n")) == (SCHEMA, 1)


def test_it_knows_the_grammar() -> None:
    definitions = SCHEMA["definitions"]
    for mapping, model in (
        (SCHEMA, FileModel),
        (definitions["descriptor"], DescriptorModel),
        (definitions["rate_limit"], RateLimitModel),
    ):
        assert set(mapping["properties"]) == set(model.model_fields)
        assert mapping["additionalProperties"] is False
        assert all(field["description"] for field in mapping["properties"].values())
    assert definitions["algorithm"]["enum"] == list(Algorithm)
    assert definitions["on_store_failure"]["enum"] == list(OnStoreFailure)


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "envoy/descriptors/api.yaml").read_text(),
        (ROOT / "examples/usage/descriptors.yaml").read_text(),
        "domain: 7\nalgorithm:\ntiers:\ndescriptors:",
        "domain: d\ndescriptors: [{key: 1, value: 2}, {key: k, value: on}, {key: k, value: , rate_limit: }]",
        "domain: d\ndescriptors: [{key: k, values: [a, 1], rate_limit: {unit: MiNuTe, requests_per_unit: 4294967295}}]",
        "domain: d\ndescriptors: [{key: k, rate_limit: {unlimited: true, replaces: [{name: a}]}, metadata: {a: 1.5}}]",
        "domain: d\non_store_failure: local\ntiers: {a: {unit: day, on_store_failure: deny}, b: {on_store_failure: }}",
        "domain: d\ndescriptors: [{key: k, value_range: {start: -1, end: 5}, rate_limits: [{unit: day, burst: 1}]}]",
    ],
)
def test_what_the_loader_takes(text: str) -> None:
    assert fits(yaml.safe_load(text), SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "descriptors: []",
        "domain: ''",
        "domain: d\nlabels: [tier]",
        "domain: d\nkee: 1",
        "domain: d\nalgorithm: leaky",
        "domain: d\non_store_failure: fail_open",
        "domain: d\ntiers: {a: {unit: day, on_store_failure: true}}",
        "domain: d\ntiers: {a b: {unit: day}}",
        "domain: d\ntiers: {a: {unit: day, requests: 1}}",
        "domain: d\ndescriptors: {key: k}",
        "domain: d\ndescriptors: [{value: k}]",
        "domain: d\ndescriptors: [{key: k, value: 1.5}]",
        "domain: d\ndescriptors: [{key: k, tier: }]",
        "domain: d\ndescriptors: [{key: k, value_sha256: abc}]",
        "domain: d\ndescriptors: [{key: k, shadow_mode: 'yes'}]",
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: fortnight}}]",
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: -1}}]",
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 4294967296}}]",
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, unit_multiplier: 0}}]",
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, replaces: [{name: }]}}]",
    ],
)
def test_what_it_refuses(text: str) -> None:
    assert not fits(yaml.safe_load(text), SCHEMA)


def test_the_shipped_config_names_it() -> None:
    config = ROOT / "envoy/descriptors/api.yaml"
    (path,) = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", config.read_text(), re.MULTILINE)
    assert (config.parent / path).resolve() == SHIPPED
