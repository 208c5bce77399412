"""Unloads under way: at most one per instance, whoever asked for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from services.backplane.errors import FleetError, Reason
from services.backplane.security.principals import SYSTEM
from services.registry.fleet.records import Instance
from services.registry.fleet.state import FleetState
from services.registry.placement.orders import (
    Effects,
    FollowingLoad,
    UnloadEnded,
    UnloadOrder,
    UnloadReason,
)
from services.registry.scheduler.cache import SchedulerCache

OnEnd = Callable[[FleetError | None], None]


@dataclasses.dataclass(eq=False, slots=True)
class _Unload:
    order: UnloadOrder
    since: float
    on_end: list[OnEnd]


class UnloadRunner:
    """Orders unloads, and tells all who asked for one how it ended."""

    def __init__(
        self,
        fleet_state: FleetState,
        cache: SchedulerCache,
        effects: Effects,
        ids: Iterator[int],
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._effects = effects
        self._ids = ids
        self._by_order: dict[int, _Unload] = {}
        self._by_instance: dict[str, _Unload] = {}

    def __len__(self) -> int:
        return len(self._by_order)

    def order(
        self,
        neuron: str,
        instance: Instance,
        why: UnloadReason,
        *,
        drain_seconds: float,
        following: FollowingLoad | None = None,
        principal: str = SYSTEM,
        reason: str = "",
        on_end: OnEnd | None = None,
    ) -> int:
        """Orders an instance's unload, or joins the one under way.

        Args:
            neuron: where it is.
            instance: what is to go.
            why: the kind of reason, for metrics.
            drain_seconds: how long running requests may take.
            following: what needs the room.
            principal: whose request caused it.
            reason: for people.
            on_end: called once, with the error or None.

        Returns: the order's id.
        """
        unload = self._by_instance.get(instance.instance_id)
        if unload is None:
            identity = self._fleet_state.fleet.members[neuron].identity
            order = UnloadOrder(
                order_id=next(self._ids),
                neuron=neuron,
                incarnation_id=identity.incarnation_id,
                address=identity.address,
                instance_id=instance.instance_id,
                model=instance.model,
                drain_seconds=drain_seconds,
                why=why,
                for_model="" if following is None else following.profile.model,
                following=following,
                principal=principal,
                reason=reason,
            )
            unload = _Unload(order, self._fleet_state.clock(), [])
            self._by_order[order.order_id] = unload
            self._by_instance[instance.instance_id] = unload
            self._cache.leaving(neuron, instance.instance_id, is_leaving=True)
            self._effects.record(order)
            self._effects.unload(order)
        if on_end is not None:
            unload.on_end.append(on_end)
        return unload.order.order_id

    def on_unloaded(self, order_id: int, freed_bytes: int) -> None:
        """An unload has ended well; the fleet no longer lists the instance."""
        unload = self._by_order.get(order_id)
        if unload is not None:
            order = unload.order
            self._fleet_state.fleet.depart(order.neuron, order.incarnation_id, order.instance_id)
            self._end(unload, freed_bytes, None)

    def on_unload_failed(self, order_id: int, error: FleetError) -> None:
        """An unload has failed. One whose instance was gone already counts as done."""
        unload = self._by_order.get(order_id)
        if unload is None:
            return
        if error.reason in {Reason.INSTANCE_GONE, Reason.NOT_FOUND}:
            self.on_unloaded(order_id, 0)
        else:
            self._end(unload, 0, error)

    def on_member(self, name: str) -> None:
        """Ends the unloads of a neuron that is another process now, or gone."""
        member = self._fleet_state.fleet.members.get(name)
        incarnation = member.identity.incarnation_id if member else ""
        for unload in list(self._by_order.values()):
            order = unload.order
            if order.neuron == name and order.incarnation_id != incarnation:
                message = f"{name} was lost while {order.model} was being unloaded."
                self._end(unload, 0, FleetError(Reason.NEURON_LOST, message))

    def _end(self, unload: _Unload, freed_bytes: int, error: FleetError | None) -> None:
        order = unload.order
        del self._by_order[order.order_id]
        del self._by_instance[order.instance_id]
        self._cache.leaving(order.neuron, order.instance_id, is_leaving=False)
        seconds = self._fleet_state.clock() - unload.since
        failure = error.reason.value if error else ""
        self._effects.record(UnloadEnded(order, seconds, freed_bytes, failure))
        for on_end in unload.on_end:
            try:
                on_end(error)
            except Exception as fault:  # noqa: BLE001 - it is noted; the others hear of the end too
                self._fleet_state.note_fault("unload", fault)
