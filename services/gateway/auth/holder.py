"""Who has made a request, and what he may."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Final, Literal

from services.backplane.errors import FleetError, Reason
from services.gateway.auth.scopes import Scopes
from services.gateway.dialects.common.work_class import ClassTerms


class ConsoleLevel(enum.IntEnum):
    """What the holder of a key may do in the console; each level may what those before it may."""

    NONE = 0
    VIEW = 1
    OPERATE = 2
    ADMIN = 3
    """Also makes keys, and takes them back."""

    @property
    def word(self) -> str:
        """The level as settings write it."""
        return self.name.lower()


ROLES: Final[Mapping[ConsoleLevel, str]] = MappingProxyType(
    {
        ConsoleLevel.VIEW: "metrics",
        ConsoleLevel.OPERATE: "operator",
        ConsoleLevel.ADMIN: "admin",
    }
)
"""The roles that may something in the console; `user` may nothing there."""
SHORTEST_KEEP_SECONDS: Final = 60.0
"""Less than it lets go of a model that others may use."""
# Part of all dialects.
_OF_ALL: Final = frozenset({"models", "model", "conformance"})
_FAMILIES: Final = (
    ("openai_responses_", "openai_responses"),
    ("anthropic_", "anthropic_messages"),
    ("ollama_", "ollama"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyHolder:
    """Who has made a request: the holder of a key or token, or anybody.

    Attributes:
        source: where the key is kept: `static` in the gateway's settings, `store` in the
            registry's, `oidc` nowhere here; `open`: there was none, and none was needed.
        principal: whom logs name, and fairness and limits count; empty: anybody.
        key_id: of a key of the store; of others a name that tells them apart.
        group: the group that he is in; empty: none.
        asks: whether he may ask models, or only looks and operates.
        console: what he may do in the console.
        terms: what his key says of classes.
        scopes: what his key is for.
        digest: of his key.
        ends_at: when he is let in no more, seconds since the epoch.
    """

    source: Literal["open", "static", "store", "oidc"]
    principal: str = ""
    key_id: str = ""
    group: str = ""
    asks: bool = True
    console: ConsoleLevel = ConsoleLevel.NONE
    terms: ClassTerms = dataclasses.field(default_factory=ClassTerms)
    scopes: Scopes = dataclasses.field(default_factory=Scopes)
    digest: bytes = dataclasses.field(default=b"", repr=False)
    ends_at: float = math.inf

    def require_dialect(self, dialect: str) -> None:
        """Checks that he may ask models, in this dialect; empty: in any.

        Raises:
            FleetError: FORBIDDEN.
        """
        if not self.asks:
            told = "This key asks no models: its roles do not include `user`."
            raise FleetError(Reason.FORBIDDEN, told)
        if dialect and not self.scopes.allow_dialect(dialect):
            raise FleetError(Reason.FORBIDDEN, f"This key is not for requests of {dialect}.")

    def require_keep_alive(self, seconds: float | None) -> None:
        """Checks that he may say for how long a model stays loaded (Ollama's `keep_alive`).

        Who lets go of a model takes it from everybody, as the console's Unload does.

        Raises:
            FleetError: FORBIDDEN: it would be less than `SHORTEST_KEEP_SECONDS`, and his key may
                not operate.
        """
        if seconds is None or seconds >= SHORTEST_KEEP_SECONDS or self.source == "open":
            return
        if self.console < ConsoleLevel.OPERATE:
            told = (
                f"This key may not let go of a model: its keep_alive is {SHORTEST_KEEP_SECONDS:g}s"
                " or more; less takes a key with the role `operator`."
            )
            raise FleetError(Reason.FORBIDDEN, told, field="keep_alive")


ANYBODY: Final = KeyHolder(source="open")


def level_of(roles: AbstractSet[str]) -> ConsoleLevel:
    """What roles may do in the console."""
    held = [level for level, role in ROLES.items() if role in roles]
    return max(held, default=ConsoleLevel.NONE)


def dialect_of(endpoint: str) -> str:
    """The dialect that an endpoint belongs to, as scopes name it; empty: to all of them."""
    if endpoint in _OF_ALL:
        return ""
    return next((name for start, name in _FAMILIES if endpoint.startswith(start)), endpoint)
