"""What the store keeps of joining: tokens by their digest, certificates by their serial number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
import structlog

from services.registry.store.store import FactKind, Facts

log = structlog.get_logger()


class OpenToken(msgspec.Struct, frozen=True):
    """A join token that has not been used yet.

    Attributes:
        neuron: the name that it is for.
        until: seconds since the epoch.
        key: fingerprint of the key that it was bound to; empty while no host has asked with it
            that has to be approved.
        source: the address that this host asked from.
        since: when it first did, seconds since the epoch.
        is_approved: an operator lets it join.
    """

    neuron: str
    until: float
    key: str = ""
    source: str = ""
    since: float = 0.0
    is_approved: bool = False

    @property
    def is_waiting(self) -> bool:
        """True while its host waits for approval."""
        return bool(self.key) and not self.is_approved


class IssuedCertificate(msgspec.Struct, frozen=True):
    """A certificate that this registry has signed.

    Attributes:
        neuron: whose it is.
        until: when it ends, seconds since the epoch.
    """

    neuron: str
    until: float


class RevokedCertificate(msgspec.Struct, frozen=True):
    """A certificate that was revoked.

    Attributes:
        until: when it ends by itself, seconds since the epoch; None: that is not known.
    """

    until: float | None = None


Record = TypeVar("Record", bound=msgspec.Struct)


def read(facts: Facts, kind: FactKind, record: type[Record]) -> dict[str, Record]:
    """The records of a kind by key; those that cannot be read are left out and told."""
    found: dict[str, Record] = {}
    for key, text in facts[kind].items():
        try:
            found[key] = msgspec.json.decode(text, type=record)
        except msgspec.MsgspecError:
            log.warning("store.unreadable", kind=kind.value, key=key)
    return found


def text_of(record: msgspec.Struct) -> str:
    """A record as the store keeps it."""
    return msgspec.json.encode(record).decode()


def ended(
    records: Mapping[str, OpenToken | IssuedCertificate | RevokedCertificate], now: float
) -> list[str]:
    """Keys of records whose time is over."""
    return [key for key, each in records.items() if each.until is not None and each.until <= now]
