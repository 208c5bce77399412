"""The rules of leadership by a Lease, as client-go's leader election has them. Pure.

Whoever wants to lead looks at the Lease again and again, and notes by its own clock when what
stands in it has changed last; the times that stand in it are for people. A Lease that has not
changed for as long as it says itself is nobody's. It is taken by a write that replaces exactly the
version that was looked at, so that of several one succeeds. Its holder writes it anew long before,
and leads no longer than its own clock says since it began the last write that succeeded: others
cannot have seen that write earlier, so they wait for longer.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from typing import Any, Final

from services.registry.store.kubernetes.api_server import Body

EPOCH: Final = "cortex/epoch"
"""Annotation of every object: the epoch of the leader that wrote it last."""
ADDRESS: Final = "cortex/address"
"""Annotation of the Lease: where its holder is reached."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What stands in a Lease.

    Attributes:
        holder: the identity of who leads; empty: nobody.
        seconds: for how long nobody else takes it, after it has changed.
        acquired: when the holder took it, for people.
        renewed: when it was written last, for people; with every write it is another one.
        transitions: how often the holder has changed.
        address: where neurons and gateways reach the holder.
        epoch: grows with every change of leader, as `transitions`, and is no less than the clock:
            a Lease that was made anew gives no epoch that a neuron has seen before.
    """

    holder: str = ""
    seconds: int = 0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0
    address: str = ""
    epoch: int = 0


class LeaseWatch:
    """What one who would lead has seen of the Lease, and when, by its own clock.

    Args:
        identity: its own.
        lease_seconds: for how long it leads after a write.
    """

    def __init__(self, identity: str, lease_seconds: float) -> None:
        self._identity = identity
        self._lease_seconds = lease_seconds
        self._record: LeaseRecord | None = None
        self._seen_at = 0.0

    @property
    def record(self) -> LeaseRecord | None:
        """The Lease as it was seen last; None before."""
        return self._record

    def see(self, record: LeaseRecord, now: float) -> None:
        """Notes the Lease as it is; `now` is monotonic."""
        if record != self._record:
            self._record, self._seen_at = record, now

    def may_take(self, now: float) -> bool:
        """Whether the Lease, as it was seen last, is nobody's, or its own."""
        record = self._record
        if record is None or record.holder in {"", self._identity}:
            return True
        return now >= self._seen_at + (record.seconds or math.ceil(self._lease_seconds))

    def taken(self, address: str, *, clock: float, least_epoch: int = 0) -> LeaseRecord:
        """The Lease to write in the place of the one that was seen, to lead.

        Args:
            address: where it is reached.
            clock: seconds since the epoch.
            least_epoch: the epoch is no less.
        """
        before = self._record or LeaseRecord(transitions=-1)
        told = _told(clock)
        return LeaseRecord(
            holder=self._identity,
            seconds=math.ceil(self._lease_seconds),
            acquired=told,
            renewed=told,
            transitions=before.transitions + 1,
            address=address,
            epoch=max(before.epoch + 1, int(clock), least_epoch),
        )


def renewed(record: LeaseRecord, clock: float) -> LeaseRecord:
    """The same leadership, for longer; `clock`: seconds since the epoch."""
    return dataclasses.replace(record, renewed=_told(clock))


def released(record: LeaseRecord, clock: float) -> LeaseRecord:
    """Nobody's, as client-go writes it; `clock`: seconds since the epoch."""
    return dataclasses.replace(record, holder="", seconds=1, address="", renewed=_told(clock))


def record_of(body: Body) -> LeaseRecord:
    """Reads a Lease; what is missing in it is empty."""
    spec, notes = _part(body, "spec"), _part(_part(body, "metadata"), "annotations")
    return LeaseRecord(
        holder=str(spec.get("holderIdentity") or ""),
        seconds=_whole(spec.get("leaseDurationSeconds")),
        acquired=str(spec.get("acquireTime") or ""),
        renewed=str(spec.get("renewTime") or ""),
        transitions=_whole(spec.get("leaseTransitions")),
        address=str(notes.get(ADDRESS) or ""),
        epoch=_whole(notes.get(EPOCH)),
    )


def body_of(record: LeaseRecord, metadata: Body) -> Body:
    """The Lease as it is written; of `metadata` all is kept but what is ours."""
    notes = _part(metadata, "annotations") | {ADDRESS: record.address, EPOCH: str(record.epoch)}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata | {"annotations": notes},
        "spec": {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": record.seconds,
            "acquireTime": record.acquired,
            "renewTime": record.renewed,
            "leaseTransitions": record.transitions,
        },
    }


def _told(clock: float) -> str:
    """A time as Kubernetes' MicroTime."""
    told = dt.datetime.fromtimestamp(clock, dt.UTC)
    return told.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _part(body: Body, name: str) -> Body:
    part: Any = body.get(name)
    return part if isinstance(part, dict) else {}


def _whole(value: object) -> int:
    try:
        return max(0, int(str(value)))
    except ValueError:
        return 0
