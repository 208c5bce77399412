"""Gives certificates to hosts, by token; renews them; revokes them.

Everything that decides is written to the store before the answer, so that a token is good once
whichever registry leads.
"""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from cryptography import x509

from services.backplane.errors import FleetError, Reason
from services.backplane.security.authority import (
    AuthorityError,
    certificate_of,
    sign,
)
from services.backplane.security.certificate_request import (
    BadRequestError,
    key_fingerprint,
    key_of,
)
from services.backplane.security.certificates import serial_of
from services.backplane.security.join_token import JoinToken
from services.backplane.security.roles import Peer, Role, names_of
from services.registry.joining import records
from services.registry.joining.open_tokens import MOST_SECONDS, OpenTokens
from services.registry.joining.records import (
    IssuedCertificate,
    OpenToken,
    RevokedCertificate,
    text_of,
)
from services.registry.joining.revocations import Revocations
from services.registry.store.store import FactKind, Facts
from services.registry.store.write_behind import FactWriter, durably

# A neuron renews once in its certificate's time; one that asks more often fills no store.
_MOST_PER_NEURON: Final = 16
# Certificates of others' making that a neuron is seen with; the oldest are forgotten.
_MOST_SEEN: Final = 64
# What was revoked is refused so long beyond its end: for a host whose clock is behind it is good.
_CLOCKS_APART_SECONDS: Final = 86_400.0

log = structlog.get_logger()


