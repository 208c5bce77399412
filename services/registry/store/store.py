"""Durable facts: pins, cordons, what loads have taught, neurons, who may join, and who may ask.

Nothing about live instances is kept: that is believed from neurons only.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Protocol

from services.registry.store.leader_lease import LeaderLease
from services.registry.store.ledger import Ledger


class FactKind(enum.Enum):
    """The kinds of facts; the key of a fact names the model or neuron."""

    PIN = "pin"
    """Key: model; value: neuron, or empty for any."""
    CORDON = "cordon"
    """Key: neuron; no value."""
    FOOTPRINT = "footprint"
    """Key: see footprints.key_of; value: a Learned as JSON."""
    NEURON = "neuron"
    """Key: neuron; value: its address when it was last attached."""
    MODEL = "model"
    """Key: model; value: when it was first known, seconds since the epoch."""
    JOIN_TICKET = "join_ticket"
    """Key: digest of the secret; value: a Ticket as JSON."""
    CERTIFICATE = "certificate"
    """Key: serial number; value: a Given as JSON."""
    REVOKED = "revoked"
    """Key: serial number; value: a Refusal as JSON."""
    KEY = "key"
    """Key: id; value: a KeyRecord as JSON, with digests in place of secrets."""
    KEY_GROUP = "key_group"
    """Key: name; value: a KeyGroup as JSON."""
    KEY_USE = "key_use"
    """Key: id of a key; value: when it was last used, seconds since the epoch."""


Facts = dict[FactKind, dict[str, str]]


def facts_of(rows: Iterable[tuple[str, str, str]]) -> Facts:
    """Facts by kind, from rows of (kind, key, value); kinds of a newer version are left out."""
    facts: Facts = {kind: {} for kind in FactKind}
    known = {kind.value: kind for kind in FactKind}
    for kind, key, value in rows:
        if kind in known:
            facts[known[kind]][key] = value
    return facts


class StoreError(Exception):
    """The store cannot be used now; the message says why."""


class Store(Protocol):
    """A small table of facts, and a ledger. Every method may raise `StoreError`."""

    @property
    def ledger(self) -> Ledger:
        """Shares of limits, and what principals have used."""
        ...

    async def open(self) -> None:
        """Connects, and makes the tables that are missing."""

    async def load(self) -> Facts:
        """Reads all facts; kinds that a newer version has written are left out."""
        ...

    async def put(self, kind: FactKind, key: str, value: str) -> None:
        """Writes one fact. Where several registries are, only the one that leads may."""

    async def delete(self, kind: FactKind, key: str) -> None:
        """Removes one fact; absent ones are ignored. As `put`."""

    async def try_lead(self, address: str) -> LeaderLease | None:
        """Takes the leadership if nobody has it; where only one registry can be, it always has.

        Args:
            address: where neurons and gateways reach this registry, for those that stand by.
        """
        ...

    async def renew(self) -> LeaderLease | None:
        """Prolongs the leadership that was taken; None if another registry leads now."""
        ...

    async def leader(self) -> str:
        """The address of the registry that leads, or empty where that is not known."""
        ...

    async def resign(self) -> None:
        """Gives the leadership up; does nothing without it."""

    async def close(self) -> None:
        """Disconnects."""
