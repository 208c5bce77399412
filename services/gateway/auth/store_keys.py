"""The keys and groups of the registry's store, as far as this gateway has been told.

They are in memory alone: a gateway that starts while no registry is there knows none of them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from typing import Final

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import limits_pb2
from services.backplane import protobuf_time
from services.gateway.auth.holder import ConsoleLevel, KeyHolder, level_of
from services.gateway.auth.scopes import Scopes
from services.gateway.dialects.common.work_class import ClassName, ClassTerms
from services.gateway.limits.settings import KeyLimits

_RANKS: Final[tuple[ClassName, ...]] = ("interactive", "default", "batch")
_BY_NAME: Final[dict[str, ClassName]] = {one: one for one in _RANKS}
NO_SCOPES: Final = pb.KeyScopes()
_LIMITS: Final = frozenset(KeyLimits.__struct_fields__)


class StoreKeys:
    """Takes in what the registry tells of keys, and finds their holders by digest.

    Args:
        on_change: called when there are others.
        clock: seconds, monotonic.

    Attributes:
        revision: of the last change; None: everything is wanted.
        registry_incarnation_id: which start of the registry it came from.
        has_keys: some key was made once.
        is_settled: a registry has told of all keys, or one of an older version that there are none.
        confirmed_at: when the registry has last said anything, by the clock; -inf: never.
    """

    def __init__(
        self, on_change: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_change = on_change
        self._clock = clock
        self._tables = _Tables()
        self._coming: _Tables | None = None
        self._used: set[str] = set()
        self.revision: int | None = None
        self.registry_incarnation_id = ""
        self.has_keys = False
        self.is_settled = False
        self.confirmed_at = -math.inf

    @property
    def is_known(self) -> bool:
        """True once a registry has told of its keys since this process started."""
        return self.confirmed_at > -math.inf

    def get(self, digest: bytes) -> KeyHolder | None:
        """The holder of a key, whether it is still good or not; None: there is no such key."""
        return self._tables.holders.get(digest)

    def used(self, key_id: str) -> None:
        """Notes that a key let a request in; the registry is told later (`take_used`)."""
        self._used.add(key_id)

    def take_used(self) -> list[str]:
        """Ids of keys that were used since this was last called."""
        used, self._used = self._used, set()
        return sorted(used)

    def group(self, name: str) -> pb.KeyGroup | None:
        """A group by its name."""
        return self._tables.groups.get(name)

    def group_limits(self, name: str) -> KeyLimits | None:
        """How much each principal of a group may ask for."""
        return self._tables.group_limits.get(name)

    def limits(self, principal: str) -> KeyLimits | None:
        """How much a principal may ask for; of several keys with limits, the one told last."""
        known = self._tables.limits.get(principal)
        return None if known is None else next(reversed(known.values()))

    def apply(self, change: pb.WatchKeysResponse) -> None:
        """Applies one message of `WatchKeys`; a full list takes effect with its last page.

        Each page is taken in as it comes, so that many keys hold up nobody.
        """
        self.confirmed_at = self._clock()
        if change.is_whole:
            self._coming = _Tables()
        tables = self._tables if self._coming is None else self._coming
        is_news = tables.take(change)
        if change.has_more:
            return
        if self._coming is not None:
            self._tables, self._coming = self._coming, None
        self.is_settled = True
        self.revision = change.revision
        self.registry_incarnation_id = change.registry_incarnation_id
        has_keys = self.has_keys or change.has_keys  # a lost store opens no gateway
        if is_news or change.is_whole or has_keys != self.has_keys:
            self.has_keys = has_keys
            self._on_change()

    def broken(self) -> None:
        """Forgets an incomplete full list: the stream broke before its last page."""
        self._coming = None


class _Tables:
    """Keys and groups as they are, or are about to be.

    Attributes:
        groups: by name.
        holders: by digest.
        limits: by principal and id of the key.
        group_limits: by name, of groups that have any.
    """

    def __init__(self) -> None:
        self._records: dict[str, pb.KeyRecord] = {}
        self.groups: dict[str, pb.KeyGroup] = {}
        self.holders: dict[bytes, KeyHolder] = {}
        self.limits: dict[str, dict[str, KeyLimits]] = {}
        self.group_limits: dict[str, KeyLimits] = {}

    def take(self, page: pb.WatchKeysResponse) -> bool:
        """Takes a page in; whether it has said anything. Groups come before their keys."""
        for key_id in page.gone_key_ids:
            self._drop(key_id)
        for name in page.gone_groups:
            self.groups.pop(name, None)
            self.group_limits.pop(name, None)
        for group in page.groups:
            self.groups[group.name] = group
            self.group_limits.pop(group.name, None)
            limits = merged(group.limits, None)
            if limits is not None:
                self.group_limits[group.name] = limits
        groups = {*page.gone_groups, *(group.name for group in page.groups)}
        if groups:
            for record in [one for one in self._records.values() if one.key.group in groups]:
                self._add(record)
        for record in page.keys:
            self._add(record)
        return bool(groups or page.keys or page.gone_key_ids)

    def _drop(self, key_id: str) -> None:
        record = self._records.pop(key_id, None)
        if record is None:
            return
        for secret in record.secrets:
            self.holders.pop(secret.digest, None)
        limits = self.limits.get(record.key.principal, {})
        limits.pop(key_id, None)
        if not limits:
            self.limits.pop(record.key.principal, None)

    def _add(self, record: pb.KeyRecord) -> None:
        key = record.key
        self._drop(key.id)
        self._records[key.id] = record
        group = self.groups.get(key.group)
        limits = merged(key.limits, None if group is None else group.limits)
        if limits is not None:
            self.limits.setdefault(key.principal, {})[key.id] = limits
        ends_at = protobuf_time.seconds(key.expires_at) if key.HasField("expires_at") else math.inf
        may = what_holders_may(key.scopes, key.roles, key.group, group)
        for secret in record.secrets:
            until = protobuf_time.seconds(secret.ends_at) if secret.HasField("ends_at") else ends_at
            self.holders[secret.digest] = dataclasses.replace(
                may,
                source="store",
                principal=key.principal,
                key_id=key.id,
                digest=secret.digest,
                ends_at=min(ends_at, until),
            )


def what_holders_may(
    scopes: pb.KeyScopes, roles: Iterable[str], group_name: str, group: pb.KeyGroup | None
) -> KeyHolder:
    """What a key or group permits, as a `KeyHolder` without identity.

    The caller fills in principal, key and end.
    """
    outer = NO_SCOPES if group is None else group.scopes
    made = Scopes((scopes.models, outer.models), (scopes.dialects, outer.dialects))
    roles = frozenset(roles)
    return KeyHolder(
        source="store",
        group=group_name,
        asks="user" in roles,
        # the console shows the whole fleet
        console=level_of(roles) if made.are_open else ConsoleLevel.NONE,
        terms=_terms(scopes, outer),
        scopes=made,
    )


def merged(own: limits_pb2.Limits, outer: limits_pb2.Limits | None) -> KeyLimits | None:
    """The limits of a key, and where it says nothing those of its group; None: there are none."""
    fields = {} if outer is None else {field.name: value for field, value in outer.ListFields()}
    fields |= {field.name: value for field, value in own.ListFields()}
    known = {name: value for name, value in fields.items() if name in _LIMITS}
    return KeyLimits(**known) if known else None


def _terms(own: pb.KeyScopes, outer: pb.KeyScopes) -> ClassTerms:
    usual = own.usual_class or outer.usual_class
    named = [one for one in (own.highest_class, outer.highest_class) if one]
    highest: list[ClassName] = [_class(one, "batch") for one in named]
    lowest: ClassName = max(highest, key=_RANKS.index) if highest else "interactive"
    return ClassTerms(_class(usual, "default"), lowest)


def _class(name: str, otherwise: ClassName) -> ClassName:
    """A class by its name; a name of a newer version is taken for something that is known."""
    return _BY_NAME.get(name, otherwise)
