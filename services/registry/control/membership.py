"""Who is in the fleet: neurons attach, report, fall silent, come back and leave.

Whatever changes about a neuron is told from here to all that keep something of it: records of use,
the scheduler's cache, jobs under way, and whoever watches the fleet.
"""

from __future__ import annotations

from collections.abc import Callable

from services.registry.control.placement_controller import PlacementController
from services.registry.control.returning import Settling
from services.registry.fleet.leases import Leases
from services.registry.fleet.members import ReportOutcome
from services.registry.fleet.records import NeuronIdentity, NeuronReport, StoredModel
from services.registry.fleet.state import FleetState
from services.registry.placement.executor import PlacementExecutor
from services.registry.placement.orders import Effects, NeuronLost
from services.registry.scheduler.cache import SchedulerCache


class FleetMembership:
    """The fleet's members and their leases.

    Args:
        fleet_state: has the fleet.
        cache: forgets a neuron that has changed.
        placements: hears of every change.
        executor: ends jobs on a neuron that was lost.
        leases: how long a silent neuron is a member.
        settling: is told of every neuron that is back.
        effects: is told of those that fall silent.
        on_change: called after any change that watchers want to hear of.

    Attributes:
        hardware_version: raised when models may fit elsewhere than before.
        models_version: raised when the list of models may have changed.
    """

    def __init__(
        self,
        fleet_state: FleetState,
        cache: SchedulerCache,
        placements: PlacementController,
        *,
        executor: PlacementExecutor,
        leases: Leases,
        settling: Settling,
        effects: Effects,
        on_change: Callable[[], None],
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._placements = placements
        self._executor = executor
        self._leases = leases
        self._settling = settling
        self._effects = effects
        self._on_change = on_change
        self.hardware_version = 1
        self.models_version = 1

    # -- what neurons say ---------------------------------------------------------------------

    def attach(self, identity: NeuronIdentity) -> int:
        """Admits a neuron.

        Returns: its epoch, for all that it says on this stream.

        Raises:
            NameTakenError: a live neuron at another address has the name.
        """
        epoch = self._fleet_state.fleet.attach(identity)
        self._hardware_changed()
        self._leases.renew(identity.name, self._fleet_state.clock())
        self._changed(identity.name)
        return epoch

    def report(self, name: str, epoch: int, report: NeuronReport, status: object = None) -> bool:
        """Takes a neuron's state and renews its lease; False if it was stale."""
        fleet, now = self._fleet_state.fleet, self._fleet_state.clock()
        member = fleet.members.get(name)
        outcome = fleet.report(name, epoch, report, now, status)
        if outcome is ReportOutcome.STALE:
            return False
        self._leases.renew(name, now)
        self._settling.heard_of(name)
        before = member.report if member else None
        if outcome is ReportOutcome.NEWS:
            if before is None or _hardware_differs(before, report):
                self._hardware_changed()
            self._changed(name, models_changed=_lists_differ(before, report))
        else:
            self._executor.on_member(name, now)
        return True

    def stream_broke(self, name: str, epoch: int) -> None:
        """A stream ended without farewell: lost at once, forgotten later."""
        if self._fleet_state.fleet.lose(name, epoch):
            self._leases.lose(name, self._fleet_state.clock())
            self._changed(name)

    def farewell(self, name: str, epoch: int) -> None:
        """Takes in that a neuron has left on purpose."""
        if self._fleet_state.fleet.remove(name, epoch):
            self._leases.end(name)
            self._settling.heard_of(name)
            self._hardware_changed()
            self._changed(name, models_changed=True)

    # -- what operators and time do -----------------------------------------------------------

    def cordon(self, name: str, *, cordoned: bool) -> None:
        """Keeps placements off a neuron, or lets them on again."""
        self._fleet_state.fleet.cordon(name, cordoned=cordoned)
        self._changed(name)

    def lapse(self, now: float) -> None:
        """Marks neurons lost whose lease has lapsed, and forgets those lost long ago."""
        lapses = self._leases.lapse(now)
        for end, names in ((self._lose, lapses.lost), (self._forget, lapses.forgotten)):
            for name in names:
                try:
                    end(name)
                except Exception as error:  # noqa: BLE001 - it is noted, and ends no other lease
                    self._fleet_state.note_fault("leases", error)

    def _lose(self, name: str) -> None:
        if self._fleet_state.fleet.lose(name):
            self._effects.record(NeuronLost(name))
            self._changed(name)

    def _forget(self, name: str) -> None:
        if self._fleet_state.fleet.remove(name):
            self._hardware_changed()
            self._changed(name, models_changed=True)

    def next_due(self) -> float | None:
        """When `lapse` has something to do; None for never."""
        return self._leases.next_due()

    def models_changed(self) -> None:
        """The catalogue or the pins have changed, and so the list of models may have."""
        self.models_version += 1

    # -- who hears of it ----------------------------------------------------------------------

    def _changed(self, name: str, *, models_changed: bool = False) -> None:
        fleet_state, now = self._fleet_state, self._fleet_state.clock()
        member = fleet_state.fleet.members.get(name)
        fleet_state.activity.observe(name, member, now)
        self._cache.forget(name)
        if member is not None:
            for instance in member.report.instances:
                self._forget_siblings(instance.model)
        self._executor.on_member(name, now)
        self._placements.on_news()
        if models_changed:
            self.models_version += 1
        self._on_change()

    def _hardware_changed(self) -> None:
        self.hardware_version += 1
        self.models_version += 1

    def _forget_siblings(self, model: str) -> None:
        """How many instances there are decides whether each is one of the minimum."""
        profile = self._fleet_state.profile(model)
        if profile is not None and self._fleet_state.wanted_instances(profile):
            for holder, _ in self._fleet_state.fleet.instances_of(model):
                self._cache.forget(holder.name)


def _lists_differ(old: NeuronReport | None, new: NeuronReport) -> bool:
    """True if the list of models may have changed: what is on disk, or loaded."""
    return old is None or old.stored != new.stored or _made_of(old) != _made_of(new)


def _made_of(report: NeuronReport) -> set[tuple[str, StoredModel | None]]:
    return {(i.instance_id, i.weights) for i in report.instances}


def _hardware_differs(old: NeuronReport, new: NeuronReport) -> bool:
    """True if other models may fit into the neuron when it is empty."""
    before = [(d.device_id, d.total_bytes, d.reserved_bytes) for d in old.devices]
    after = [(d.device_id, d.total_bytes, d.reserved_bytes) for d in new.devices]
    return before != after or old.stored != new.stored
