"""All keys and groups of the fleet: made, replaced and taken back here.

What is told is in the store already, so that whichever registry leads knows the same. The secrets
of keys are nowhere: they leave in the answer that makes them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from cortex.v1 import key_service_pb2 as pb
from services.backplane import protobuf_time
from services.backplane.changes import Changes
from services.backplane.errors import FleetError, Reason
from services.backplane.security import api_key
from services.registry.keys import checks, records
from services.registry.keys.groups import KeyGroups
from services.registry.keys.revisions import Revisions
from services.registry.store.store import FactKind, Facts
from services.registry.store.write_behind import FactWriter, durably

USUAL_OVERLAP_SECONDS: Final = 86_400.0
LONGEST_OVERLAP_SECONDS: Final = 30 * 86_400.0
MOST_KEYS: Final = 20_000
# Keys that have ended are shown so long, for those who ask who it was.
_KEPT_SECONDS: Final = 90 * 86_400.0

log = structlog.get_logger()


class KeyDirectory:
    """All API keys of the fleet: creates, lists, rotates and revokes them.

    Args:
        facts: all that the store knew when the leadership was taken.
        fact_writer: writes to the store.
        clock: seconds since the epoch.

    Attributes:
        groups: those that keys are in.
        changes: moves on with every change that gateways want to hear of.
        revisions: what has changed since when; `key/ID` and `group/NAME`.
    """

    def __init__(
        self, facts: Facts, fact_writer: FactWriter, clock: Callable[[], float] = time.time
    ) -> None:
        self._fact_writer = fact_writer
        self._clock = clock
        self._keys = records.keys_of(facts)
        self.groups = KeyGroups(facts, fact_writer, clock)
        self._uses = records.uses_of(facts)
        self._changing = asyncio.Lock()  # what is checked is still so when it is written
        self.changes = Changes()
        self.revisions = Revisions()

    @property
    def has_keys(self) -> bool:
        """True if there is any key, revoked and expired ones included.

        The last one is kept until there is another, so that a fleet with keys never becomes open.
        """
        return bool(self._keys)

    @property
    def live(self) -> list[pb.KeyRecord]:
        """Keys that gateways admit: those that were not revoked and have not expired."""
        return [record for record in self._keys.values() if not self._has_ended(record.key)]

    def live_record(self, key_id: str) -> pb.KeyRecord | None:
        """One key that gateways admit; None where it has ended."""
        record = self._keys.get(key_id)
        return None if record is None or self._has_ended(record.key) else record

    def keys(self, *, include_ended: bool) -> dict[str, pb.Key]:
        """Keys by id, in its order."""
        shown = sorted(self._keys.items())
        return {
            key_id: self._shown(record)
            for key_id, record in shown
            if include_ended or not self._has_ended(record.key)
        }

    def key(self, named: str) -> pb.Key:
        """One key, by its id or name.

        Raises:
            FleetError: NOT_FOUND: there is none.
        """
        return self._shown(self._found(named))

    async def create(self, request: pb.CreateKeyRequest) -> tuple[str, pb.Key]:
        """Makes a key; its whole text, and what is known of it.

        Raises:
            FleetError: a field cannot be so, there are too many keys, or the store failed.
        """
        checks.check_name(request.name, "name")
        principal = request.principal or request.name
        checks.check_name(principal, "principal")
        checks.check_scopes(request.scopes, "scopes")
        checks.check_limits(request.limits, "limits")
        roles = list(dict.fromkeys(request.roles)) or ["user"]
        checks.check_roles(roles, request.scopes, "roles")
        now = self._clock()
        if request.HasField("expires_at"):
            checks.check_end(request.expires_at, "expires_at", now=now)
        async with self._changing:
            await self._drop_ended(now)
            self._check_new(request)
            key = pb.Key(
                id=self._new_id(),
                name=request.name,
                principal=principal,
                group=request.group,
                roles=roles,
                created_at=protobuf_time.timestamp(now),
            )
            for field in ("scopes", "limits", "expires_at"):
                if request.HasField(field):
                    getattr(key, field).CopyFrom(getattr(request, field))
            text = api_key.new_key(key.id)
            secret = pb.KeySecret(digest=api_key.digest_of(text))
            await self._keep(pb.KeyRecord(key=key, secrets=[secret]))
        log.info("key.created", key_id=key.id, principal=principal, group=key.group)
        return text, key

    async def rotate(self, named: str, overlap_seconds: float) -> tuple[str, pb.Key]:
        """Gives a key another secret; the whole text, and what is known of the key.

        Args:
            named: its id or name.
            overlap_seconds: how long the secret before stays good; those before that one end.

        Raises:
            FleetError: NOT_FOUND, BAD_REQUEST, or the store failed.
        """
        if not 0 <= overlap_seconds <= LONGEST_OVERLAP_SECONDS:
            message = f"The overlap is 0 to {LONGEST_OVERLAP_SECONDS / 86_400:.0f} days."
            raise FleetError(Reason.BAD_REQUEST, message, field="overlap")
        async with self._changing:
            fresh = self._changed(self._good(named))
            now = self._clock()
            text = api_key.new_key(fresh.key.id)
            secrets = [pb.KeySecret(digest=api_key.digest_of(text))]
            fresh.key.rotated_at.CopyFrom(protobuf_time.timestamp(now))
            fresh.key.ClearField("old_secret_ends_at")
            if overlap_seconds:
                ends_at = protobuf_time.timestamp(now + overlap_seconds)
                fresh.key.old_secret_ends_at.CopyFrom(ends_at)
                secrets.append(pb.KeySecret(digest=fresh.secrets[0].digest, ends_at=ends_at))
            del fresh.secrets[:]
            fresh.secrets.extend(secrets)
            await self._keep(fresh)
        log.info("key.rotated", key_id=fresh.key.id, overlap_seconds=overlap_seconds)
        return text, self._shown(fresh)

    async def revoke(self, named: str) -> pb.Key:
        """Takes a key back, for ever; what is known of it. One that is revoked stays so.

        Raises:
            FleetError: NOT_FOUND, or the store failed.
        """
        async with self._changing:
            record = self._found(named)
            if record.key.HasField("revoked_at"):
                return self._shown(record)
            fresh = self._changed(record)
            fresh.key.revoked_at.CopyFrom(protobuf_time.timestamp(self._clock()))
            del fresh.secrets[:]
            await self._keep(fresh)
        log.info("key.revoked", key_id=fresh.key.id, principal=fresh.key.principal)
        return self._shown(fresh)

    async def put_group(self, group: pb.KeyGroup) -> pb.KeyGroup:
        """Makes a group, or puts another in its place; raises as `KeyGroups.put`."""
        async with self._changing:
            fresh = await self.groups.put(group)
            self._tell(f"group/{group.name}")
        return fresh

    async def delete_group(self, name: str) -> None:
        """Removes a group.

        Raises:
            FleetError: NOT_FOUND; BAD_REQUEST: keys are in it; or the store failed.
        """
        async with self._changing:
            self.groups.require(name, "name")
            members = [record.key.name for record in self.live if record.key.group == name]
            if members:
                told = f"{len(members)} keys are in {name!r}, {members[0]!r} among them."
                raise FleetError(Reason.BAD_REQUEST, told, field="name")
            await self.groups.delete(name)
            self._tell(f"group/{name}")

    def used(self, key_ids: Iterable[str]) -> None:
        """Records that keys were used just now; stored in the background."""
        now = self._clock()
        for key_id in key_ids:
            if key_id in self._keys:
                self._uses[key_id] = now
                self._fact_writer.write_later(FactKind.KEY_USE, key_id, f"{now:.0f}")

    def _check_new(self, request: pb.CreateKeyRequest) -> None:
        if len(self._keys) >= MOST_KEYS:
            raise FleetError(Reason.QUEUE_FULL, f"There are {MOST_KEYS} keys already.")
        if request.group:
            self.groups.require(request.group, "group")
        if any(record.key.name == request.name for record in self.live):
            told = f"There is a key by the name {request.name!r} already."
            raise FleetError(Reason.BAD_REQUEST, told, field="name")

    def _new_id(self) -> str:
        while (key_id := api_key.new_id()) in self._keys:
            pass
        return key_id

    def _found(self, named: str) -> pb.KeyRecord:
        record = self._keys.get(named)
        if record is None:
            having = [one for one in self._keys.values() if one.key.name == named]
            # the good one, else the one that has ended last
            having.sort(key=lambda one: (not self._has_ended(one.key), one.key.created_at.seconds))
            record = having[-1] if having else None
        if record is None:
            told = f"There is no key {named!r}: neither an id nor a name is that."
            raise FleetError(Reason.NOT_FOUND, told, field="key")
        return record

    def _good(self, named: str) -> pb.KeyRecord:
        record = self._found(named)
        if self._has_ended(record.key):
            told = f"The key {named!r} has ended; make another one."
            raise FleetError(Reason.BAD_REQUEST, told, field="key")
        return record

    def _has_ended(self, key: pb.Key) -> bool:
        if key.HasField("revoked_at"):
            return True
        return key.HasField("expires_at") and (
            protobuf_time.seconds(key.expires_at) <= self._clock()
        )

    def _shown(self, record: pb.KeyRecord) -> pb.Key:
        key = pb.Key()
        key.CopyFrom(record.key)
        if record.key.id in self._uses:
            key.last_used_at.CopyFrom(protobuf_time.timestamp(self._uses[record.key.id]))
        return key

    def _changed(self, record: pb.KeyRecord) -> pb.KeyRecord:
        fresh = pb.KeyRecord()
        fresh.CopyFrom(record)
        return fresh

    async def _keep(self, record: pb.KeyRecord) -> None:
        key_id = record.key.id
        await durably(self._fact_writer.write(FactKind.KEY, key_id, records.text_of(record)))
        self._keys[key_id] = record
        self._tell(f"key/{key_id}")

    async def _drop_ended(self, now: float) -> None:
        """Forgets keys that have ended long ago."""
        for key_id, record in list(self._keys.items()):
            ends = [
                protobuf_time.seconds(getattr(record.key, field))
                for field in ("revoked_at", "expires_at")
                if record.key.HasField(field)
            ]
            if ends and min(ends) + _KEPT_SECONDS < now:
                await durably(self._fact_writer.delete(FactKind.KEY, key_id))
                await durably(self._fact_writer.delete(FactKind.KEY_USE, key_id))
                del self._keys[key_id]
                self._uses.pop(key_id, None)

    def _tell(self, name: str) -> None:
        self.revisions.mark(name)
        self.changes.bump()
