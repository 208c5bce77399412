"""Tokens of an identity provider: a JWT that it has signed says who its holder is, and his groups.

Only signatures of key pairs are believed, by the algorithms of the settings: not `none`, and no
HMAC, whose secret anybody could take from the provider's published keys.
Source: OpenID Connect Core and Discovery 1.0; RFC 7519, RFC 8725.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, Final

import jwt
import structlog
from jwt import PyJWK, PyJWKSet
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.backplane.timeouts import timeout
from services.gateway.settings import OidcSettings, is_local_url, is_safe_url

_LONGEST_TOKEN: Final = 16 << 10
_LONGEST_NAME: Final = 200
_LEEWAY_SECONDS: Final = 30.0
_FETCH_SECONDS: Final = 5.0
_MOST_BYTES: Final = 1 << 20
# Keys that the provider has taken back are not believed longer.
_FRESH_SECONDS: Final = 600.0
# A token may name a key that is new; whoever makes names up has them fetched no more often.
_PAUSE_SECONDS: Final = 10.0

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class TokenHolder:
    """What a token says.

    Attributes:
        principal: who its holder is.
        group: the group of the store that he is in.
        ends_at: when it is over, seconds since the epoch.
    """

    principal: str
    group: str
    ends_at: float


class Issuer:
    """One identity provider: its signing keys, and the tokens that it signs.

    Args:
        settings: `[auth.oidc]`.
        clock: seconds, monotonic.
    """

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching = asyncio.Lock()

    async def read(self, token: str) -> TokenHolder:
        """What a token says, if it is to be believed.

        Raises:
            FleetError: UNAUTHENTICATED: it is not; FORBIDDEN: it is, and its holder is in no group;
                REGISTRY_UNAVAILABLE: the provider's keys cannot be had.
        """
        if len(token) > _LONGEST_TOKEN:
            raise _refused("it is too long")
        try:
            head = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise _refused("it cannot be read") from error
        if head.get("alg") not in self._settings.algorithms:
            raise _refused("its algorithm is none of auth.oidc.algorithms")
        key = await self._key(str(head.get("kid", "")))
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=list(self._settings.algorithms),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", self._settings.principal_claim]},
            )
            ends_at = float(claims["exp"])
        except jwt.ExpiredSignatureError as error:
            raise _refused("it has expired") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise _refused(_WORDS.get(type(error), "it is not valid")) from error
        return self._holder(claims, ends_at)

    def _holder(self, claims: Mapping[str, Any], ends_at: float) -> TokenHolder:
        principal = claims[self._settings.principal_claim]
        is_name = isinstance(principal, str) and 0 < len(principal) <= _LONGEST_NAME
        if not is_name or not principal.isprintable():
            raise _refused(f"its {self._settings.principal_claim} is no name")
        held = _claim(claims, self._settings.group_claim)
        values = {str(one) for one in held} if isinstance(held, list) else {str(held)}
        for value, group in self._settings.mapping.items():
            if value in values:
                return TokenHolder(f"oidc:{principal}", group, ends_at)
        told = f"Nothing in the token's {self._settings.group_claim} stands in auth.oidc.mapping."
        raise FleetError(Reason.FORBIDDEN, told)

    async def _key(self, name: str) -> PyJWK:
        """A signing key by its id; without one the only one that there is."""
        async with self._fetching:
            now = self._clock()
            is_old = self._fetched_at is None or now - self._fetched_at > _FRESH_SECONDS
            may_try = self._tried_at is None or now - self._tried_at > _PAUSE_SECONDS
            if may_try and (is_old or self._found(name) is None):
                await self._fetch(now)
            if self._fetched_at is None:
                told = "The keys of the identity provider cannot be had."
                raise FleetError(Reason.REGISTRY_UNAVAILABLE, told, retry_after_seconds=10)
            found = self._found(name)
        if found is None:
            raise _refused("it is signed with a key that its issuer does not publish")
        return found

    def _found(self, name: str) -> PyJWK | None:
        if name:
            return self._keys.get(name)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    async def _fetch(self, now: float) -> None:
        """Reads the published keys; where that fails those before stay."""
        self._tried_at = now
        try:
            async with timeout(3 * _FETCH_SECONDS):
                published = await asyncio.to_thread(self._published)
            self._keys = _signing_keys(published)
        except (OSError, ValueError, HTTPException, jwt.PyJWTError) as error:
            log.warning("oidc.keys_unread", issuer=self._settings.issuer, detail=str(error))
            return
        self._fetched_at = now
        log.info("oidc.keys_read", issuer=self._settings.issuer, keys=sorted(self._keys))

    def _published(self) -> Any:
        place = self._settings.jwks_uri
        if not place:
            base = self._settings.issuer.rstrip("/")
            found = _read(f"{base}/.well-known/openid-configuration")
            if not isinstance(found, dict) or found.get("issuer") != self._settings.issuer:
                raise ValueError("what was found there is of another issuer")
            place = str(found.get("jwks_uri", ""))
        if not is_safe_url(place):
            raise ValueError("its jwks_uri is no https, or has a user in it")
        return _read(place)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The provider answers where it was said to be, or not at all."""

    @override
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _read(url: str) -> Any:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_local_url(url):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    with opener.open(url, timeout=_FETCH_SECONDS) as answer:
        text = answer.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ValueError("what was found there is too large")
    return json.loads(text)


def _signing_keys(published: Any) -> dict[str, PyJWK]:
    """Public keys by their id.

    Left out are those for encryption, secrets, private ones, whose id is no text, and kinds not
    known.
    """
    if not isinstance(published, dict) or not isinstance(published.get("keys"), list):
        raise ValueError("what was found there are no keys")  # noqa: TRY004 - others' data
    usable = [
        one
        for one in published["keys"]
        if isinstance(one, dict)
        and one.get("use", "sig") == "sig"
        and one.get("kty") != "oct"
        and "d" not in one
        and isinstance(one.get("kid", ""), str)
    ]
    found = PyJWKSet.from_dict({"keys": usable})
    return {key.key_id or str(number): key for number, key in enumerate(found.keys)}


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path such as `realm_access.roles`."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return [] if value is None else value


_WORDS: Final[Mapping[type[BaseException], str]] = {
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.MissingRequiredClaimError: "a claim is missing",
}


def _refused(why: str) -> FleetError:
    return FleetError(Reason.UNAUTHENTICATED, f"The token is not accepted: {why}.")
