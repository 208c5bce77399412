"""Everything that lives while this registry leads: state, watchers, calls to neurons."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Final

import structlog

from services.backplane.changes import Changes
from services.backplane.process.faults import Faults
from services.backplane.security.credentials import FleetCredentials
from services.backplane.timeouts import timeout
from services.registry.accounting.allowances import Allowances
from services.registry.accounting.device_use import DeviceUseIntake
from services.registry.accounting.usage import UsageLedger
from services.registry.catalogue import catalogue as catalogues
from services.registry.catalogue.catalogue import Catalogue, Difference
from services.registry.control.control_plane import ControlPlane
from services.registry.control.returning import neurons_to_wait_for
from services.registry.fleet.footprints import Footprints
from services.registry.fleet.leases import Leases
from services.registry.fleet.policy import policy_of
from services.registry.fleet.state import FleetState
from services.registry.joining.joining import Joining
from services.registry.joining.revocations import Revocations
from services.registry.keys.directory import KeyDirectory
from services.registry.metrics import RegistryMetrics
from services.registry.placement import errors
from services.registry.placement.orders import Event, LoadEnded
from services.registry.rpc.fleet_watch import Watchers
from services.registry.rpc.history import EventHistory
from services.registry.rpc.model_list import ModelDirectory
from services.registry.rpc.neuron_calls import NeuronCalls
from services.registry.rpc.neuron_dialer import keep_dialling
from services.registry.rpc.order_queue import OrderQueue
from services.registry.settings import Settings
from services.registry.store import write_behind
from services.registry.store.leader_lease import LeaderLease
from services.registry.store.store import FactKind, Facts
from services.registry.store.write_behind import FactWriter

# Pause after a defect, so that one that stays does not take the whole processor.
_CRASH_SECONDS: Final = 1.0

log = structlog.get_logger()


class LeaderTerm:
    """One leadership, from taking it to losing it.

    Args:
        settings: of the registry.
        catalogue: as it is now; `reload` reads it again.
        facts: all that the store knew when the leadership was taken.
        fact_writer: writes to the store.
        metrics: count across terms.
        faults: what nobody foresaw; a task of the term that ends by itself breaks the process.
        leader_lease: the right to lead, as it was granted first.
        credentials: the fleet's; None: plain text.

    Attributes:
        incarnation_id: of this term; what watchers have seen of another one means nothing here.
        started_at: seconds since the epoch.
        ended: set when the leadership is over.
        changes: moves on with every change of the fleet, and when the leadership is over.
        history: what has happened lately.
        control: all that is decided.
        model_list: what models there are.
        watchers: the streams of changes to gateways.
        credentials: what neurons are dialled with; None: plain text.
        revocations: which certificates are refused.
        joining: who gets one.
        keys: which clients may ask.
        allowances: how much they may still ask for.
        usage: what they have used.
        device_use: whom the devices have worked for.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        catalogue: Catalogue,
        facts: Facts,
        fact_writer: FactWriter,
        metrics: RegistryMetrics,
        faults: Faults,
        leader_lease: LeaderLease,
        credentials: FleetCredentials | None = None,
    ) -> None:
        self.credentials = credentials
        self._settings = settings
        self._leader_lease = leader_lease
        self.fact_writer = fact_writer
        self._metrics = metrics
        self.faults = faults
        self._woken = asyncio.Event()
        self.incarnation_id = uuid.uuid4().hex
        self.started_at = time.time()
        self.ended = asyncio.Event()
        self.changes = Changes()
        fleet_state = _restored(settings, catalogue, facts, faults)
        self.history = EventHistory()
        orders = OrderQueue(self._record)
        self.control = ControlPlane(
            fleet_state,
            orders,
            Leases(
                lease_seconds=settings.registry.lease_seconds,
                forget_seconds=settings.registry.forget_seconds,
            ),
            expected=neurons_to_wait_for(
                facts[FactKind.NEURON],
                named=[entry.name for entry in settings.neurons],
                now=self.started_at,
            ),
            on_change=self.changes.bump,
        )
        self._calls = NeuronCalls(
            orders,
            self.control,
            epoch=leader_lease.epoch,
            may_act=lambda: self.leads,
            wake=self.wake,
            faults=faults,
            credentials=credentials,
        )
        self.model_list = ModelDirectory(
            fleet_state,
            write_behind.created_of(facts),
            int(self.started_at),
            on_new=lambda model, at: fact_writer.write_later(FactKind.MODEL, model, str(at)),
        )
        self.revocations = Revocations(credentials, self.changes.bump)
        authority = settings.registry.authority
        self.joining = Joining(
            folder=pathlib.Path(authority) if authority else None,
            lifetime_seconds=settings.registry.certificate_seconds,
            asks_approval=settings.registry.join_approval,
            facts=facts,
            fact_writer=fact_writer,
            revocations=self.revocations,
        )
        self.keys = KeyDirectory(facts, fact_writer)
        self.allowances = Allowances(fact_writer.ledger)
        self.usage = UsageLedger(
            fact_writer.ledger,
            kept_days=settings.registry.usage_days,
            grown=metrics.device_use.note,
        )
        self.device_use = DeviceUseIntake(self.usage)
        self.watchers = Watchers(
            self.control,
            self.model_list,
            self.changes,
            incarnation_id=self.incarnation_id,
            revocations=self.revocations,
            faults=faults,
        )
        metrics.observe(
            self.control,
            lambda: self.watchers.count,
            named=[entry.name for entry in settings.neurons],
        )

    @property
    def lease_seconds(self) -> float:
        """Seconds within which a neuron has to report again."""
        return self._settings.registry.lease_seconds

    @property
    def leader_lease(self) -> LeaderLease:
        """The right to lead, as it was renewed last."""
        return self._leader_lease

    def renew(self, leader_lease: LeaderLease) -> None:
        """Takes the renewed lease over from the election."""
        self._leader_lease = leader_lease
        self.wake()

    @property
    def leads(self) -> bool:
        """False once the term has ended, and while another registry may have taken over unseen.

        A process that was frozen finds that here before it does anything.
        """
        return not self.ended.is_set() and self._leader_lease.holds(time.monotonic())

    @property
    def totals(self) -> tuple[int, int]:
        """Loads and evictions since the process started."""
        return self._metrics.total_loads, self._metrics.total_evictions

    def wake(self) -> None:
        """Lets what was said to `control` take effect, in `_drive`."""
        self._woken.set()

    def remember_neuron(self, name: str, address: str) -> None:
        """Notes that a neuron is a member: after a restart it is waited for."""
        self.fact_writer.write_later(FactKind.NEURON, name, f"{time.time():.0f} {address}")

    def forget_neuron(self, name: str) -> None:
        """Forgets a neuron that has left on purpose: nobody waits for it after a restart."""
        self.fact_writer.write_later(FactKind.NEURON, name, "0")

    def reload(self) -> Difference:
        """Reads the catalogue again; an error changes nothing.

        Raises:
            SettingsError: it cannot be read or has an error.
        """
        path = self._settings.models_path
        fresh = catalogues.EMPTY if path is None else catalogues.load(path)
        changes = self.control.use(fresh)
        self.wake()
        named = ", ".join((*changes.added, *changes.removed, *changes.changed))
        self.history.note("catalogue.reloaded", detail=named)
        log.info(
            "catalogue.reloaded",
            added=changes.added,
            removed=changes.removed,
            changed=changes.changed,
            models=len(fresh.profiles),
            aliases=len(fresh.aliases),
        )
        return changes

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Leads while the context is open; at its end all who wait get an error."""
        tasks = [
            self.faults.vital(self._drive(), name="control"),
            self.faults.vital(self._calls.run(), name="orders"),
            self.faults.vital(self.revocations.watch(), name="revocations"),
            self.faults.vital(self.device_use.run(self.faults), name="device-use"),
        ]
        tasks += [
            self.faults.vital(keep_dialling(entry, self), name="dialling")
            for entry in self._settings.neurons
        ]
        async with self.fact_writer.writing():
            try:
                yield
            finally:
                self.ended.set()
                self.changes.bump()
                self.history.close()
                self.control.placements.fail_all(errors.stopped_leading())
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._calls.close()
                await self.device_use.write()

    async def _drive(self) -> None:
        """Lets time pass for `control`; it never waits longer than until the next thing is due."""
        while True:
            self._woken.clear()
            left: float | None = None
            try:
                if self.leads:
                    self.control.advance()
                    left = max(0.0, self.control.next_due() - time.monotonic())
            except Exception as error:  # noqa: BLE001 - it is noted, and the next look begins anew
                self.faults.note("control", error)
                await asyncio.sleep(_CRASH_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with timeout(left):  # without a lease, until it is renewed
                    await self._woken.wait()

    def _record(self, event: Event) -> None:
        self._metrics.record(event)
        self.history.record(event)
        if isinstance(event, LoadEnded):
            self.fact_writer.write_learned_later(event.learned)


def _restored(settings: Settings, catalogue: Catalogue, facts: Facts, faults: Faults) -> FleetState:
    """The state of a fleet without members, with all that outlives a leader."""
    fleet_state = FleetState(
        clock=time.monotonic,
        policy=policy_of(settings),
        catalogue=catalogue,
        footprints=Footprints(write_behind.learned_of(facts)),
        pins=dict(facts[FactKind.PIN]),
        note_fault=faults.note,
    )
    for name in facts[FactKind.CORDON]:
        fleet_state.fleet.cordon(name, cordoned=True)
    return fleet_state
