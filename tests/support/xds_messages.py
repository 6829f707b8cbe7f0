"""xDS's messages of rules as protobuf's own library writes and reads them."""

from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.json_format import ParseDict

TYPE = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"
UNITS = ("UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "WEEK")

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    "uint32": _Field.TYPE_UINT32,
    "int32": _Field.TYPE_INT32,
    "Unit": _Field.TYPE_ENUM,
}
# Name: its fields in the order of their numbers, `-` for one that is not there, `*` after one that is repeated.
_MESSAGES = {
    "RateLimitConfig": "name:string domain:string descriptors:RateLimitDescriptor*",
    "RateLimitDescriptor": "key:string value:string rate_limit:RateLimitPolicy descriptors:RateLimitDescriptor* "
    "shadow_mode:bool detailed_metric:bool quota_mode:bool metadata:google.protobuf.Struct",
    "RateLimitPolicy": "unit:Unit requests_per_unit:uint32 unlimited:bool name:string replaces:RateLimitReplace*",
    "RateLimitReplace": "name:string",
    "Node": "id:string - metadata:google.protobuf.Struct",
    "Status": "code:int32 message:string",
    "DiscoveryRequest": "version_info:string node:Node resource_names:string* type_url:string response_nonce:string "
    "error_detail:Status",
    "DiscoveryResponse": "version_info:string resources:google.protobuf.Any* - type_url:string nonce:string",
}


def _schema() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="xds.proto", package="xds", syntax="proto3")
    file.dependency.extend(known.DESCRIPTOR.name for known in (any_pb2, struct_pb2))
    unit = file.enum_type.add(name="Unit")
    for number, name in enumerate(UNITS):
        unit.value.add(name=name, number=number)
    for name, members in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, member in enumerate(members.split(), 1):
            if member == "-":
                continue
            field, _, kind = member.partition(":")
            of = kind.rstrip("*")
            own = None if of in _TYPES and of != "Unit" else f".{of}" if "." in of else f".xds.{of}"
            label = _Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL
            kind_of = _TYPES.get(of, _Field.TYPE_MESSAGE)
            message.field.add(name=field, number=number, type=kind_of, label=label, type_name=own)
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, struct_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"xds.{name}")) for name in _MESSAGES}


_SCHEMA = _schema()


def config(data: dict[str, Any]) -> bytes:
    """A RateLimitConfig of data as a file has it, without what only files have; its name is the domain's."""
    message = ParseDict({"name": data.get("domain", ""), **in_capitals(data)}, _SCHEMA["RateLimitConfig"]())
    return bytes(message.SerializeToString(deterministic=True))


def in_capitals(data: Any) -> Any:  # noqa: ANN401 - any JSON
    """Data of a file with its units as the messages name them."""
    if isinstance(data, list):
        return [in_capitals(item) for item in data]
    if isinstance(data, dict):
        return {
            key: value.upper() if key == "unit" else value if key == "metadata" else in_capitals(value)
            for key, value in data.items()
        }
    return data


def response(version: str, *resources: bytes, nonce: str = "", type_url: str = TYPE) -> bytes:
    """A DiscoveryResponse."""
    anys = [any_pb2.Any(type_url=type_url, value=value) for value in resources]
    message = _SCHEMA["DiscoveryResponse"](version_info=version, nonce=nonce or f"n{version}", type_url=TYPE)
    for each in anys:
        message.resources.add(type_url=each.type_url, value=each.value)
    return bytes(message.SerializeToString())


def request(message: bytes) -> Any:  # noqa: ANN401 - a message of a class that is made here
    """A DiscoveryRequest."""
    return _SCHEMA["DiscoveryRequest"].FromString(message)
