"""Who has made a request: by `Authorization: Bearer`, `x-api-key` or `api-key`.

A key is known by its SHA-256 in one of two tables, that of the settings and that of the store. A
look-up in a table of digests tells nothing by its time: nobody can choose digests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from services.backplane.errors import FleetError, Reason
from services.backplane.security import api_key
from services.gateway.auth.failures import FailedKeys
from services.gateway.auth.holder import ANYBODY, ConsoleLevel, KeyHolder
from services.gateway.auth.store_keys import StoreKeys
from services.gateway.dialects.common.work_class import ClassTerms
from services.gateway.limits.settings import KeyLimits
from services.gateway.settings import ApiKey, AuthSettings, OidcSettings

if TYPE_CHECKING:
    from services.gateway.auth.tokens import Tokens


class Auth:
    """Checks API keys.

    In open mode (no keys, or `required = false`) an unknown key is ignored, because some clients
    always send one.

    Args:
        settings: the `[auth]` section.
        clock: seconds since the epoch.
        on_change: called with this whenever other keys are known than before.

    Attributes:
        store: the keys of the registry's store.
        reads_tokens: whether `prepare` has to come before `holder`.
    """

    def __init__(
        self,
        settings: AuthSettings,
        clock: Callable[[], float] = time.time,
        *,
        on_change: Callable[[Auth], None] | None = None,
    ) -> None:
        self.store = StoreKeys(self._changed)
        self._on_change = on_change
        self._clock = clock
        self._failed = FailedKeys()
        self._tokens: Tokens | None = None
        self._settings = AuthSettings()
        self.use(settings)

    def use(self, settings: AuthSettings) -> None:
        """Takes in newly read settings."""
        if settings.oidc is None:
            self._tokens = None
        elif settings.oidc != self._settings.oidc:
            self._tokens = _tokens(settings.oidc, self.store, self._clock)
        self.reads_tokens = self._tokens is not None
        self._settings = settings
        self._keys_max_age = settings.keys_max_age
        holders = [_static(key) for key in settings.keys]
        self._static = {holder.digest: holder for holder in holders}
        self._limits = {key.name: key.limits for key in settings.keys if key.limits is not None}
        self._changed()

    @property
    def static_holders(self) -> Sequence[KeyHolder]:
        """The holders of the keys in the settings file."""
        return tuple(self._static.values())

    @property
    def asks_for_keys(self) -> bool:
        """Whether a request without a known key is refused."""
        if self._settings.required is not None:
            return self._settings.required
        return self._settings.asks_for_keys or self.store.has_keys

    async def prepare(self, headers: Mapping[str, str], address: str) -> None:
        """Verifies a token that is seen for the first time, so that `holder` then knows it.

        Raises:
            FleetError: as from `Issuer.read`, and as from `holder`.
        """
        given = key_in(headers)
        if self._tokens is None or not self._tokens.may_be(given):
            return
        digest = api_key.digest_of(given)
        if self._tokens.knows(digest):
            return
        try:
            if self._asks_for_keys:
                self._failed.check(address, digest)
            await self._tokens.read(given)
        except FleetError as error:
            if self._asks_for_keys:
                if error.reason is Reason.UNAUTHENTICATED:
                    self._failed.was_wrong(address)
                raise

    def holder(self, headers: Mapping[str, str], address: str) -> KeyHolder:
        """Finds who has made a request; ANYBODY where no key is required.

        The first rule that applies:

        1. There are no keys at all, and none is required: anybody.
        2. A key of the registry's store, or a token that was read: its holder, unless it is over.
        3. Keys are required, and too many wrong ones came from the address: RATE_LIMITED, but for
           a key that was right from there before.
        4. A key of the settings: its holder.
        5. No key is required: anybody; else UNAUTHENTICATED.

        Args:
            headers: of the request.
            address: where it comes from.

        Raises:
            FleetError: UNAUTHENTICATED: a key is required, and none or no good one was sent;
                RATE_LIMITED: too many wrong ones came from there; REGISTRY_UNAVAILABLE: whether
                the key is still good is not known.
        """
        if self._is_open:
            return ANYBODY
        given = key_in(headers)
        if given:
            digest = api_key.digest_of(given)
            found = self.store.get(digest)
            if found is not None:
                return self._admitted(found)
            if self._tokens is not None and self._tokens.knows(digest):
                return self._admitted(self._tokens.holder(digest))
            if self._asks_for_keys:
                self._failed.check(address, digest)
            found = self._static.get(digest)
            if found is not None:
                self._failed.was_right(address, digest)
                return found
        if not self._asks_for_keys:
            return ANYBODY
        raise self._refused(given, address)

    def limits(self, principal: str) -> KeyLimits | None:
        """How much a principal may ask for: by his keys of the store, those here, or his token.

        Of several keys of the settings the last that has limits says it.
        """
        known = self.store.limits(principal) or self._limits.get(principal)
        if known is None and self._tokens is not None:
            return self._tokens.limits(principal)
        return known

    def has_lost(self, holder: KeyHolder) -> bool:
        """True if a holder's key was revoked, so that the requests that run by it must end.

        One that has only come to its end was not. What a key of the settings has begun goes on when
        that is gone from there: a reload cuts no stream.
        """
        if holder.source != "store" or holder.ends_at <= self._clock():
            return False
        return self.store.get(holder.digest) is None

    def console_visitor(self, headers: Mapping[str, str], address: str) -> KeyHolder | None:
        """Who visits the console.

        None where there are no keys at all, and none is required.

        Raises:
            FleetError: UNAUTHENTICATED: there are keys, and none or an unknown one was sent.
        """
        if self._is_open:
            return None
        holder = self.holder(headers, address)
        if holder is ANYBODY:  # here nobody is let in without a key, required or not
            raise self._refused(key_in(headers), address)
        return holder

    def _admitted(self, holder: KeyHolder) -> KeyHolder:
        """The holder of a key of the store, unless it is over or nobody knows that any more."""
        if holder.ends_at <= self._clock():
            if not self._asks_for_keys:
                return ANYBODY
            raise FleetError(Reason.UNAUTHENTICATED, "The API key has expired.")
        store = self.store
        if time.monotonic() - store.confirmed_at > self._keys_max_age:
            if not self._asks_for_keys:
                return ANYBODY
            told = "The registry has not been heard of for longer than keys are believed"
            raise FleetError(
                Reason.REGISTRY_UNAVAILABLE,
                f"{told} (auth.keys_max_age).",
                retry_after_seconds=5,
            )
        if holder.source == "store":
            store.used(holder.key_id)
        return holder

    def _refused(self, given: str, address: str) -> FleetError:
        if not given:
            told = "No API key was given; send `Authorization: Bearer KEY` or `x-api-key: KEY`."
            return FleetError(Reason.UNAUTHENTICATED, told)
        if not self.store.is_known and api_key.id_in(given) is not None:
            told = "The keys of the fleet are not known yet: its registry has not been reached."
            return FleetError(Reason.REGISTRY_UNAVAILABLE, told, retry_after_seconds=2)
        self._failed.was_wrong(address)
        return FleetError(Reason.UNAUTHENTICATED, "The API key is not known here.")

    def _changed(self) -> None:
        self._asks_for_keys = self.asks_for_keys
        has_any = self._static or self.store.has_keys or self._tokens is not None
        self._is_open = not self._asks_for_keys and not has_any
        if self._tokens is not None:
            self._tokens.forget_groups()
        if self._on_change is not None:
            self._on_change(self)


def key_in(headers: Mapping[str, str]) -> str:
    """The key of a request; empty where it has none."""
    given = headers.get("x-api-key") or headers.get("api-key")
    if given and (given := given.strip()):
        return given
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _tokens(settings: OidcSettings, store: StoreKeys, clock: Callable[[], float]) -> Tokens:
    """Reads tokens of an issuer; its library is loaded only where there is one."""
    from services.gateway.auth.tokens import Tokens

    return Tokens(settings, store, clock)


def _static(key: ApiKey) -> KeyHolder:
    digest = bytes.fromhex(key.sha256) if key.sha256 else api_key.digest_of(key.key or "")
    return KeyHolder(
        source="static",
        principal=key.name,
        key_id=f"static:{key.name}",
        console=ConsoleLevel[key.console.upper()],
        terms=ClassTerms(key.usual_class, key.highest_class),
        digest=digest,
    )
