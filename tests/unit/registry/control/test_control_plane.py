"""What callers say of a model counts for as long as it should, and no longer."""

from __future__ import annotations

import dataclasses

from services.backplane.errors import Reason
from services.registry.catalogue.catalogue import Catalogue
from services.registry.fleet.policy import Policy
from services.registry.placement.orders import UnloadReason
from tests.doubles.still_fleet import SIZE, StillFleet, profile

A, B = profile("a"), profile("b")
BARE = Policy(minimum_residency=0.0, patience=10.0, handover=0.0, max_wait=60.0)


def test_a_keep_alive_ends_with_the_instance_that_it_was_said_of():
    """One client unloads after use; the next one's model is not unloaded under it for that."""
    fleet = StillFleet(A, policy=BARE)
    fleet.ask("a", keep_alive=0.0)
    fleet.finish_load()
    fleet.wait(1.0)
    assert [o.why for o in fleet.unloads] == [UnloadReason.IDLE]
    fleet.finish_unload()

    fleet.serve("a")
    fleet.wait(100.0)

    assert len(fleet.unloads) == 1


def test_a_keep_alive_outlives_one_of_several_instances():
    many = dataclasses.replace(A, max_replicas=2)
    fleet = StillFleet(many, capacities=(SIZE, SIZE), policy=BARE)
    fleet.ask("a", keep_alive=50.0)
    fleet.finish_load()
    first = fleet.loads[0]
    fleet.ask("a", excluded=frozenset({f"a#{first.order_id}"}))
    fleet.finish_load()
    member = fleet.fleet_state.fleet.members["n1"]
    fleet.control.unload("n1", member.report.instances[0], UnloadReason.OPERATOR)
    fleet.finish_unload()
    fleet.wait(49.0)
    assert [o.why for o in fleet.unloads] == [UnloadReason.OPERATOR]

    fleet.wait(2.0)

    assert [o.why for o in fleet.unloads] == [UnloadReason.OPERATOR, UnloadReason.IDLE]


def test_a_reload_gives_those_who_wait_the_new_bound():
    fleet = StillFleet(A, B, policy=BARE)
    fleet.serve("a")
    fleet.work("a", 1)
    early = fleet.ask("b")
    fleet.wait(1.0)

    brief = dataclasses.replace(B, max_wait_seconds=5.0)
    fleet.control.use(Catalogue({"a": A, "b": brief}, {}, 2))
    late = fleet.ask("b")
    fleet.wait(4.5)
    assert early.error is not None
    assert early.error.reason is Reason.QUEUE_TIMEOUT
    assert late.error is None
    fleet.wait(0.5)

    assert late.error is not None
