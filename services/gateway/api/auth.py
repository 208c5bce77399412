"""Authentication by API keys, from `Authorization: Bearer` or `x-api-key`."""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.work_class import ClassTerms
from services.gateway.settings import AuthSettings

ANONYMOUS: Final = ""
_OPEN: Final = ClassTerms()


class ConsoleLevel(enum.IntEnum):
    """What the holder of a key may do in the console; each level may what those before it may."""

    NONE = 0
    VIEW = 1
    OPERATE = 2

    @property
    def word(self) -> str:
        """As settings write it."""
        return self.name.lower()


class Auth:
    """Checks API keys.

    In open mode (no keys, or `required = false`) an unknown key is ignored, because some clients
    always send one.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self.use(settings)

    def use(self, settings: AuthSettings) -> None:
        """Takes in the keys of newly read settings."""
        self._names: dict[bytes, str] = {}
        self._terms: dict[str, ClassTerms] = {}
        self._console: dict[bytes, ConsoleLevel] = {}
        for key in settings.keys:
            digest = bytes.fromhex(key.sha256) if key.sha256 else _digest(key.key or "")
            self._names[digest] = key.name
            self._console[digest] = ConsoleLevel[key.console.upper()]
            self._terms[key.name] = ClassTerms(key.usual_class, key.highest_class)
        self.is_required = settings.asks_for_keys

    def class_terms(self, principal: str) -> ClassTerms:
        """What a principal's key says of classes; of several keys of one name, the last."""
        return self._terms.get(principal, _OPEN)

    def principal(self, headers: Mapping[str, str]) -> str:
        """The name behind the request's key; ANONYMOUS where none is needed.

        Raises:
            FleetError: UNAUTHENTICATED: a key is required, and none or an unknown one was sent.
        """
        if not self._names and not self.is_required:
            return ANONYMOUS
        given = _key_of(headers)
        known = self._known(given)
        if known is not None:
            return self._names[known]
        if not self.is_required:
            return ANONYMOUS
        raise _unauthenticated(given)

    def console_visitor(self, headers: Mapping[str, str]) -> tuple[str, ConsoleLevel] | None:
        """The name behind the request's key, and what it may do in the console.

        None where there are no keys at all, and none is required.

        Raises:
            FleetError: UNAUTHENTICATED: there are keys, and none or an unknown one was sent.
        """
        if not self._names and not self.is_required:
            return None
        given = _key_of(headers)
        known = self._known(given)
        if known is None:
            raise _unauthenticated(given)
        return self._names[known], self._console[known]

    def _known(self, key: str) -> bytes | None:
        """The digest of a known key. Compares with all, so that the time taken tells nothing."""
        if not key:
            return None
        digest = _digest(key)
        found: bytes | None = None
        for known in self._names:
            if hmac.compare_digest(known, digest):
                found = known
        return found


def _unauthenticated(given: str) -> FleetError:
    if not given:
        message = "No API key was given; send `Authorization: Bearer KEY` or `x-api-key: KEY`."
    else:
        message = "The API key is not known here."
    return FleetError(Reason.UNAUTHENTICATED, message)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _key_of(headers: Mapping[str, str]) -> str:
    given = headers.get("x-api-key", "").strip()
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return given or (value.strip() if scheme.lower() == "bearer" else "")
