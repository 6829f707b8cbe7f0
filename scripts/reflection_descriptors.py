# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "grpcio-health-checking==1.85.1",
#   "grpcio-reflection==1.85.1",
#   "protobuf==7.36.2",
#   "xds-protos==1.85.0",
# ]
# ///
"""Write extauth/transport/descriptors.binpb, the FileDescriptorSet that gRPC reflection serves: `./dev descriptors`.

It runs in an environment of its own, since xds-protos brings packages that others in .venv have as well.
"""

from pathlib import Path

from envoy.service.ratelimit.v3 import rls_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]

TARGET = Path(__file__).resolve().parents[1] / "extauth/transport/descriptors.binpb"


def described(file: FileDescriptor) -> FileDescriptorProto:
    """The descriptor of a file; the Python packages of gRPC move theirs to grpc_health/ and grpc_reflection/."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    proto.name = proto.name.replace("grpc_health/", "grpc/health/").replace("grpc_reflection/", "grpc/reflection/")
    for message in proto.message_type:
        name_in_json(message)
    return proto


def name_in_json(message: DescriptorProto) -> None:
    """Give the fields the names that protoc writes for them, and Python leaves out: clients print those."""
    for field in message.field:
        first, *others = field.name.split("_")
        field.json_name = field.json_name or first + "".join(word[:1].upper() + word[1:] for word in others)
    for nested in message.nested_type:
        name_in_json(nested)


def with_imports(file: FileDescriptor, found: dict[str, FileDescriptorProto]) -> None:
    """Add a file to `found`, after those that it imports."""
    if file.name not in found:
        for imported in file.dependencies:
            with_imports(imported, found)
        found[file.name] = described(file)


def version_1(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """Reflection's v1, which differs from v1alpha by its package alone."""
    data = alpha.SerializeToString(deterministic=True)
    proto = FileDescriptorProto.FromString(data)
    proto.name = proto.name.replace("v1alpha", "v1")
    proto.package = proto.package.replace("v1alpha", "v1")
    proto.ClearField("options")
    for message in proto.message_type:
        for field in (each for each in message.field if each.HasField("type_name")):
            field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
    for method in proto.service[0].method:
        method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
        method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
    return proto


def main() -> None:
    """Write the file."""
    found: dict[str, FileDescriptorProto] = {}
    for module in (rls_pb2, health_pb2, reflection_pb2):
        with_imports(module.DESCRIPTOR, found)
    alpha = described(reflection_pb2.DESCRIPTOR)
    files = FileDescriptorSet(file=[*found.values(), version_1(alpha)])
    TARGET.write_bytes(files.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