class Joining:
    """The registry's part in who has a certificate.

    Args:
        folder: of the fleet's authority; None: this registry gives no certificates.
        lifetime_seconds: of the certificates that it gives.
        asks_approval: a host with a good token waits until an operator lets it join.
        facts: all that the store knew when the leadership was taken.
        fact_writer: writes to the store.
        revocations: who is refused.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        folder: pathlib.Path | None,
        lifetime_seconds: float,
        asks_approval: bool = False,
        facts: Facts,
        fact_writer: FactWriter,
        revocations: Revocations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._lifetime_seconds = lifetime_seconds
        self._asks_approval = asks_approval
        self._fact_writer = fact_writer
        self._revocations = revocations
        self._clock = clock
        self._open_tokens = OpenTokens(facts, fact_writer, clock=clock)
        self._given = records.read(facts, FactKind.CERTIFICATE, IssuedCertificate)
        self._refused = records.read(facts, FactKind.REVOKED, RevokedCertificate)
        self._attached_with: dict[str, dict[str, None]] = {}
        # One gives or takes at a time: what is signed while its holder is revoked is refused too.
        self._changing = asyncio.Lock()
        self._renewing: set[str] = set()
        revocations.refuse(frozenset(self._refused))

    def authority(self) -> bytes:
        """The authority's certificate in PEM.

        Raises:
            FleetError: NOT_SUPPORTED: this registry gives no certificates.
        """
        try:
            return certificate_of(self._required_folder())
        except AuthorityError as error:
            raise _broken(error) from error

    def note(self, neuron: str, serial: str) -> None:
        """Records the certificate that a neuron uses, whoever has issued it."""
        if not serial or serial in self._given:
            return
        seen = self._attached_with.setdefault(neuron, {})
        seen[serial] = None
        while len(seen) > _MOST_SEEN:
            del seen[next(iter(seen))]

    async def new_token(self, neuron: str, seconds: float) -> tuple[JoinToken, float]:
        """Makes a token by which one host gets the certificate of one neuron, once.

        Returns: the token, and when it ends, in seconds since the epoch.

        Raises:
            FleetError: the name cannot be used, the time is too long, or too many tokens wait.
        """
        try:
            names_of(Role.NEURON, neuron=neuron)
        except ValueError as error:
            raise FleetError(Reason.BAD_REQUEST, f"{error}.", field="neuron") from error
        if not 0 < seconds <= MOST_SECONDS:
            message = f"A token is good for at most {MOST_SECONDS / 3600:.0f} hours."
            raise FleetError(Reason.BAD_REQUEST, message, field="lifetime")
        token = JoinToken.new(self.authority())
        async with self._changing:
            await self._drop_ended()
            open_token = await self._open_tokens.add(token.secret, neuron, seconds=seconds)
        log.info("join.token_made", neuron_id=neuron, seconds=seconds)
        return token, open_token.until

    async def join(
        self, secret: str, request: bytes, *, neuron: str = "", source: str = ""
    ) -> tuple[str, bytes]:
        """Gives a host its certificate, or lets it wait for its approval.

        Args:
            secret: of its token.
            request: PKCS #10 in PEM.
            neuron: the name that it expects; empty for any.
            source: where it asks from.

        Returns: the neuron's name, and the certificate in PEM; empty while it waits.

        Raises:
            FleetError: FORBIDDEN: no such token, or for another name or key; BAD_REQUEST: the
                request.
        """
        folder = self._required_folder()
        self._open_tokens.find(secret, neuron=neuron)  # strangers wait for nothing
        async with self._changing:
            open_token = self._open_tokens.find(secret, neuron=neuron)
            if not await self._admits(secret, open_token, request, source):
                return open_token.neuron, b""
            certificate = await self._sign(folder, request, open_token.neuron)
            forget = await self._open_tokens.spend(secret)
            await self._record(certificate, open_token.neuron)
            forget()  # last: whom a failure before this gave nothing asks again
        log.info("join.joined", neuron_id=open_token.neuron)
        return open_token.neuron, certificate

    async def approve(self, neuron: str, key: str) -> OpenToken:
        """Lets a host join that waits for it; `key` is how the fingerprint of its key begins.

        Raises:
            FleetError: NOT_FOUND: none waits; BAD_REQUEST: several do, and `key` is empty.
        """
        async with self._changing:
            return await self._open_tokens.approve(neuron, key)

    def waiting(self) -> Sequence[OpenToken]:
        """Hosts that wait for approval, or are approved and have not asked again; oldest first."""
        return self._open_tokens.waiting()

    async def renew(self, peer: Peer, request: bytes) -> bytes:
        """Gives a neuron a new certificate, of the names that it has; returns it in PEM.

        Raises:
            FleetError: FORBIDDEN: it is no neuron, or more than that; BAD_REQUEST: the request.
        """
        folder = self._required_folder()
        if peer.roles != frozenset({Role.NEURON}) or len(peer.neurons) != 1:
            message = "Only certificates of one neuron and nothing else are renewed here."
            raise FleetError(Reason.FORBIDDEN, message)
        (neuron,) = peer.neurons
        if neuron in self._renewing:
            raise FleetError(Reason.RATE_LIMITED, f"A certificate of {neuron} is being renewed.")
        self._renewing.add(neuron)
        try:
            async with self._changing:
                self._revocations.require(peer.serial)  # it may have been revoked meanwhile
                return await self._renewed(folder, neuron, request)
        finally:
            self._renewing.discard(neuron)

    async def revoke(self, neuron: str) -> list[str]:
        """Refuses all certificates of a neuron that are known here; returns their serial numbers.

        Raises:
            FleetError: NOT_FOUND: none is known.
        """
        async with self._changing:
            await self._drop_ended()
            seen = dict.fromkeys(self._attached_with.get(neuron, ()))
            given = {key: each.until for key, each in self._given.items() if each.neuron == neuron}
            known: dict[str, float | None] = {**seen, **given}
            if not await self._open_tokens.drop(neuron) and not known:
                told = f"No certificate of {neuron!r} is known here"
                message = f"{told} (`cortex pki revoke` takes a file)."
                raise FleetError(Reason.NOT_FOUND, message, field="neuron")
            for serial, until in known.items():
                refusal = RevokedCertificate(until)
                await durably(self._fact_writer.write(FactKind.REVOKED, serial, text_of(refusal)))
                self._refused[serial] = refusal
            self._revocations.refuse(frozenset(self._refused))
        log.warning("neuron.revoked", neuron_id=neuron, serials=sorted(known))
        return sorted(known)

    async def _admits(
        self, secret: str, open_token: OpenToken, request: bytes, source: str
    ) -> bool:
        """True for a host that gets its certificate now; one that does not waits from now on.

        Raises:
            FleetError: FORBIDDEN: the token is another host's; BAD_REQUEST: the request.
        """
        if not (self._asks_approval or open_token.key):
            return True
        try:
            key = key_fingerprint(key_of(request, names_of(Role.NEURON, neuron=open_token.neuron)))
        except BadRequestError as error:
            raise _refused(error) from error
        if not open_token.key:
            open_token = await self._open_tokens.bind(secret, open_token, key=key, source=source)
        elif open_token.key != key:
            raise FleetError(Reason.FORBIDDEN, "Another host has used this token.", field="secret")
        return open_token.is_approved or not self._asks_approval

    async def _renewed(self, folder: pathlib.Path, neuron: str, request: bytes) -> bytes:
        await self._drop_ended()
        if sum(each.neuron == neuron for each in self._given.values()) >= _MOST_PER_NEURON:
            message = f"{neuron} has {_MOST_PER_NEURON} certificates that have not ended."
            raise FleetError(Reason.RATE_LIMITED, message)
        certificate = await self._sign(folder, request, neuron)
        await self._record(certificate, neuron)
        log.info("join.renewed", neuron_id=neuron)
        return certificate

    async def _sign(self, folder: pathlib.Path, request: bytes, neuron: str) -> bytes:
        def signed() -> bytes:
            return sign(
                folder, request, [Role.NEURON], neuron=neuron, seconds=self._lifetime_seconds
            )

        try:
            return await asyncio.to_thread(signed)
        except BadRequestError as error:
            raise _refused(error) from error
        except AuthorityError as error:
            raise _broken(error) from error

    async def _record(self, certificate: bytes, neuron: str) -> None:
        read = x509.load_pem_x509_certificate(certificate)
        given = IssuedCertificate(neuron, read.not_valid_after_utc.timestamp())
        serial = serial_of(read)
        await durably(self._fact_writer.write(FactKind.CERTIFICATE, serial, text_of(given)))
        self._given[serial] = given

    async def _drop_ended(self) -> None:
        """Forgets what has ended by itself."""
        await self._open_tokens.drop_ended()
        now = self._clock()
        kinds: list[tuple[FactKind, dict[str, Any], float]] = [
            (FactKind.CERTIFICATE, self._given, now),
            (FactKind.REVOKED, self._refused, now - _CLOCKS_APART_SECONDS),
        ]
        for kind, known, at in kinds:
            for key in records.ended(known, at):
                await durably(self._fact_writer.delete(kind, key))
                known.pop(key, None)

    def _required_folder(self) -> pathlib.Path:
        if self._folder is None:
            message = "This registry gives no certificates: `registry.authority` names no folder."
            raise FleetError(Reason.NOT_SUPPORTED, message)
        return self._folder


def _refused(error: BadRequestError) -> FleetError:
    message = f"The request for a certificate is refused: {error}."
    return FleetError(Reason.BAD_REQUEST, message, field="certificate_request")


def _broken(error: AuthorityError) -> FleetError:
    log.error("authority.unusable", detail=str(error))
    message = "The fleet's authority cannot be used; the registry's log says why."
    return FleetError(Reason.INTERNAL, message)
