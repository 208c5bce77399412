from __future__ import annotations

import dataclasses
import random

import pytest

from services.registry.fleet.policy import Strategy
from services.registry.scheduler import select
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo, NeuronInfo
from services.registry.scheduler.request import (
    PLACEABLE,
    PlacementOutcome,
)
from services.registry.scheduler.rivals import rivals
from tests.unit.registry.scheduler.neurons import (
    GIB,
    MODEL,
    decide,
    device,
    instance,
    neuron_info,
    request,
    where,
)


def test_free_room_anywhere_outranks_any_eviction():
    full = neuron_info("a", device(4), instances=(instance("x"),), stored=frozenset({"m"}))
    free = neuron_info("b", device(24))

    decision = decide(request(), [full, free])

    assert (where(decision), decision.outcome) == ("b", PlacementOutcome.FREE_FIT)


@pytest.mark.parametrize(
    ("profile", "winner"),
    [
        (dataclasses.replace(MODEL, affinity={"zone": "far"}), "far"),
        (MODEL, "disk"),
    ],
    ids=["affinity first", "then files on disk"],
)
def test_among_free_neurons(profile, winner):
    neurons = [
        neuron_info("roomy", device(24)),
        neuron_info("far", device(12), labels={"zone": "far"}),
        neuron_info("disk", device(12), stored=frozenset({"path:/m"})),
    ]

    assert where(decide(request(profile), neurons)) == winner


def test_files_in_memory_decide_between_neurons_that_have_them_on_disk():
    stored = frozenset({"path:/m", "m"})
    neurons = [
        neuron_info("cold", device(24), stored=stored),
        neuron_info("half", device(12), stored=stored, resident={"m": 0.5}),
        neuron_info("warm", device(12), stored=stored, resident={"path:/m": 1.0}, work=3),
    ]

    decision = decide(request(), neurons)

    assert where(decision) == "warm"
    assert decision.best is not None
    assert decision.best.predicted_seconds == 2.0
    assert decision.best.reason.endswith("its files are there, 100% of them in memory")
    assert where(decide(request(), neurons[:2])) == "half"


def test_files_in_memory_decide_between_equal_evictions():
    full = [
        neuron_info(
            name,
            device(0),
            instances=(instance("x"),),
            stored=frozenset({"m"}),
            resident=resident,
        )
        for name, resident in (("a", {}), ("b", {"m": 0.25}))
    ]

    decision = decide(request(), full)

    assert (where(decision), decision.outcome) == ("b", PlacementOutcome.EVICT)
    assert decision.best is not None
    assert "25% of them in memory" in decision.best.reason


@pytest.mark.parametrize(
    "warm",
    [
        neuron_info("warm", device(0), instances=(instance("x"),)),
        neuron_info("warm", device(23), refusal="it is cordoned"),
        neuron_info("warm", device(8, 8)),
        neuron_info("warm", DeviceInfo("cpu", "cpu", 64 * GIB, 60 * GIB)),
    ],
    ids=["full", "cordoned", "too small", "slower"],
)
def test_files_in_memory_make_up_for_nothing_else(warm: NeuronInfo):
    stored = frozenset({"m"})
    warm = dataclasses.replace(warm, stored=stored, resident={"m": 1.0})
    cold = neuron_info("cold", device(24), stored=stored, work=9)

    assert where(decide(request(), [warm, cold])) == "cold"
    without = dataclasses.replace(warm, resident={})
    outcomes = {decide(request(), [each]).outcome for each in (warm, without)}
    assert len(outcomes) == 1


def test_less_work_then_more_free_then_the_name_decide_ties():
    assert (
        where(
            decide(request(), [neuron_info("a", device(12), work=3), neuron_info("b", device(12))])
        )
        == "b"
    )
    assert (
        where(decide(request(), [neuron_info("a", device(12)), neuron_info("b", device(20))]))
        == "b"
    )
    assert (
        where(decide(request(), [neuron_info("b", device(12)), neuron_info("a", device(12))]))
        == "a"
    )


def test_the_neuron_whose_victim_is_missed_least_is_chosen():
    fresh = neuron_info("a", device(0), instances=(instance("x", last_used=90.0),))
    stale = neuron_info("b", device(0), instances=(instance("y", last_used=5.0),))

    decision = decide(request(), [fresh, stale])

    assert (where(decision), decision.outcome) == ("b", PlacementOutcome.EVICT)


def test_a_model_over_two_devices_fits_what_no_single_one_could_hold():
    wide = dataclasses.replace(MODEL, memory_bytes=54 * GIB, devices=2, max_devices=2)
    two = neuron_info("two", device(30, 32), device(30, 32, "gpu1"))
    one = neuron_info("one", device(48, 48))

    decision = decide(request(wide), [one, two])

    assert where(decision) == "two"
    assert decision.best is not None
    assert decision.best.device_ids == ("gpu0", "gpu1")
    assert decision.best.needs == {"gpu0": 27 * GIB, "gpu1": 27 * GIB}


def test_fewer_devices_are_preferred_where_they_suffice():
    either = dataclasses.replace(MODEL, max_devices=2)
    two = neuron_info("two", device(24), device(24, device_id="gpu1"))

    decision = decide(request(either), [two])

    assert decision.best is not None
    assert len(decision.best.device_ids) == 1


def test_free_memory_is_looked_at_per_device_and_never_summed():
    split = neuron_info("a", device(6), device(6, device_id="gpu1"))

    assert decide(request(), [split]).outcome is not PlacementOutcome.FREE_FIT


