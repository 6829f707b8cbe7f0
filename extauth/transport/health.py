"""grpc.health.v1, without generated code: `HealthCheckRequest{1: service}` → `HealthCheckResponse{1: status}`."""

from extauth.transport.grpc import GrpcError, Status
from extauth.transport.protobuf import as_text, fields, number_field
from extauth.transport.rls import SERVICE

SERVING, NOT_SERVING = 1, 2


class Health:
    """The status of the whole server, as `""` and by the service's name."""

    def __init__(self) -> None:
        self.status = NOT_SERVING

    def check(self, message: bytes) -> bytes:
        """The answer to a `Check`; raises GrpcError for a service that is not here, and InvalidRequestError."""
        service = ""
        for number, value in fields(message):
            if number == 1:
                service = as_text(value)
        if service not in ("", SERVICE):
            raise GrpcError(Status.NOT_FOUND, "no such service")
        return number_field(1, self.status)
