"""The JSON Schema of config files, for editors."""

from typing import Any

from extauth.config.compile import TIER_NAME
from extauth.config.schema import DescriptorModel, FileModel, Model, RangeModel, RateLimitModel, ReplacesModel
from extauth.rules.model import Unit

_TEXT = ["string", "integer", "boolean"]  # whatever a plain scalar looks like, its text is what counts
_BOUNDS = {"ge": "minimum", "le": "maximum"}  # pydantic's words, which it leaves in


def file_schema() -> dict[str, Any]:
    """What pydantic derives from the models, so that it accepts the files that the loader accepts.

    It is a little stricter: flags are `true` or `false`, and keys that envoyproxy/ratelimit ignores are refused.
    """
    generated = FileModel.model_json_schema()
    inner: tuple[type[Model], ...] = (DescriptorModel, RateLimitModel, ReplacesModel, RangeModel)
    definitions = generated.pop("$defs")
    file = _mapping(generated, FileModel.never_empty)
    file["properties"]["tiers"]["propertyNames"] = {"pattern": f"^{TIER_NAME}$"}
    described = {_name(model.__name__): _mapping(definitions[model.__name__], model.never_empty) for model in inner}
    described["descriptor"]["properties"]["value_sha256"] |= {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
    for words in ("Algorithm", "OnStoreFailure"):
        definition = definitions[words]
        described[_name(words)] = {
            "description": definition["description"].partition("\n\n")[0],
            "enum": definition["enum"],
            "type": definition["type"],
        }
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "extauth's descriptor config"}
    return head | file | {"definitions": described}


def _name(model: str) -> str:
    names = {"DescriptorModel": "descriptor", "RateLimitModel": "rate_limit", "OnStoreFailure": "on_store_failure"}
    return names.get(model, model.removesuffix("Model").lower())


def _mapping(definition: dict[str, Any], never_empty: frozenset[str]) -> dict[str, Any]:
    required = definition.get("required", [])
    properties = {
        name: _property(name, field, required=name in required, empty=name not in {*required, *never_empty})
        for name, field in definition["properties"].items()
    }
    return {
        "description": definition["description"],
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": required} if required else {}),
    }


def _property(name: str, field: dict[str, Any], *, required: bool, empty: bool) -> dict[str, Any]:
    """A key's schema; one with nothing after it counts as absent, and so may be `empty`."""
    tidy = {"description": field["description"]}
    if field.get("default") not in (None, ""):
        tidy["default"] = field["default"]
    if name == "unit":
        return tidy | _unit()
    value = _value(next((each for each in field.get("anyOf", ()) if each.get("type") != "null"), field))
    if required and value.get("type") == _TEXT:
        value["minLength"] = 1
    if empty and "$ref" in value:
        value = {"anyOf": [value, {"type": "null"}]}
    elif empty:
        types = value["type"] if isinstance(value["type"], list) else [value["type"]]
        value["type"] = [*types, "null"]
    return tidy | value


def _value(field: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in field:
        return {"$ref": f"#/definitions/{_name(field['$ref'].rpartition('/')[2])}"}
    kept = {key: value for key, value in field.items() if key not in {"title", "description", "default", "anyOf"}}
    value = {_BOUNDS.get(key, key): value for key, value in kept.items()}
    if value == {"type": "string"}:
        value["type"] = _TEXT
    for key in ("items", "additionalProperties"):
        if isinstance(value.get(key), dict):
            value[key] = _value(value[key])
    return value


def _unit() -> dict[str, Any]:
    """A unit, in any case; editors offer the items of the enum."""
    units = list(map(str, Unit))
    anyhow = "|".join("".join(f"[{letter.upper()}{letter}]" for letter in unit) for unit in units)
    return {"anyOf": [{"enum": units}, {"type": "string", "pattern": f"^({anyhow})$"}, {"type": "null"}]}
