"""Models that take a host's memory beside its GPUs, or instead of them."""

from __future__ import annotations

import dataclasses

from services.registry.fleet.footprints import Footprint
from services.registry.scheduler import select
from services.registry.scheduler.neuron_info import DeviceInfo, NeuronInfo
from services.registry.scheduler.request import PlacementOutcome, PlacementRequest
from services.registry.scheduler.spread import spreads_on, whole_spreads
from tests.unit.registry.scheduler.neurons import (
    GIB,
    MODEL,
    decide,
    device,
    instance,
    neuron_info,
)

# 20 layers of a GiB each, and a GiB of embeddings.
WHOLE = Footprint(21 * GIB, "files and cache", host_bytes=GIB, layers=20)


def host(free: int, capacity: int = 64, **facts: object) -> DeviceInfo:
    return DeviceInfo("cpu", "cpu", capacity * GIB, free * GIB, **facts)  # type: ignore[arg-type]


def request(footprint: Footprint = WHOLE, **facts: object) -> PlacementRequest:
    profile = dataclasses.replace(MODEL, memory_bytes=0, max_devices=2)
    return PlacementRequest(profile, footprint, 100.0, lambda _, resident: 3.0 - resident, **facts)  # type: ignore[arg-type]


def spread_over(*devices: DeviceInfo, footprint: Footprint = WHOLE):
    profile = dataclasses.replace(MODEL, max_devices=2)
    whole = whole_spreads(profile, footprint)
    return spreads_on(profile, footprint, whole, neuron_info("n", *devices))


def test_a_model_that_a_gpu_can_hold_is_counted_there_without_what_is_on_the_host():
    decision = decide(request(), [neuron_info("a", device(24), host(10))])

    assert decision.outcome is PlacementOutcome.FREE_FIT
    assert decision.best is not None
    assert decision.best.needs == {"gpu0": 20 * GIB, "cpu": GIB}
    assert decision.best.device_ids == ("gpu0",)
    assert "20.0 GiB, and 1.0 GiB on the host" in decision.best.reason


def test_what_no_gpu_can_hold_is_divided_with_the_host():
    decision = decide(request(), [neuron_info("a", device(16, 16), host(10))])

    assert decision.best is not None
    assert decision.best.needs == {"gpu0": 16 * GIB, "cpu": 5 * GIB}
    assert decision.best.device_ids == ("gpu0", "cpu")
    assert "16 of 20 layers" in decision.best.reason


def test_two_gpus_together_are_better_than_one_and_the_host():
    (whole_on_one, whole_on_two) = spread_over(device(12, 12), device(12, 12, "gpu1"), host(60))

    assert (whole_on_one.layers, whole_on_two.layers) == (0, 0)
    assert whole_on_two.need_bytes == 10 * GIB
    (divided,) = spread_over(device(8, 8), device(8, 8, "gpu1"), host(60))
    assert (divided.count, divided.layers, divided.host_bytes) == (2, 16, 5 * GIB)


def test_room_is_made_on_the_gpu_rather_than_layers_left_on_the_host():
    held = (instance("x", 10),)
    decision = decide(request(), [neuron_info("a", device(14), host(60), instances=held)])

    assert decision.outcome is PlacementOutcome.EVICT
    assert decision.best is not None
    assert [v.model for v in decision.best.victims] == ["x"]


def test_a_whole_model_goes_before_one_that_is_divided():
    small = neuron_info("a", device(16, 16), host(60))
    large = neuron_info("b", device(24), host(60), work=5)

    best = decide(request(), [small, large]).best

    assert best is not None
    assert best.neuron == "b"


def test_files_in_memory_do_not_bring_a_model_where_it_is_divided():
    stored = frozenset({"m"})
    small = neuron_info("a", device(16, 16), host(60), stored=stored, resident={"m": 1.0})
    large = neuron_info("b", device(24), host(60), stored=stored, work=5)

    best = decide(request(), [small, large]).best

    assert best is not None
    assert best.neuron == "b"


def test_a_host_without_gpus_takes_all_of_it():
    decision = decide(request(), [neuron_info("a", host(60))])

    assert decision.best is not None
    assert decision.best.needs == {"cpu": 21 * GIB}


def test_what_no_gpu_takes_goes_to_the_host_though_there_is_one():
    footprint = Footprint(5 * GIB, "files and cache", is_for_host=True)

    decision = decide(request(footprint), [neuron_info("a", device(24), host(60))])

    assert decision.best is not None
    assert decision.best.device_ids == ("cpu",)


def test_room_is_made_on_the_host_too():
    held = (instance("x", 40, "cpu"),)
    full = neuron_info("a", device(24), host(0, 40), instances=held)

    decision = decide(request(), [full])

    assert decision.outcome is PlacementOutcome.EVICT


def test_a_host_too_small_for_its_part_is_told():
    told = select.explain(request(), [neuron_info("a", device(16, 16), host(4, 4))])

    assert told.outcome is PlacementOutcome.IMPOSSIBLE
    (candidate,) = told.candidates
    assert candidate.reason == (
        "the model needs 21.0 GiB (files and cache), 5.0 GiB of it in the host's memory;"
        " that has 4.0 GiB"
    )


def test_layers_wait_for_a_load_that_the_host_is_busy_with_and_whole_models_do_not():
    busy = host(60, busy="loading z")

    assert decide(request(), [neuron_info("a", device(24), busy)]).outcome is (
        PlacementOutcome.FREE_FIT
    )
    assert decide(request(), [neuron_info("a", device(16, 16), busy)]).outcome is (
        PlacementOutcome.WAIT
    )


def test_a_neuron_that_reports_no_host_takes_whole_models_alone():
    def outcome(info: NeuronInfo) -> PlacementOutcome:
        return decide(request(), [info]).outcome

    assert outcome(neuron_info("a", device(24))) is PlacementOutcome.FREE_FIT
    assert outcome(neuron_info("a", device(16, 16))) is PlacementOutcome.IMPOSSIBLE
