"""grpc.health.v1, without generated code: `HealthCheckRequest{1: service}` → `HealthCheckResponse{1: status}`."""

from typing import Final

from extauth.rls.protobuf import fields, number_field, text_of
from extauth.rls.request import SERVICE
from extauth.transport.h2.grpc_framing import GrpcError, Status

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
SERVICES: Final = ("", SERVICE, "ratelimit")
"""The names in health checks: the whole server, the service, and the name that envoyproxy/ratelimit registers."""

STORE_SERVICE: Final = "extauth.store"
"""Another name, of which other replicas learn whether the store answers this one."""


class Health:
    """The statuses of the server, which all of SERVICES share, and of its store; NOT_SERVING at first.

    `changed` are the names whose status the last `report` changed.
    """

    def __init__(self) -> None:
        self._statuses = dict.fromkeys((*SERVICES, STORE_SERVICE), NOT_SERVING)
        self.changed: frozenset[str] = frozenset()

    def report(self, *, serving: bool, store: bool) -> None:
        """Set whether the server, and whether its store, is SERVING."""
        before = self._statuses
        self._statuses = dict.fromkeys(SERVICES, SERVING if serving else NOT_SERVING)
        self._statuses[STORE_SERVICE] = SERVING if store else NOT_SERVING
        self.changed = frozenset(name for name, status in self._statuses.items() if status != before[name])

    def check(self, message: bytes) -> bytes:
        """The answer to a `Check`; raises GrpcError for an unknown service, and InvalidRequestError."""
        service = self.service(message)
        if service is None:
            raise GrpcError(Status.NOT_FOUND, "no such service")
        return self.status(service)

    def status(self, service: str | None) -> bytes:
        """The status of a service: the answer to a `Watch`, which an unknown service does not end."""
        return number_field(1, SERVICE_UNKNOWN if service is None else self._statuses[service])

    def service(self, message: bytes) -> str | None:
        """The service that a request names, None for an unknown one; raises InvalidRequestError."""
        service = ""
        for number, value in fields(message):
            if number == 1 and isinstance(value, bytes):
                service = text_of(value)
        return service if service in self._statuses else None  # a name of any length is not kept
