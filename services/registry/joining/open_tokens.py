"""Tokens that have not been used up, and the hosts that wait for approval with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from services.backplane.errors import FleetError, Reason
from services.backplane.security.join_token import digest_of
from services.registry.joining import records
from services.registry.joining.records import OpenToken, text_of
from services.registry.store.store import FactKind, Facts
from services.registry.store.write_behind import FactWriter, durably

MOST_SECONDS: Final = 86_400.0
"""A token that lies around longer would be found by others."""
USUAL_SECONDS: Final = 900.0
_MOST: Final = 1_000
# How long a host waits for its approval: a night, and the morning after it.
_WAITING_SECONDS: Final = 86_400.0

log = structlog.get_logger()


class OpenTokens:
    """The join tokens that are still valid, by the digest of their secret.

    Not safe for concurrent changes: callers hold the lock of `Joining`.

    A host that has to be approved binds its token to its own key when it first asks: from then on
    the token is of no use to anybody else, and of no use to the host before it was approved.

    Args:
        facts: all that the store knew when the leadership was taken.
        fact_writer: writes to the store.
        clock: seconds since the epoch.
    """

    def __init__(
        self, facts: Facts, fact_writer: FactWriter, *, clock: Callable[[], float]
    ) -> None:
        self._fact_writer = fact_writer
        self._clock = clock
        self._tokens = records.read(facts, FactKind.JOIN_TICKET, OpenToken)

    async def add(self, secret: str, neuron: str, *, seconds: float) -> OpenToken:
        """Stores a new token, valid for `seconds`.

        Raises:
            FleetError: QUEUE_FULL: too many have not been used.
        """
        if len(self._tokens) >= _MOST:
            raise FleetError(Reason.QUEUE_FULL, f"{_MOST} tokens have not been used yet.")
        open_token = OpenToken(neuron, self._clock() + seconds)
        await self._put(digest_of(secret), open_token)
        return open_token

    def find(self, secret: str, *, neuron: str) -> OpenToken:
        """The token with a secret.

        Args:
            secret: its own.
            neuron: the name that its holder expects; empty for any.

        Raises:
            FleetError: FORBIDDEN: there is none, or it is for another name.
        """
        open_token = self._tokens.get(digest_of(secret))
        if open_token is None or open_token.until <= self._clock():
            message = "This token is not known here: it was used, its time is over, or it is wrong."
            raise FleetError(Reason.FORBIDDEN, message, field="secret")
        if neuron not in {"", open_token.neuron}:
            message = f"This token is for {open_token.neuron!r}, not for {neuron!r}."
            raise FleetError(Reason.FORBIDDEN, message, field="neuron")
        return open_token

    async def bind(self, secret: str, open_token: OpenToken, *, key: str, source: str) -> OpenToken:
        """Records that a host waits for approval; from now on the token is valid for its key alone.

        Args:
            secret: of the token.
            open_token: as it was found.
            key: fingerprint of the host's key.
            source: where it asks from.
        """
        now = self._clock()
        bound = msgspec.structs.replace(
            open_token, key=key, source=source, since=now, until=now + _WAITING_SECONDS
        )
        await self._put(digest_of(secret), bound)
        log.warning("join.waits", neuron_id=open_token.neuron, key=key, source=source)
        return bound

    async def approve(self, neuron: str, key: str) -> OpenToken:
        """Lets a host have its certificate when it asks again.

        Args:
            neuron: the name that it gets.
            key: how the fingerprint of its key begins; empty where one alone waits for the name.

        Raises:
            FleetError: NOT_FOUND: none waits; BAD_REQUEST: several do.
        """
        now = self._clock()  # one whose time is over could not join however it is approved
        found = [
            (digest, each)
            for digest, each in self._tokens.items()
            if each.neuron == neuron
            and each.is_waiting
            and each.until > now
            and each.key.startswith(key.lower())
        ]
        if not found:
            told = f" with a key {key}…" if key else ""
            message = f"No host waits to join as {neuron!r}{told}."
            raise FleetError(Reason.NOT_FOUND, message, field="neuron")
        if len(found) > 1:
            keys = ", ".join(each.key[:16] for _, each in found)
            message = f"{len(found)} hosts wait to join as {neuron!r}; their keys: {keys}."
            raise FleetError(Reason.BAD_REQUEST, message, field="key")
        ((digest, open_token),) = found
        approved = msgspec.structs.replace(open_token, is_approved=True)
        await self._put(digest, approved)
        log.info("join.approved", neuron_id=neuron, key=open_token.key)
        return approved

    def waiting(self) -> Sequence[OpenToken]:
        """Tokens whose hosts wait for approval, or are approved and have not asked again."""
        now = self._clock()
        return sorted(
            (each for each in self._tokens.values() if each.key and each.until > now),
            key=lambda each: each.since,
        )

    async def spend(self, secret: str) -> Callable[[], None]:
        """Takes a token out of the store.

        Returns: forgets it here too; called last, so that whom a failure gave nothing asks again.
        """
        digest = digest_of(secret)
        await durably(self._fact_writer.delete(FactKind.JOIN_TICKET, digest))
        return lambda: self._forget(digest)

    async def drop(self, neuron: str) -> bool:
        """Drops all tokens for a name; True where there were any."""
        digests = [digest for digest, each in self._tokens.items() if each.neuron == neuron]
        await self._delete(digests)
        return bool(digests)

    async def drop_ended(self) -> None:
        """Removes the tokens that have expired."""
        await self._delete(records.ended(self._tokens, self._clock()))

    async def _put(self, digest: str, open_token: OpenToken) -> None:
        await durably(self._fact_writer.write(FactKind.JOIN_TICKET, digest, text_of(open_token)))
        self._tokens[digest] = open_token

    async def _delete(self, digests: Sequence[str]) -> None:
        for digest in digests:
            await durably(self._fact_writer.delete(FactKind.JOIN_TICKET, digest))
            self._forget(digest)

    def _forget(self, digest: str) -> None:
        self._tokens.pop(digest, None)
