"""Certificates of the fleet as gRPC and asyncio want them, read again when their files change."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import pathlib
import ssl
import time
from collections.abc import Iterable
from typing import Any, Final

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from services.backplane.security import settings as security_settings
from services.backplane.security.certificates import peer_in, read_serial
from services.backplane.security.roles import Role, server_name
from services.backplane.security.settings import FleetSettings
from services.backplane.settings import Document, SettingsError

_LOOK_SECONDS: Final = 1.0
_WARN_DAYS: Final = 14
_WARN_SECONDS: Final = 86_400.0

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class _Files:
    """One certificate with all that goes with it, read and found to fit.

    Attributes:
        ca, chain, key: as they are in their files, PEM.
        own: the first of the chain.
        context: for asyncio.
    """

    ca: bytes
    chain: bytes
    key: bytes
    own: x509.Certificate
    context: ssl.SSLContext

    def is_same(self, other: _Files) -> bool:
        return (self.ca, self.chain, self.key) == (other.ca, other.chain, other.key)


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
        self._stamp = self._files_stamp()
        self._complained_of: tuple[object, ...] = ()
        self._warned_at = -math.inf
        self._generation = 1
        self._told_revoked: frozenset[str] = frozenset()
        self._files, self._listed_revoked = self._read()
        self._revoked = self._listed_revoked
        if _has_ended(self._files.own):
            ended = f"{self._files.own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            raise SettingsError(f"fleet.certificate: {settings.certificate} ended at {ended}")
        self._warn_of_the_end()

    @property
    def generation(self) -> int:
        """Grows whenever the certificate was renewed; looks once a second at most."""
        self._look()
        return self._generation

    @property
    def revoked(self) -> frozenset[str]:
        """Serial numbers in hex of certificates that are refused."""
        self._look()
        return self._revoked

    @property
    def settings(self) -> FleetSettings:
        """Where the files are."""
        return self._settings

    @property
    def own(self) -> x509.Certificate:
        """This process's certificate."""
        self._look()
        return self._files.own

    @property
    def own_roles(self) -> frozenset[Role]:
        """What this process's certificate says that it is."""
        self._look()
        return peer_in(self._files.chain).roles

    def refuse(self, serials: Iterable[str]) -> None:
        """Refuses these certificates too, besides those of the file.

        Args:
            serials: in hex, as the registry tells them; in place of those that it told before.
        """
        self._told_revoked = frozenset(serials)
        self._revoked = self._listed_revoked | self._told_revoked

    def require_own(self, role: Role, *, neuron: str = "") -> None:
        """Checks that this process's certificate says what the process is.

        Raises:
            SettingsError: it does not, so that nobody would speak with it.
        """
        peer = peer_in(self._files.chain)
        wanted = server_name(role, neuron=neuron)
        if role not in peer.roles or (neuron and neuron not in peer.neurons):
            raise SettingsError(
                f"fleet.certificate: {self._settings.certificate} is not for {wanted};"
                f" `cortex pki issue {role.value}{f' --neuron {neuron}' if neuron else ''}`"
                " makes one that is"
            )

    def for_server(self, *, asks: bool = True) -> grpc.ServerCredentials:
        """Shows this process's certificate, a renewed one from its first second on.

        Args:
            asks: lets nobody in who shows none.
        """
        told = self._generation

        def fetch() -> Any:
            nonlocal told
            if self.generation == told:
                return None
            told = self._generation
            return self._server_configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._server_configuration(), fetch, require_client_authentication=asks
        )

    def for_channel(self) -> grpc.ChannelCredentials:
        """Shows this process's certificate to a server."""
        self._look()
        files = self._files
        return grpc.ssl_channel_credentials(
            root_certificates=files.ca, private_key=files.key, certificate_chain=files.chain
        )

    def for_socket(self) -> ssl.SSLContext:
        """As `for_channel`, for asyncio; speaks HTTP/2."""
        self._look()
        return self._files.context

    def _look(self) -> None:
        """Takes in what has changed. What cannot be used leaves everything as it was."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        self._warn_of_the_end()
        stamp = self._files_stamp()
        if stamp == self._stamp:
            return
        try:
            files, revoked = self._read()
        except SettingsError as error:  # half written: the old ones stay until it is whole
            if stamp != self._complained_of:
                self._complained_of = stamp
                log.warning("certificate.unusable", detail=str(error))
            return
        self._stamp, self._listed_revoked = stamp, revoked
        self._revoked = revoked | self._told_revoked
        if not files.is_same(self._files):
            self._files = files
            self._generation += 1
            self._warned_at = -math.inf
            self._warn_of_the_end()

    def _read(self) -> tuple[_Files, frozenset[str]]:
        settings = self._settings
        try:
            ca, chain, key = (
                pathlib.Path(path).read_bytes()
                for path in (settings.ca, settings.certificate, settings.key)
            )
            revoked = pathlib.Path(settings.revoked).read_bytes() if settings.revoked else b""
            own = x509.load_pem_x509_certificate(chain)
            private = serialization.load_pem_private_key(key, password=None)
            if private.public_key() != own.public_key():
                raise SettingsError(
                    f"fleet: {settings.key} is not the key of {settings.certificate}"
                )
            context = self._made_context(ca)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            files = f"{settings.certificate}, {settings.key}, {settings.ca}"
            raise SettingsError(f"fleet: {files}: {error}") from error
        return (
            _Files(ca=ca, chain=chain, key=key, own=own, context=context),
            frozenset(_serials(revoked, settings.revoked)),
        )

    def _warn_of_the_end(self) -> None:
        """Says once a day that the certificate ends soon."""
        now = time.monotonic()
        if now - self._warned_at < _WARN_SECONDS:
            return
        left = self._files.own.not_valid_after_utc - dt.datetime.now(dt.UTC)
        if left < dt.timedelta(days=_WARN_DAYS):
            self._warned_at = now
            log.warning("certificate.ends_soon", path=self._settings.certificate, days=left.days)

    def _files_stamp(self) -> tuple[object, ...]:
        settings = self._settings
        found: list[object] = []
        for path in (settings.ca, settings.certificate, settings.key, settings.revoked):
            if not path:
                continue
            try:
                facts = pathlib.Path(path).stat()
            except OSError:
                found.append(None)
            else:
                found.append((facts.st_mtime_ns, facts.st_size, facts.st_ino))
        return tuple(found)

    def _server_configuration(self) -> Any:
        files = self._files
        return grpc.ssl_server_certificate_configuration(
            [(files.key, files.chain)], root_certificates=files.ca
        )

    def _made_context(self, ca: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=ca.decode())
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


def own_credentials(document: Document, role: Role, *, neuron: str = "") -> FleetCredentials | None:
    """A service's own credentials, by `[fleet]`; None where that has none.

    Args:
        document: all settings.
        role: what the service is.
        neuron: its name, where it is a neuron.

    Raises:
        SettingsError: they cannot be used, or the certificate does not say what the service is.
    """
    credentials = credentials_of(security_settings.read(document))
    if credentials is not None:
        credentials.require_own(role, neuron=neuron)
    return credentials
