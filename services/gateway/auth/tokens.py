"""Tokens that were read already: each is verified once, and then found by its digest."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.backplane.security import api_key
from services.gateway.auth.holder import KeyHolder
from services.gateway.auth.oidc import Issuer, TokenHolder
from services.gateway.auth.store_keys import NO_SCOPES, StoreKeys, what_holders_may
from services.gateway.limits.settings import KeyLimits
from services.gateway.settings import OidcSettings

# A token is verified anew after it, however long it is good.
_BELIEVED_SECONDS: Final = 3600.0
_MOST: Final = 4096


class Tokens:
    """Holders of tokens, by the digests of these.

    Args:
        settings: `[auth.oidc]`.
        store: has the groups that tokens are mapped to.
        clock: seconds since the epoch.
    """

    def __init__(
        self, settings: OidcSettings, store: StoreKeys, clock: Callable[[], float] = time.time
    ) -> None:
        self._issuer = Issuer(settings)
        self._store = store
        self._clock = clock
        self._read: dict[bytes, TokenHolder] = {}
        self._holders: dict[bytes, KeyHolder] = {}
        self._groups: dict[str, str] = {}

    @staticmethod
    def may_be(given: str) -> bool:
        """True if a text looks like a JWT: three parts, the first a JSON object in base64."""
        return given.startswith("eyJ") and given.count(".") == 2  # noqa: PLR2004 - RFC 7519

    def knows(self, digest: bytes) -> bool:
        """True if a token was verified before and has not expired."""
        read = self._read.get(digest)
        return read is not None and read.ends_at > self._clock()

    async def read(self, given: str) -> None:
        """Reads a token.

        Raises:
            FleetError: as from `Issuer.read`.
        """
        read = await self._issuer.read(given)
        latest = min(read.ends_at, self._clock() + _BELIEVED_SECONDS)
        digest = api_key.digest_of(given)
        self._read[digest] = dataclasses.replace(read, ends_at=latest)
        self._holders.pop(digest, None)
        self._groups.pop(read.principal, None)
        self._groups[read.principal] = read.group
        if len(self._groups) > _MOST:
            del self._groups[next(iter(self._groups))]
        if len(self._read) > _MOST:
            oldest = next(iter(self._read))
            del self._read[oldest]
            self._holders.pop(oldest, None)

    def forget_groups(self) -> None:
        """Has each token's group looked up again, because the groups have changed."""
        self._holders.clear()

    def limits(self, principal: str) -> KeyLimits | None:
        """The limits of a token's holder: those of the group that he was in last."""
        group = self._groups.get(principal)
        return None if group is None else self._store.group_limits(group)

    def holder(self, digest: bytes) -> KeyHolder:
        """The holder of a token; only for one that `knows` says is known.

        Raises:
            FleetError: FORBIDDEN: his group is not in the store; REGISTRY_UNAVAILABLE: that is not
                known.
        """
        holder = self._holders.get(digest)
        if holder is None:
            holder = self._holders[digest] = self._made(digest, self._read[digest])
        return holder

    def _made(self, digest: bytes, read: TokenHolder) -> KeyHolder:
        group = self._store.group(read.group)
        if group is None:
            if not self._store.is_known:
                told = "The groups of the fleet are not known yet: its registry was not reached."
                raise FleetError(Reason.REGISTRY_UNAVAILABLE, told, retry_after_seconds=2)
            told = f"The token's group {read.group!r} is not there (`cortex keys groups set`)."
            raise FleetError(Reason.FORBIDDEN, told)
        may = what_holders_may(NO_SCOPES, group.roles or ("user",), read.group, group)
        return dataclasses.replace(
            may,
            source="oidc",
            principal=read.principal,
            key_id=read.principal,
            digest=digest,
            ends_at=read.ends_at,
        )
