"""GRPC reflection, on each engine: what it lists and describes, and what bounds it."""

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extauth.errors import InvalidRequestError
from extauth.rls.protobuf import bytes_field, fields, number_field
from extauth.rls.request import SERVICE
from extauth.transport.descriptors import descriptors
from extauth.transport.reflection import ANSWERS_PER_S, MAX_REQUEST_BYTES, SERVICES, respond
from tests.support.codes import OK
from tests.transport.engines import ENGINES, Engine, call

LIST = bytes_field(7, b"*")
BURST = ANSWERS_PER_S * 10
LISTED = [SERVICE, "grpc.health.v1.Health", *SERVICES]
Stream = grpc.aio.StreamStreamCall[bytes, bytes]


def by_file(name: str) -> bytes:
    return bytes_field(3, name.encode())


def by_symbol(name: str) -> bytes:
    return bytes_field(4, name.encode())


def by_extension(message: str, number: int) -> bytes:
    return bytes_field(5, bytes_field(1, message.encode()) + number_field(2, number))


def numbers_of(message: str) -> bytes:
    return bytes_field(6, message.encode())


def stream(engine: Engine, requests: AsyncIterator[bytes] | None = None, service: str = SERVICES[0]) -> Stream:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = engine.channel.stream_stream(
        f"/{service}/ServerReflectionInfo"
    )
    return method(requests, timeout=30)


async def ask(engine: Engine, *requests: bytes, service: str = SERVICES[0]) -> list[Any]:
    """One call with these requests, all sent at once; its answers as messages."""

    async def sent() -> AsyncIterator[bytes]:
        for request in requests:
            yield request

    return [response(answer) async for answer in stream(engine, sent(), service)]


async def failure(engine: Engine, *requests: bytes) -> tuple[grpc.StatusCode, int]:
    """The status of a call that sends each request after the answer to the one before, and how many it got."""
    asked, answers = stream(engine), 0
    with suppress(grpc.aio.AioRpcError):
        for request in requests:
            await asked.write(request)
            await asked.read()
            answers += 1
    return await asked.code(), answers


def pool_of(files: list[bytes]) -> descriptor_pool.DescriptorPool:
    """A pool that holds these files, each after those that it imports, as protobuf's own library demands."""
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file)
    return pool


def all_files() -> list[bytes]:
    services = (descriptors().file_of(name) for name in descriptors().services)
    found = {value: None for each in services if each for _, value in fields(each) if isinstance(value, bytes)}
    return list(found)


POOL = pool_of(all_files())


def response(answer: bytes) -> Any:  # noqa: ANN401 - its class is made here
    """An answer, read with what the server says of its own messages."""
    kind = message_factory.GetMessageClass(POOL.FindMessageTypeByName("grpc.reflection.v1.ServerReflectionResponse"))
    message = kind()
    message.ParseFromString(answer)
    return message


@pytest.mark.parametrize("service", SERVICES)
async def test_it_lists_the_services(engine: Engine, service: str) -> None:
    [answer] = await ask(engine, bytes_field(1, b"host") + LIST, service=service)
    assert [each.name for each in answer.list_services_response.service] == LISTED
    assert answer.valid_host == "host"
    assert answer.original_request.list_services == "*"


@pytest.mark.parametrize(
    ("request_", "file"),
    [
        (by_file("envoy/service/ratelimit/v3/rls.proto"), "envoy/service/ratelimit/v3/rls.proto"),
        (by_symbol(SERVICE), "envoy/service/ratelimit/v3/rls.proto"),
        (by_symbol(f"{SERVICE}.ShouldRateLimit"), "envoy/service/ratelimit/v3/rls.proto"),
        (by_symbol("envoy.service.ratelimit.v3.RateLimitResponse.Code"), "envoy/service/ratelimit/v3/rls.proto"),
        (by_symbol("envoy.service.ratelimit.v3.RateLimitRequest.domain"), "envoy/service/ratelimit/v3/rls.proto"),
        (by_symbol("grpc.health.v1.HealthCheckResponse.SERVING"), "grpc/health/v1/health.proto"),
        (by_symbol("validate.rules"), "validate/validate.proto"),
        (by_extension("google.protobuf.FieldOptions", 1071), "validate/validate.proto"),
        (by_symbol("grpc.reflection.v1.ServerReflection"), "grpc/reflection/v1/reflection.proto"),
    ],
)
async def test_a_file_comes_with_all_that_it_imports(engine: Engine, request_: bytes, file: str) -> None:
    [answer] = await ask(engine, request_)
    sent = list(answer.file_descriptor_response.file_descriptor_proto)
    assert pool_of(sent).FindFileByName(file).name == file
    assert descriptor_pb2.FileDescriptorProto.FromString(sent[-1]).name == file


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (by_file("no.proto"), 5),
        (by_symbol("no.Such"), 5),
        (by_symbol(""), 5),
        (by_extension("google.protobuf.FieldOptions", 9), 5),
        (by_extension("no.Such", 1071), 5),
        (numbers_of("no.Such"), 5),
        (b"", 3),
    ],
)
async def test_what_does_not_exist_is_an_error_in_the_answer(engine: Engine, request_: bytes, code: int) -> None:
    first, second = await ask(engine, request_, LIST)
    assert first.error_response.error_code == code
    assert first.error_response.error_message
    assert len(second.list_services_response.service) == 4, "the call goes on"


async def test_the_numbers_of_a_messages_extensions(engine: Engine) -> None:
    options, request = await ask(engine, numbers_of("google.protobuf.OneofOptions"), numbers_of("validate.FieldRules"))
    assert list(options.all_extension_numbers_response.extension_number) == [1071]
    assert request.all_extension_numbers_response.base_type_name == "validate.FieldRules"
    assert list(request.all_extension_numbers_response.extension_number) == []


