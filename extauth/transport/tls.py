"""TLS for the gRPC listener: HTTP/2 by ALPN, TLS 1.2 at least, reloaded without dropping a connection."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from extauth.errors import SettingsError
from extauth.transport.client_names import is_for


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate (and its chain), its key, and, for mutual TLS, the CA whose clients are trusted."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def paths(self) -> list[Path]:
        """All of them."""
        return [path for path in (self.cert, self.key, self.client_ca) if path is not None]


class Tls:
    """A context whose handshakes use the newest files that could be loaded.

    With `client_san`, clients' certificates must be for that name or address; see `admits`.
    Making one raises SettingsError if the files cannot be loaded. `pem` is the files' contents: the key, the
    certificate and the clients' CA.
    """

    def __init__(self, files: TlsFiles, client_san: str | None = None) -> None:
        self.files = files
        self._client_san = client_san
        self._seen = self._signature()
        self._newest, self.pem = self._load()
        self._client: ssl.SSLContext | None = None
        self.context = self._newest
        self.context.sni_callback = self._choose

    def reload(self, *, unchanged: bool = False) -> bool:
        """Load the files again if they have changed, or with `unchanged` in any case; returns whether they were loaded.

        Raises SettingsError, and then what was loaded stays in force.
        """
        seen = self._signature()
        if seen == self._seen and not unchanged:
            return False
        self._seen = seen
        self._newest, self.pem = self._load()
        self._client = None
        return True

    def admits(self, handshake: ssl.SSLObject | ssl.SSLSocket) -> bool:
        """Whether the client is one that may call, or another replica, which shows the server's certificate."""
        if self._client_san is None or is_for(handshake.getpeercert(), self._client_san):
            return True
        return handshake.getpeercert(binary_form=True) == _first_certificate(self.pem[1])

    def client(self) -> ssl.SSLContext:
        """For calls to other replicas: it shows the certificate, and trusts the same files, whatever the peer's name.

        Raises OSError where the files cannot be loaded now.
        """
        if self._client is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False  # replicas are asked by their addresses
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself may be what both share
            context.set_alpn_protocols(["h2"])
            context.load_cert_chain(self.files.cert, self.files.key, password=_no_password)
            for trusted in (self.files.cert, self.files.client_ca):
                if trusted is not None:
                    context.load_verify_locations(trusted)
            self._client = context
        return self._client

    def _choose(self, handshake: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        handshake.context = self._newest  # certificate, key and trusted CAs come from there

    def _signature(self) -> list[tuple[int, int, int]]:
        """A value that changes when a file changes or a symlink gets another target."""
        try:
            stats = [path.stat() for path in self.files.paths()]
        except OSError:  # while it is replaced
            return []
        return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]

    def _load(self) -> tuple[ssl.SSLContext, tuple[bytes, bytes, bytes | None]]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        # A resumed session would outlive the CA that its client was trusted by.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        cert, key, client_ca = self.files.cert, self.files.key, self.files.client_ca
        try:
            context.load_cert_chain(cert, key, password=_no_password)
        except (OSError, ValueError) as error:
            named = f"EXTAUTH_GRPC_TLS_CERT={cert} with EXTAUTH_GRPC_TLS_KEY={key}"
            raise SettingsError(f"{named} cannot be used: {_reason(error)}") from error
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(client_ca)
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"EXTAUTH_GRPC_TLS_CLIENT_CA={client_ca} cannot be used: {_reason(error)}"
                ) from error
        trusted = None if client_ca is None else client_ca.read_bytes()
        return context, (key.read_bytes(), cert.read_bytes(), trusted)


def _first_certificate(pem: bytes) -> bytes:
    """The first certificate of a chain, which is the server's own, as DER."""
    end = "-----END CERTIFICATE-----"
    _, begin, rest = pem.decode("ascii", "replace").partition("-----BEGIN CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(begin + rest.partition(end)[0] + end)


def _no_password() -> str:
    raise ValueError("the key is encrypted, and a service has nobody to ask for its password")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
