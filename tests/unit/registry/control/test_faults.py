"""An exception that nobody foresaw ends the placement that it came from, and no other."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from services.backplane.errors import FleetError, Reason
from services.registry.control.decide import Decider
from services.registry.control.job_results import JobResults
from services.registry.control.placement_controller import PlacementController
from services.registry.control.reconcile import Reconciler
from services.registry.control.request_builder import RequestBuilder
from services.registry.fleet.policy import Policy
from services.registry.fleet.records import Instance, InstanceState
from services.registry.placement.demand import DemandKey
from services.registry.placement.executor import PlacementExecutor
from services.registry.placement.load import LoadRunner
from services.registry.placement.make_room import RoomMaker
from services.registry.placement.orders import UnloadReason
from tests.doubles.still_fleet import SIZE, Caller, StillFleet, profile

BAD, GOOD = profile("bad"), profile("good")
OLD = (profile("older"), profile("old"))
POLICY = Policy(minimum_residency=0.0, handover=0.0, patience=10.0)
PLACES = [
    (PlacementController, "_answer"),
    (PlacementController, "_is_over"),
    (Decider, "place"),
    (Decider, "_act"),
    (Decider, "_begin"),
    (RequestBuilder, "request_for"),
    (RequestBuilder, "obstacle"),
    (PlacementExecutor, "begin"),
    (PlacementExecutor, "_go_on"),
    (PlacementExecutor, "_ready"),
    (RoomMaker, "next_of"),
    (RoomMaker, "evict"),
    (RoomMaker, "settle"),
    (LoadRunner, "begin"),
    (LoadRunner, "note_ready"),
    (JobResults, "on_ready"),
]


class Noted(StillFleet):
    """A fleet whose unforeseen exceptions are noted."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.noted: list[str] = []
        self.fleet_state.note_fault = self._note

    def _note(self, place: str, error: BaseException) -> FleetError:
        assert str(error) == "planted"
        self.noted.append(place)
        return FleetError(Reason.INTERNAL, "noted")

    def carry_out(self) -> None:
        """Ends all unloads and loads, whichever they are, until there are no more."""
        done: set[int] = set()
        for _ in range(20):
            for unload in [o for o in self.unloads if o.order_id not in done]:
                done.add(unload.order_id)
                self.held[unload.neuron].pop(unload.instance_id, None)
                self.control.on_unloaded(unload.order_id, SIZE)
                self.report(unload.neuron)
            for order in [o for o in self.loads if o.order_id not in done | set(self.cancelled)]:
                done.add(order.order_id)
                instance = Instance(
                    f"{order.profile.model}#{order.order_id}",
                    order.profile.model,
                    InstanceState.READY,
                    {"gpu": SIZE},
                    config_revision=1,
                )
                self.held[order.neuron][instance.instance_id] = instance
                self.control.on_load_ready(order.order_id, instance)
                self.report(order.neuron)
            self.wait(0.5)


def concerns(value: Any) -> bool:
    """True if an argument is about the bad model."""
    found = getattr(value, "profile", None) or getattr(
        getattr(value, "demand", None), "profile", None
    )
    return getattr(found, "model", "") == "bad" or value == DemandKey("bad")


def plant(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    honest = getattr(owner, name)

    def defective(*args: Any, **more: Any) -> Any:
        if any(concerns(a) for a in args):
            raise RuntimeError("planted")
        return honest(*args, **more)

    monkeypatch.setattr(owner, name, defective)


@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[f"{o.__name__}.{n}" for o, n in PLACES])
def test_a_defect_in_one_placement_ends_no_other(monkeypatch, owner, name):
    fleet = Noted(BAD, GOOD, *OLD, capacities=(SIZE, SIZE), policy=POLICY)
    for name_of, model in zip(fleet.held, OLD, strict=True):  # something has to go for each
        held = Instance("old", model.model, InstanceState.READY, {"gpu": SIZE}, config_revision=1)
        fleet.held[name_of][f"old@{name_of}"] = dataclasses.replace(
            held, instance_id=f"old@{name_of}"
        )
        fleet.report(name_of)
    plant(monkeypatch, owner, name)
    bad = fleet.ask("bad")
    good = fleet.ask("good")

    fleet.carry_out()

    assert good.placed
    assert good.placed.model == "good"
    assert fleet.noted
    if bad.placed is None:
        assert bad.error is not None
        assert bad.error.reason is Reason.INTERNAL


def test_a_caller_that_cannot_be_told_keeps_nobody_else_from_it():
    class Defective(Caller):
        def on_step(self, step: object) -> None:
            raise RuntimeError("planted")

    fleet = Noted(GOOD, BAD, capacities=(SIZE, SIZE), policy=POLICY)
    good = fleet.ask("good")
    fleet.control.ensure("bad", Defective())

    fleet.carry_out()

    assert good.placed
    assert fleet.noted


def test_who_hears_of_an_unload_and_raises_keeps_no_other_from_hearing():
    fleet = Noted(GOOD, policy=POLICY)
    fleet.serve("good")
    instance = next(iter(fleet.held["n0"].values()))
    heard: list[object] = []

    def defective(_: object) -> None:
        raise RuntimeError("planted")

    for on_end in (defective, heard.append):
        fleet.control.unload("n0", instance, UnloadReason.OPERATOR, on_end=on_end)
    fleet.finish_unload()

    assert heard == [None]
    assert fleet.noted == ["unload"]


def test_a_look_at_one_model_that_raises_keeps_no_chore_of_another(monkeypatch):
    pinned = profile("bad", pinned=True), profile("good", pinned=True)
    fleet = Noted(*pinned, capacities=(SIZE, SIZE), away=("n0", "n1"))
    honest = Reconciler._wish

    def defective(self: Reconciler, wanted: Any, now: float) -> Any:
        if wanted.model == "bad":
            raise RuntimeError("planted")
        return honest(self, wanted, now)

    monkeypatch.setattr(Reconciler, "_wish", defective)

    fleet.attach("n0")
    fleet.attach("n1")
    fleet.wait(2.0)

    assert [o.profile.model for o in fleet.loads] == ["good"]
    assert set(fleet.noted) == {"reconcile"}


def test_a_lease_that_raises_keeps_no_other_from_lapsing(monkeypatch):
    fleet = Noted(GOOD, capacities=(SIZE, SIZE))
    honest = fleet.fleet_state.fleet.lose

    def defective(name: str, epoch: int | None = None) -> bool:
        if name == "n0":
            raise RuntimeError("planted")
        return honest(name, epoch)

    monkeypatch.setattr(fleet.fleet_state.fleet, "lose", defective)

    fleet.wait(2e9)

    assert fleet.fleet_state.fleet.members.get("n1") is None or (
        fleet.fleet_state.fleet.members["n1"].is_lost
    )
    assert fleet.noted == ["leases"]