async def test_a_call_can_be_made_with_what_it_describes(engine: Engine) -> None:
    kind = message_factory.GetMessageClass(POOL.FindMessageTypeByName("envoy.service.ratelimit.v3.RateLimitRequest"))
    request = kind(domain="api", descriptors=[{"entries": [{"key": "api_key", "value": "k"}]}])
    assert request.SerializeToString() == call(("api_key", "k"))
    answer = await engine.ask(request.SerializeToString())
    read = message_factory.GetMessageClass(POOL.FindMessageTypeByName("envoy.service.ratelimit.v3.RateLimitResponse"))
    parsed: Any = read.FromString(bytes(answer))
    assert RateLimitResponse.parse(parsed.SerializeToString()) == answer
    assert parsed.statuses[0].limit_remaining == 9


async def test_answers_come_one_by_one_to_a_client_that_asks_one_by_one(engine: Engine) -> None:
    asked = stream(engine)
    for _ in range(3):
        await asked.write(by_symbol(SERVICE))
        answer = await asked.read()
        assert isinstance(answer, bytes)
        assert len(answer) > 30_000
    await asked.done_writing()
    assert await asked.code() is grpc.StatusCode.OK


async def test_a_call_without_requests_is_ok(engine: Engine) -> None:
    assert await ask(engine) == []


async def test_all_clients_together_get_a_bounded_number_of_answers(engine: Engine) -> None:
    code, answers = await failure(engine, *[LIST] * (BURST + ANSWERS_PER_S * 20))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answers >= BURST
    code, answers = await failure(engine, *[LIST] * BURST)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED, "another call has no allowance of its own"
    assert (await engine.ask(call(("api_key", "k")))).overall_code == OK, "calls are still answered"


@pytest.mark.parametrize(
    ("requests", "failed"),
    [
        ([by_symbol("x" * MAX_REQUEST_BYTES)], (grpc.StatusCode.RESOURCE_EXHAUSTED, 0)),
        ([LIST, b"\x0a\xff"], (grpc.StatusCode.INVALID_ARGUMENT, 1)),
        ([LIST, LIST, bytes_field(4, b"\xff")], (grpc.StatusCode.INVALID_ARGUMENT, 2)),
    ],
    ids=["too large", "no message", "not UTF-8"],
)
async def test_a_request_that_cannot_be_read_ends_the_call(
    engine: Engine, requests: list[bytes], failed: tuple[grpc.StatusCode, int]
) -> None:
    assert await failure(engine, *requests) == failed


_names = st.sampled_from(
    [SERVICE, "google.protobuf.FieldOptions", "envoy/service/ratelimit/v3/rls.proto", "*", "", "é"]
)
_requests = st.lists(
    st.builds(lambda number, name: bytes_field(number, name.encode()), st.integers(1, 8), _names)
    | st.builds(number_field, st.integers(1, 8), st.integers(0, 2**64 - 1))
    | st.binary(max_size=8)
).map(b"".join)


@example(by_extension("x", 1) + by_symbol(SERVICE))
@example(bytes_field(5, b"\x2b") + LIST)
@example(bytes_field(5, bytes_field(1, b"\xff")) + LIST)
@example(bytes_field(3, b"\xff") + LIST)
@settings(max_examples=1000)
@given(_requests)
def test_whatever_is_asked_is_answered_or_refused(message: bytes) -> None:
    """Beside protobuf's own reader, with the messages that reflection describes."""
    asked: Any = message_factory.GetMessageClass(
        POOL.FindMessageTypeByName("grpc.reflection.v1.ServerReflectionRequest")
    )()
    try:
        asked.ParseFromString(message)
    except DecodeError:
        asked = None
    try:
        answer = response(respond(message))
    except InvalidRequestError:
        assert asked is None
        return
    assert asked is not None
    assert answer.original_request == asked
    assert answer.WhichOneof("message_response") is not None
    assert answer.valid_host == asked.host
    if asked.list_services:
        assert len(answer.list_services_response.service) == 4


def test_the_descriptors_are_those_of_the_libraries() -> None:
    """The field numbers of the messages, as grpcio-health-checking has them."""
    ours = POOL.FindFileByName("grpc/health/v1/health.proto")
    theirs = descriptor_pb2.FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(theirs)
    mine = descriptor_pb2.FileDescriptorProto()
    ours.CopyToProto(mine)
    mine.name = theirs.name
    assert re.findall(r'json_name: "(.*)"', str(mine))[:2] == ["service", "status"]
    assert re.sub(r'\n *json_name: ".*"', "", str(mine)) == str(theirs), "Python's library leaves out names in JSON"


@pytest.mark.parametrize("kind", ENGINES)
async def test_it_can_be_switched_off(kind: str, short_path: Path) -> None:
    engine = Engine(kind, short_path, reflection=False)
    await engine.server.start()
    try:
        for service in SERVICES:
            code, _ = await engine.refused(LIST, f"/{service}/ServerReflectionInfo")
            assert code is grpc.StatusCode.UNIMPLEMENTED
        assert (await engine.ask(call(("api_key", "k")))).overall_code == OK
    finally:
        await engine.channel.close()
        await engine.server.stop(0)


@pytest.mark.parametrize("kind", ENGINES)
async def test_a_call_that_asks_nothing_for_a_while_ends(kind: str, short_path: Path) -> None:
    engine = Engine(kind, short_path, stall_timeout_s=0.2)
    await engine.server.start()
    try:
        asked = stream(engine)
        await asked.write(LIST)
        assert await asked.read() is not grpc.aio.EOF
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await asked.read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert engine.tripped == [], "no guard: such a client does no harm"
    finally:
        await engine.channel.close()
        await engine.server.stop(0)
