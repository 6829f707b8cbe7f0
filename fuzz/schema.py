"""The messages of RateLimitService as protobuf's own reader sees them."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
from google.protobuf.message import Message

_Field = descriptor_pb2.FieldDescriptorProto


def _messages() -> dict[str, type[Message]]:
    """Messages with just the fields that are read.

    Strings are bytes here, as we take them: protobuf would refuse what is not UTF-8.
    """
    file = descriptor_pb2.FileDescriptorProto(name="fuzz.proto", package="fuzz", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)

    def add(name: str, *members: tuple[str, int, int, str, bool]) -> None:
        message = file.message_type.add(name=name)
        for member, number, kind, of, repeated in members:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            message.field.add(name=member, number=number, type=kind, label=label, type_name=of or None)

    text, whole, number = _Field.TYPE_BYTES, _Field.TYPE_UINT32, _Field.TYPE_INT32
    add("Entry", ("key", 1, text, "", False), ("value", 2, text, "", False))
    add("Override", ("requests_per_unit", 1, whole, "", False), ("unit", 2, number, "", False))
    add(
        "Descriptor",
        ("entries", 1, _Field.TYPE_MESSAGE, ".fuzz.Entry", True),
        ("limit", 2, _Field.TYPE_MESSAGE, ".fuzz.Override", False),
        ("hits_addend", 3, _Field.TYPE_MESSAGE, ".google.protobuf.UInt64Value", False),
        ("is_negative_hits", 4, _Field.TYPE_BOOL, "", False),
    )
    add(
        "Request",
        ("domain", 1, text, "", False),
        ("descriptors", 2, _Field.TYPE_MESSAGE, ".fuzz.Descriptor", True),
        ("hits_addend", 3, whole, "", False),
    )
    add("Status", ("code", 1, number, "", False))
    add(
        "Response",
        ("overall_code", 1, number, "", False),
        ("statuses", 2, _Field.TYPE_MESSAGE, ".fuzz.Status", True),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    named = file.message_type
    return {m.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"fuzz.{m.name}")) for m in named}


MESSAGES = _messages()
