"""Updates of instances: each is ordered once, until it can be seen or is another one."""

from __future__ import annotations

import dataclasses
import itertools

from services.registry.catalogue.profile import SamplingDefaults
from services.registry.placement.orders import UpdateOrder
from services.registry.placement.update import UpdateRunner
from tests.doubles.still_fleet import StillFleet, profile

A = dataclasses.replace(profile("a"), sampling=SamplingDefaults(top_k=7))


def test_the_same_update_is_ordered_once_in_ten_seconds_and_another_one_at_once():
    fleet = StillFleet(A)
    fleet.serve("a")
    instance = next(iter(fleet.held["n0"].values()))
    runner = UpdateRunner(fleet.fleet_state, fleet, itertools.count(1))
    other = dataclasses.replace(A, sampling=SamplingDefaults(top_k=8))
    fleet.updates.clear()

    runner.order("n0", instance, A, 0.0)
    runner.order("n0", instance, A, 9.0)
    runner.order("n0", instance, other, 9.0)
    runner.order("n0", instance, other, 19.0)

    assert [o.profile.sampling.top_k for o in fleet.updates] == [7, 8, 8]
    assert sum(isinstance(event, UpdateOrder) for event in fleet.events) >= 3
