"""The fleet's members, what they hold, and which change came when.

Nothing here waits, reads a clock or calls anybody. Every method that changes something raises
`revision` and remembers which member changed; `changed_since` is what watchers resume from.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Final

from services.registry.fleet.model_index import ModelIndex
from services.registry.fleet.records import (
    Instance,
    InstanceState,
    Member,
    NeuronIdentity,
    NeuronReport,
    StoredModel,
)

_ANNOUNCED_SECONDS: Final = 5.0  # an instance that a load announced is believed without a report
_TOMBSTONES: Final = 1024  # removed members that resuming watchers can still be told of


class ReportOutcome(enum.Enum):
    """What has changed with a member's new report."""

    STALE = "stale"
    """Older than what is known; it changed nothing."""
    ALIVE = "alive"
    """Nothing but that the neuron is alive."""
    NEWS = "news"
    """It says something new."""


class NameTakenError(Exception):
    """Another live neuron, at another address, has this name."""


class Fleet:
    """Members by name, with an index from model to the members that hold it."""

    def __init__(self) -> None:
        self.revision = 0
        self.members: dict[str, Member] = {}
        self._index = ModelIndex()
        self._changed: dict[str, int] = {}
        self._removed: dict[str, int] = {}
        self._floor = 0
        self._epoch = 0
        self._cordoned: set[str] = set()
        self._announced: dict[str, dict[str, tuple[Instance, float]]] = {}
        self._departed: dict[str, set[str]] = {}

    # -- membership ---------------------------------------------------------------------------

    def attach(self, identity: NeuronIdentity) -> int:
        """Admits a neuron, new or back again.

        Returns: its epoch; what an older epoch says from now on is ignored.

        Raises:
            NameTakenError: a live neuron at another address has the name.
        """
        old = self.members.get(identity.name)
        same = old is not None and old.identity.incarnation_id == identity.incarnation_id
        if old is not None and not same and not old.is_lost:
            _refuse_namesake(old.identity, identity)
        self._epoch += 1
        if old is not None and same:
            member = dataclasses.replace(old, identity=identity, epoch=self._epoch)
        else:
            self._announced.pop(identity.name, None)
            self._departed.pop(identity.name, None)
            cordoned = identity.name in self._cordoned
            member = Member(identity, self._epoch, is_cordoned=cordoned)
        self._put(member)
        return self._epoch

    def report(
        self, name: str, epoch: int, report: NeuronReport, now: float, status: object
    ) -> ReportOutcome:
        """Takes a neuron's whole state. A sign of life is no change that watchers are told of.

        Args:
            name: who reports.
            epoch: what `attach` gave; another one is stale.
            report: the state; an older sequence than the last is stale.
            now: seconds on the monotonic clock.
            status: the neuron's own message, kept with it.

        Returns: what it was.
        """
        old = self.members.get(name)
        if old is None or old.epoch != epoch or report.sequence < old.report.sequence:
            return ReportOutcome.STALE
        report = self._reconciled(name, report, now)
        new = dataclasses.replace(
            old, report=report, reported_epoch=epoch, is_lost=False, status=status
        )
        if old.has_reported and not old.is_lost and report.says_the_same(old.report):
            self.members[name] = new
            return ReportOutcome.ALIVE
        self._put(new)
        return ReportOutcome.NEWS

    def lose(self, name: str, epoch: int | None = None) -> bool:
        """Marks a member lost; its instances are still listed, and get no requests.

        Args:
            name: of the neuron.
            epoch: of the stream that broke; None where its lease has lapsed.

        Returns: False if it was lost already, or is attached by a newer stream.
        """
        old = self.members.get(name)
        if old is None or old.is_lost or (epoch is not None and old.epoch != epoch):
            return False
        self._put(dataclasses.replace(old, is_lost=True))
        return True

    def remove(self, name: str, epoch: int | None = None) -> bool:
        """Takes a member off the list, with what it holds; False if it is no member any more."""
        old = self.members.get(name)
        if old is None or (epoch is not None and old.epoch != epoch):
            return False
        del self.members[name]
        self._index.update(old, None)
        self._announced.pop(name, None)
        self._departed.pop(name, None)
        self._changed.pop(name, None)
        self.revision += 1
        self._removed[name] = self.revision
        while len(self._removed) > _TOMBSTONES:
            self._floor = self._removed.pop(next(iter(self._removed)))
        return True

    def cordon(self, name: str, *, cordoned: bool) -> None:
        """Keeps placements off a neuron, also while it is away; or lets them on again."""
        (self._cordoned.add if cordoned else self._cordoned.discard)(name)
        old = self.members.get(name)
        if old is not None and old.is_cordoned != cordoned:
            self._put(dataclasses.replace(old, is_cordoned=cordoned))

    # -- news that arrives before the neuron's next report -------------------------------------

    def announce(self, name: str, incarnation_id: str, instance: Instance, now: float) -> None:
        """Lists an instance that a load has just finished, unless a report is ahead of that."""
        old = self.members.get(name)
        if old is None or old.identity.incarnation_id != incarnation_id:
            return
        instances = {i.instance_id: i for i in old.report.instances}
        told = instances.get(instance.instance_id)
        if told is not None and told.state is not InstanceState.LOADING:
            return
        announced = self._announced.setdefault(name, {})
        announced[instance.instance_id] = (instance, now + _ANNOUNCED_SECONDS)
        instances[instance.instance_id] = instance
        report = dataclasses.replace(old.report, instances=tuple(instances.values()))
        self._put(dataclasses.replace(old, report=report))

    def depart(self, name: str, incarnation_id: str, instance_id: str) -> None:
        """Strikes an instance that an unload has just freed; late reports do not bring it back."""
        old = self.members.get(name)
        if old is None or old.identity.incarnation_id != incarnation_id:
            return
        self._announced.get(name, {}).pop(instance_id, None)
        left = tuple(i for i in old.report.instances if i.instance_id != instance_id)
        if left != old.report.instances:
            self._departed.setdefault(name, set()).add(instance_id)
            report = dataclasses.replace(old.report, instances=left)
            self._put(dataclasses.replace(old, report=report))

    def awaits_report(self, name: str) -> bool:
        """True while the last report is older than an unload, and so its free memory is too."""
        return bool(self._departed.get(name))

    # -- questions ----------------------------------------------------------------------------

    def instances_of(self, model: str) -> Iterator[tuple[Member, Instance]]:
        """Every instance of a model anywhere, in whatever state, lost members included."""
        for name in self._index.holders.get(model, ()):
            member = self.members[name]
            for instance in member.report.instances:
                if instance.model == model:
                    yield member, instance

    def has_instances(self, model: str) -> bool:
        """True if any instance of a model exists, in whatever state."""
        return model in self._index.holders

    def stored(self, model: str) -> dict[str, StoredModel]:
        """Which neurons have a model's files on disk."""
        return self._index.stored.get(model, {})

    def stored_models(self) -> Iterator[str]:
        """The names of all models on any disk."""
        return iter(self._index.stored)

    @property
    def disk_revision(self) -> int:
        """Grows when the files on any disk change."""
        return self._index.disk_revision

    @property
    def disks(self) -> Mapping[str, int]:
        """The members with files, each with the revision of when they changed last."""
        return self._index.disks

    def loaded_models(self) -> Iterator[str]:
        """The names of all models of which an instance exists."""
        return iter(self._index.holders)

    def changed_since(self, revision: int) -> list[tuple[int, str, bool]] | None:
        """What changed after a revision, oldest first, each member once.

        Returns: (revision, name, still a member), or None where it is too long ago to say.
        """
        if revision < self._floor or revision > self.revision:
            return None
        changes = [(at, name, True) for name, at in _newer(self._changed, revision)]
        changes += [(at, name, False) for name, at in _newer(self._removed, revision)]
        changes.sort()
        return changes

    def mark(self) -> int:
        """A revision for a change that is not a member's: the catalogue's."""
        self.revision += 1
        return self.revision

    # -- inside -------------------------------------------------------------------------------

    def _put(self, member: Member) -> None:
        self._index.update(self.members.get(member.name), member)
        self.members[member.name] = member
        self.revision += 1
        self._removed.pop(member.name, None)
        self._changed.pop(member.name, None)
        self._changed[member.name] = self.revision

    def _reconciled(self, name: str, report: NeuronReport, now: float) -> NeuronReport:
        """The report, with what is known better than it until a later report agrees."""
        listed = {i.instance_id for i in report.instances}
        departed = self._departed.get(name)
        if departed:
            departed &= listed
            report = dataclasses.replace(
                report,
                instances=tuple(i for i in report.instances if i.instance_id not in departed),
            )
        announced = self._announced.get(name)
        if not announced:
            return report
        instances = {i.instance_id: i for i in report.instances}
        for instance_id, (instance, until) in list(announced.items()):
            seen = instances.get(instance_id)
            behind = seen is None or seen.state is InstanceState.LOADING
            if behind and now < until:
                instances[instance_id] = instance
            else:
                del announced[instance_id]
        return dataclasses.replace(report, instances=tuple(instances.values()))


def _refuse_namesake(old: NeuronIdentity, new: NeuronIdentity) -> None:
    if old.address != new.address:
        raise NameTakenError(
            f"{old.name!r} is attached from {old.address}; {new.address} must use another name"
        )


def _newer(table: dict[str, int], revision: int) -> Iterator[tuple[str, int]]:
    """The tail of a table that is ordered by revision."""
    for name in reversed(table):
        at = table[name]
        if at <= revision:
            return
        yield name, at
