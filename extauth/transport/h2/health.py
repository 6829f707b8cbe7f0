"""grpc.health.v1, without generated code: `HealthCheckRequest{1: service}` → `HealthCheckResponse{1: status}`."""

from extauth.rls.protobuf import fields, number_field, text_of
from extauth.rls.request import SERVICE
from extauth.transport.h2.grpc_framing import GrpcError, Status

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
SERVICES = ("", SERVICE, "ratelimit")
"""The names in health checks: the whole server, the service, and the name that envoyproxy/ratelimit registers."""


class Health:
    """The status of the whole server, under each of the names in SERVICES."""

    def __init__(self) -> None:
        self.status = NOT_SERVING

    def check(self, message: bytes) -> bytes:
        """The answer to a `Check`; raises GrpcError for an unknown service, and InvalidRequestError."""
        if not self.knows(message):
            raise GrpcError(Status.NOT_FOUND, "no such service")
        return self.current()

    def watched(self, message: bytes) -> bytes:
        """The first answer to a `Watch`, which an unknown service does not end; raises InvalidRequestError."""
        return self.current() if self.knows(message) else number_field(1, SERVICE_UNKNOWN)

    def current(self) -> bytes:
        """The status of the server."""
        return number_field(1, self.status)

    def knows(self, message: bytes) -> bool:
        """Whether the service that a request names exists here; raises InvalidRequestError."""
        service = ""
        for number, value in fields(message):
            if number == 1 and isinstance(value, bytes):
                service = text_of(value)
        return service in SERVICES
