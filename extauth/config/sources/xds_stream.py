"""One stream of an xDS server, over a connection of its own: bytes go out and come in."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc
import grpc.aio

from extauth.config.sources.discovery import METHOD
from extauth.config.sources.xds_settings import XdsOptions, XdsServer
from extauth.errors import SourceError

CONNECT_S: Final = 20.0
SEND_S: Final = 20.0
KEEPALIVE_S: Final = 360
"""Servers in Go hang up where a client pings more often than every five minutes."""


class XdsStream:
    """A stream that is open; its methods raise SourceError once it is not."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call

    async def send(self, message: bytes) -> None:
        """Send a message."""
        try:
            async with asyncio.timeout(SEND_S):
                await self._call.write(message)
        except TimeoutError:
            raise SourceError(f"the server has not taken a request for {SEND_S:g} s") from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise SourceError(await _ended(self._call)) from None

    async def receive(self) -> bytes:
        """The next message, however long that takes."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError:
            message = grpc.aio.EOF
        if not isinstance(message, bytes):
            raise SourceError(await _ended(self._call))
        return message


@asynccontextmanager
async def open_stream(server: XdsServer, options: XdsOptions) -> AsyncIterator[XdsStream]:
    """Connect, and open a stream; raises SourceError. The files of TLS are read anew each time."""
    credentials = await asyncio.to_thread(_credentials, options) if server.tls else None
    settings: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.use_local_subchannel_pool", 1),  # or a connection that was made with earlier files might be taken
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if options.san:
        settings.append(("grpc.ssl_target_name_override", options.san))
    channel = (
        grpc.aio.insecure_channel(server.address, settings)
        if credentials is None
        else grpc.aio.secure_channel(server.address, credentials, settings)
    )
    try:
        await _connected(channel)
        headers = tuple((name, _header_value(name, value)) for name, value in options.headers.items())
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)(metadata=headers)
        try:
            yield XdsStream(call)
        finally:
            call.cancel()
    finally:
        await channel.close()


async def _connected(channel: grpc.aio.Channel) -> None:
    """Return once there is a connection, or the attempt has failed: then the call will say why."""
    try:
        async with asyncio.timeout(CONNECT_S):
            state = channel.get_state(try_to_connect=True)
            while state not in {grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE}:
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise SourceError(f"no connection within {CONNECT_S:g} s") from None


def _header_value(name: str, value: str) -> str | bytes:
    return value.encode() if name.endswith("-bin") else value


async def _ended(call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> str:
    """Why there is nothing more to read."""
    code, details = await call.code(), await call.details()
    if code is grpc.StatusCode.OK:
        return "the server ended the stream"
    hint = ""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        hint = "; raise EXTAUTH_XDS_MAX_MESSAGE_BYTES"
    return f"{code.name}: {details[:500]}{hint}"


def _credentials(options: XdsOptions) -> grpc.ChannelCredentials:
    """What the files say; raises SourceError where they make no sense, which gRPC would not explain."""
    parts: list[bytes | None] = []
    for name, path in (("CA", options.ca), ("KEY", options.key), ("CERT", options.cert)):
        try:
            parts.append(None if path is None else path.read_bytes())
        except OSError as error:
            raise SourceError(f"EXTAUTH_XDS_TLS_{name}={path} cannot be read: {error.strerror}") from None
    ca, key, cert = parts
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError):
            raise SourceError(f"EXTAUTH_XDS_TLS_CA={options.ca} holds no certificates in PEM") from None
    if options.cert is not None:
        try:
            context.load_cert_chain(options.cert, options.key, password=_no_password)
        except (ssl.SSLError, OSError, ValueError):
            raise SourceError(
                f"EXTAUTH_XDS_TLS_CERT={options.cert} and EXTAUTH_XDS_TLS_KEY={options.key} are no certificate and key "
                "in PEM that belong together"
            ) from None
    return grpc.ssl_channel_credentials(ca, key, cert)


def _no_password() -> str:
    """Without this, OpenSSL would ask the terminal for the password of a key that is encrypted."""
    return ""
