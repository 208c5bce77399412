"""Certificates of the fleet as gRPC and asyncio want them, read again when their files change."""

from __future__ import annotations

import datetime as dt
import pathlib
import ssl
import time
from typing import Any, Final

import grpc
import structlog
from cryptography import x509

from services.backplane.security.certificates import peer_in, read_serial
from services.backplane.security.roles import Role, server_name
from services.backplane.security.settings import FleetSettings
from services.backplane.settings import SettingsError

_LOOK_SECONDS: Final = 1.0
_WARN_DAYS: Final = 14

log = structlog.get_logger()


class FleetCredentials:
    """This process's certificate, and the authorities whose certificates it believes.

    Args:
        settings: where the files are; all three are set.

    Raises:
        SettingsError: a file cannot be read, or key and certificate do not fit.
    """

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._looked_at = 0.0
        self._stamp: tuple[object, ...] = ()
        self._generation = 0
        self._revoked: frozenset[str] = frozenset()
        self._own = self._read()
        if _has_ended(self._own):
            ended = f"{self._own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            raise SettingsError(f"fleet.certificate: {settings.certificate} ended at {ended}")

    @property
    def generation(self) -> int:
        """Grows whenever the files have changed; looks at them once a second at most."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            if self._files_stamp() != self._stamp:
                try:
                    self._read()
                except SettingsError as error:  # half written: the old ones stay until it is whole
                    log.warning("certificate.unusable", detail=str(error))
        return self._generation

    @property
    def revoked(self) -> frozenset[str]:
        """Serial numbers in hex of certificates that are refused."""
        _ = self.generation
        return self._revoked

    def require_own(self, role: Role, *, neuron: str = "") -> None:
        """Checks that this process's certificate says what the process is.

        Raises:
            SettingsError: it does not, so that nobody would speak with it.
        """
        peer = peer_in(self._chain)
        wanted = server_name(role, neuron=neuron)
        if role not in peer.roles or (neuron and neuron not in peer.neurons):
            raise SettingsError(
                f"fleet.certificate: {self._settings.certificate} is not for {wanted};"
                f" `cortex pki issue {role.value}{f' --neuron {neuron}' if neuron else ''}`"
                " makes one that is"
            )

    def for_server(self) -> grpc.ServerCredentials:
        """Asks every client for a certificate, and shows a renewed one from its first second on."""
        told = self._generation

        def fetch() -> Any:
            nonlocal told
            if self.generation == told:
                return None
            told = self._generation
            return self._server_configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._server_configuration(), fetch, require_client_authentication=True
        )

    def for_channel(self) -> grpc.ChannelCredentials:
        """Shows this process's certificate to a server."""
        _ = self.generation
        return grpc.ssl_channel_credentials(
            root_certificates=self._ca, private_key=self._key, certificate_chain=self._chain
        )

    def for_socket(self) -> ssl.SSLContext:
        """As `for_channel`, for asyncio; speaks HTTP/2."""
        _ = self.generation
        return self._context

    def _read(self) -> x509.Certificate:
        settings = self._settings
        stamp = self._files_stamp()
        try:
            self._ca, self._chain, self._key = (
                pathlib.Path(path).read_bytes()
                for path in (settings.ca, settings.certificate, settings.key)
            )
            revoked = pathlib.Path(settings.revoked).read_bytes() if settings.revoked else b""
            own = x509.load_pem_x509_certificate(self._chain)
            self._context = self._made_context()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = f"{settings.certificate}, {settings.key}, {settings.ca}"
            raise SettingsError(f"fleet: {files}: {error}") from error
        left = own.not_valid_after_utc - dt.datetime.now(dt.UTC)
        if left < dt.timedelta(days=_WARN_DAYS):
            log.warning("certificate.ends_soon", path=settings.certificate, days=left.days)
        self._revoked = frozenset(_serials(revoked, settings.revoked))
        self._stamp = stamp
        self._generation += 1
        return own

    def _files_stamp(self) -> tuple[object, ...]:
        settings = self._settings
        found: list[object] = []
        for path in (settings.ca, settings.certificate, settings.key, settings.revoked):
            try:
                facts = pathlib.Path(path).stat()
            except OSError:
                found.append(None)
            else:
                found.append((facts.st_mtime_ns, facts.st_size, facts.st_ino))
        return tuple(found)

    def _server_configuration(self) -> Any:
        return grpc.ssl_server_certificate_configuration(
            [(self._key, self._chain)], root_certificates=self._ca
        )

    def _made_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=self._ca.decode())
        context.load_cert_chain(self._settings.certificate, self._settings.key)
        context.set_alpn_protocols(["h2"])
        return context


def _has_ended(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc < dt.datetime.now(dt.UTC)


def _serials(data: bytes, path: str) -> list[str]:
    """Serial numbers, one a line; what stands behind `#` says why."""
    found: list[str] = []
    unreadable: list[int] = []
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        word = line.partition("#")[0]
        try:
            found.append(read_serial(word))
        except ValueError:
            if word.strip():
                unreadable.append(number)
    for number in unreadable:
        log.error("revoked.unreadable", path=path, line=number, revokes="nobody")
    return found


def credentials_of(settings: FleetSettings) -> FleetCredentials | None:
    """The credentials, or None where the settings have none.

    Raises:
        SettingsError: they cannot be used.
    """
    return FleetCredentials(settings) if settings.is_set else None
