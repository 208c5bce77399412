"""The groups that keys and tokens of identity providers are in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from cortex.v1 import key_service_pb2 as pb
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.registry.keys import checks, records
from services.registry.store.store import FactKind, Facts
from services.registry.store.write_behind import FactWriter, durably

MOST_GROUPS: Final = 1_000

log = structlog.get_logger()


class KeyGroups:
    """All groups. Whoever changes them holds the lock of the directory.

    Args:
        facts: all that the store knew when the leadership was taken.
        fact_writer: writes to the store.
        clock: seconds since the epoch.
    """

    def __init__(self, facts: Facts, fact_writer: FactWriter, clock: Callable[[], float]) -> None:
        self._fact_writer = fact_writer
        self._clock = clock
        self._groups = records.groups_of(facts)

    def every(self) -> list[pb.KeyGroup]:
        """All of them, by name."""
        return [self._groups[name] for name in sorted(self._groups)]

    def get(self, name: str) -> pb.KeyGroup | None:
        """One of them."""
        return self._groups.get(name)

    def require(self, name: str, field: str) -> None:
        """Checks that there is a group.

        Raises:
            FleetError: NOT_FOUND, with the field.
        """
        if name not in self._groups:
            raise FleetError(Reason.NOT_FOUND, f"There is no group {name!r}.", field=field)

    async def put(self, group: pb.KeyGroup) -> pb.KeyGroup:
        """Makes a group, or puts another in its place.

        Raises:
            FleetError: a field cannot be so, there are too many, or the store failed.
        """
        checks.check_group_name(group.name)
        checks.check_scopes(group.scopes, "group.scopes")
        checks.check_limits(group.limits, "group.limits")
        checks.check_roles(group.roles, group.scopes, "group.roles")
        before = self._groups.get(group.name)
        if before is None and len(self._groups) >= MOST_GROUPS:
            raise FleetError(Reason.QUEUE_FULL, f"There are {MOST_GROUPS} groups already.")
        fresh = pb.KeyGroup()
        fresh.CopyFrom(group)
        made = protobuf_time.timestamp(self._clock()) if before is None else before.created_at
        fresh.created_at.CopyFrom(made)
        text = records.text_of(fresh)
        await durably(self._fact_writer.write(FactKind.KEY_GROUP, group.name, text))
        self._groups[group.name] = fresh
        log.info("key_group.put", group=group.name)
        return fresh

    async def delete(self, name: str) -> None:
        """Removes a group, which has no keys any more.

        Raises:
            FleetError: the store failed.
        """
        await durably(self._fact_writer.delete(FactKind.KEY_GROUP, name))
        del self._groups[name]
        log.info("key_group.deleted", group=name)