def test_a_device_without_figures_is_not_taken_for_an_empty_one():
    silent = neuron_info("a", device(0, capacity=0))

    assert decide(request(), [silent]).outcome is PlacementOutcome.IMPOSSIBLE


def test_only_the_named_neuron_is_considered():
    neurons = [neuron_info("a", device(24)), neuron_info("b", device(12))]

    assert where(decide(request(only_neuron="b"), neurons)) == "b"


def test_explain_and_decide_agree():
    neurons = [
        neuron_info("full", device(0), instances=(instance("x", is_pinned=True),)),
        neuron_info("busy", device(0), instances=(instance("y", in_flight=1),)),
        neuron_info("idle", device(0), instances=(instance("z"),)),
        neuron_info("small", device(4, capacity=4)),
    ]

    decided, told = decide(request(), neurons), select.explain(request(), neurons)

    assert decided.best == told.best
    assert [c.neuron for c in told.candidates] == ["idle", "busy", "full", "small"]
    assert [c.outcome for c in told.candidates] == [
        PlacementOutcome.EVICT,
        PlacementOutcome.WAIT,
        PlacementOutcome.BLOCKED,
        PlacementOutcome.IMPOSSIBLE,
    ]


def test_the_urgent_drain_where_nothing_is_idle():
    busy = neuron_info("busy", device(0), instances=(instance("y", in_flight=1),))

    assert decide(request(may_drain=True), [busy]).outcome is PlacementOutcome.DRAIN


def test_without_eviction_only_free_room_counts():
    idle = neuron_info("idle", device(0), instances=(instance("z"),))

    assert decide(request(may_evict=False), [idle]).outcome is PlacementOutcome.BLOCKED


def test_no_neurons_is_impossible_without_a_candidate():
    decision = decide(request(), [])

    assert (decision.outcome, decision.best) == (PlacementOutcome.IMPOSSIBLE, None)


def _random_fleet(dice: random.Random) -> list[NeuronInfo]:
    fleet: list[NeuronInfo] = []
    for index in range(dice.randint(1, 12)):
        instances: list[InstanceInfo] = []
        devices: list[DeviceInfo] = []
        for device_id in [f"gpu{i}" for i in range(dice.randint(1, 3))]:
            free = 24
            for _ in range(dice.randint(0, 3)):
                gib = dice.choice((4, 8))
                free -= gib
                name = f"{index}-{device_id}-{free}"
                instances.append(
                    instance(
                        name,
                        gib,
                        device_id,
                        last_used=dice.uniform(0, 99),
                        in_flight=dice.choice((0, 0, 1)),
                        residency_class=dice.choice((50, 100, 200)),
                        protected_until=dice.choice((0.0, 0.0, 105.0)),
                        is_pinned=dice.random() < 0.1,
                        is_surplus=dice.random() < 0.1,
                        model=name if dice.random() < 0.7 else dice.choice("rst"),
                    )
                )
            busy = "loading z" if dice.random() < 0.1 else ""
            devices.append(device(max(0, free), device_id=device_id, busy=busy))
        if dice.random() < 0.7:
            busy = "loading y" if dice.random() < 0.1 else ""
            size, free = dice.choice(((8, 8), (32, 3), (32, 20), (64, 64)))
            devices.append(DeviceInfo("cpu", "cpu", size * GIB, free * GIB, busy=busy))
        if dice.random() < 0.1:
            devices = devices[-1:]
        refusal = "it is cordoned" if dice.random() < 0.1 else ""
        labels = {"zone": dice.choice("ab")}
        stored = frozenset({"m"}) if dice.random() < 0.5 else frozenset[str]()
        resident = {"m": dice.choice((0.25, 1.0))} if stored and dice.random() < 0.5 else {}
        fleet.append(
            neuron_info(
                f"n{index}",
                *devices,
                instances=tuple(instances),
                models=frozenset(i.model for i in instances),
                coming=frozenset({"s"}) if dice.random() < 0.1 else frozenset(),
                refusal=refusal,
                labels=labels,
                stored=stored,
                resident=resident,
            )
        )
    return fleet


@pytest.mark.parametrize("seed", range(300))
def test_looking_only_as_far_as_needed_finds_what_looking_everywhere_finds(seed):
    dice = random.Random(seed)
    fleet = _random_fleet(dice)
    model = dataclasses.replace(
        MODEL,
        memory_bytes=dice.choice((6, 14, 24, 40)) * GIB,
        max_devices=dice.choice((1, 2)),
        affinity={"zone": "a"} if dice.random() < 0.3 else {},
        exclusive_with=("r",) if dice.random() < 0.3 else (),
        apart_from=("s",) if dice.random() < 0.3 else (),
        rather_apart_from=("t",) if dice.random() < 0.3 else (),
    )
    question = request(model, strategy=dice.choice(list(Strategy)), may_drain=dice.random() < 0.5)
    if dice.random() < 0.5:
        beside = dice.choice((0, 1, 6)) * GIB
        footprint = dataclasses.replace(
            question.footprint,
            total_bytes=question.footprint.total_bytes + beside,
            host_bytes=beside,
            layers=dice.choice((0, 10, 33)),
            is_for_host=dice.random() < 0.1,
        )
        question = dataclasses.replace(question, footprint=footprint)

    quick, thorough = decide(question, fleet), select.explain(question, fleet)

    assert quick.outcome is thorough.outcome
    for candidate in thorough.candidates:
        if candidate.outcome in PLACEABLE:
            there = next(n for n in fleet if n.neuron == candidate.neuron)
            gone = {v.instance_id for v in candidate.victims}
            assert rivals(model, there, candidate.device_ids).keys() <= gone
    if quick.outcome in PLACEABLE:
        assert quick.best == thorough.best
