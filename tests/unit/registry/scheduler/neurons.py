"""Neurons, devices, instances and requests with as little said of each as a test needs."""

from __future__ import annotations

import dataclasses

from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.fleet.footprints import Footprint
from services.registry.fleet.records import InstanceState
from services.registry.scheduler import select
from services.registry.scheduler.index import NeuronIndex
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo, NeuronInfo
from services.registry.scheduler.request import (
    PlacementDecision,
    PlacementRequest,
)

GIB = 1 << 30
MODEL = Profile("m", LoadTerms(source="path:/m"), 7, memory_bytes=10 * GIB)


def device(free: int, capacity: int = 24, device_id: str = "gpu0", **facts: object) -> DeviceInfo:
    return DeviceInfo(device_id, "cuda", capacity * GIB, free * GIB, **facts)  # type: ignore[arg-type]


def neuron_info(name: str, *devices: DeviceInfo, **facts: object) -> NeuronInfo:
    return NeuronInfo(name, devices=devices, **facts)  # type: ignore[arg-type]


def instance(name: str, gib: int = 20, device_id: str = "gpu0", **facts: object) -> InstanceInfo:
    made = InstanceInfo(
        name,
        name,
        InstanceState.READY,
        {device_id: gib * GIB},
        residency_class=100,
        in_flight=0,
        last_used=1.0,
        protected_until=0.0,
    )
    return dataclasses.replace(made, **facts)  # type: ignore[arg-type]


def request(profile: Profile = MODEL, **facts: object) -> PlacementRequest:
    footprint = Footprint(profile.memory_bytes, "catalogue")
    return PlacementRequest(profile, footprint, 100.0, lambda _, resident: 3.0 - resident, **facts)  # type: ignore[arg-type]


def decide(question: PlacementRequest, fleet: list[NeuronInfo]) -> PlacementDecision:
    return select.decide(question, NeuronIndex(question.strategy, fleet))


def where(decision: PlacementDecision) -> str:
    assert decision.best is not None
    return decision.best.neuron
