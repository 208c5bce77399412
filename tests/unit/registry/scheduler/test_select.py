from __future__ import annotations

import dataclasses
import random

import pytest

from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.fleet.footprints import Footprint
from services.registry.fleet.policy import Strategy
from services.registry.fleet.records import InstanceState
from services.registry.scheduler import select
from services.registry.scheduler.index import NeuronIndex
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo, NeuronInfo
from services.registry.scheduler.request import PLACEABLE, Decision, Outcome, PlacementRequest

GIB = 1 << 30
MODEL = Profile("m", LoadTerms(source="path:/m"), 7, memory_bytes=10 * GIB)


def room(free: int, capacity: int = 24, device: str = "gpu0", **facts: object) -> DeviceInfo:
    return DeviceInfo(device, "cuda", capacity * GIB, free * GIB, **facts)  # type: ignore[arg-type]


def standing(name: str, *rooms: DeviceInfo, **facts: object) -> NeuronInfo:
    return NeuronInfo(name, rooms=rooms, **facts)  # type: ignore[arg-type]


def holding(name: str, gib: int = 20, device: str = "gpu0", **facts: object) -> InstanceInfo:
    made = InstanceInfo(name, name, InstanceState.READY, {device: gib * GIB}, 100, 0, 1.0, 0.0)
    return dataclasses.replace(made, **facts)  # type: ignore[arg-type]


def ask(profile: Profile = MODEL, **facts: object) -> PlacementRequest:
    footprint = Footprint(profile.memory_bytes, "catalogue")
    return PlacementRequest(profile, footprint, 100.0, lambda _: 3.0, **facts)  # type: ignore[arg-type]


def decide(question: PlacementRequest, fleet: list[NeuronInfo]) -> Decision:
    return select.decide(question, NeuronIndex(question.strategy, fleet))


def where(decision: Decision) -> str:
    assert decision.best is not None
    return decision.best.neuron


def test_free_room_anywhere_outranks_any_eviction():
    full = standing("a", room(4), holdings=(holding("x"),), stored=frozenset({"m"}))
    free = standing("b", room(24))

    decision = decide(ask(), [full, free])

    assert (where(decision), decision.outcome) == ("b", Outcome.FREE_FIT)


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
        standing("roomy", room(24)),
        standing("far", room(12), labels={"zone": "far"}),
        standing("disk", room(12), stored=frozenset({"path:/m"})),
    ]

    assert where(decide(ask(profile), neurons)) == winner


def test_less_work_then_more_free_then_the_name_decide_ties():
    assert where(decide(ask(), [standing("a", room(12), work=3), standing("b", room(12))])) == "b"
    assert where(decide(ask(), [standing("a", room(12)), standing("b", room(20))])) == "b"
    assert where(decide(ask(), [standing("b", room(12)), standing("a", room(12))])) == "a"


def test_the_neuron_whose_victim_is_missed_least_is_chosen():
    fresh = standing("a", room(0), holdings=(holding("x", last_used=90.0),))
    stale = standing("b", room(0), holdings=(holding("y", last_used=5.0),))

    decision = decide(ask(), [fresh, stale])

    assert (where(decision), decision.outcome) == ("b", Outcome.EVICT)


def test_a_model_over_two_devices_fits_what_no_single_one_could_hold():
    wide = dataclasses.replace(MODEL, memory_bytes=54 * GIB, devices=2, max_devices=2)
    two = standing("two", room(30, 32), room(30, 32, "gpu1"))
    one = standing("one", room(48, 48))

    decision = decide(ask(wide), [one, two])

    assert where(decision) == "two"
    assert decision.best is not None
    assert decision.best.device_ids == ("gpu0", "gpu1")
    assert decision.best.need_bytes == 27 * GIB


def test_fewer_devices_are_preferred_where_they_suffice():
    either = dataclasses.replace(MODEL, max_devices=2)
    two = standing("two", room(24), room(24, device="gpu1"))

    decision = decide(ask(either), [two])

    assert decision.best is not None
    assert len(decision.best.device_ids) == 1


def test_free_memory_is_looked_at_per_device_and_never_summed():
    split = standing("a", room(6), room(6, device="gpu1"))

    assert decide(ask(), [split]).outcome is not Outcome.FREE_FIT


def test_a_device_without_figures_is_not_taken_for_an_empty_one():
    silent = standing("a", room(0, capacity=0))

    assert decide(ask(), [silent]).outcome is Outcome.IMPOSSIBLE


def test_busy_quarantined_and_held_devices_are_left_alone():
    busy = standing("busy", room(24, busy="loading z"))
    broken = standing("broken", room(24, quarantine="XID 79"))
    held = standing("held", room(24))

    decision = select.explain(ask(held={"held": frozenset({"gpu0"})}), [busy, broken, held])

    assert {c.neuron: c.outcome for c in decision.candidates} == {
        "busy": Outcome.WAIT,
        "broken": Outcome.UNAVAILABLE,
        "held": Outcome.WAIT,
    }
    assert {c.reason for c in decision.candidates} == {
        "loading z",
        "XID 79",
        "kept for a model that has waited longer",
    }


@pytest.mark.parametrize(
    ("profile", "standing_", "word"),
    [
        (dataclasses.replace(MODEL, neurons=("b",)), standing("a", room(24)), "only on b"),
        (
            dataclasses.replace(MODEL, labels={"zone": "x"}),
            standing("a", room(24), labels={"zone": "y"}),
            "lacks the label zone=x",
        ),
        (
            dataclasses.replace(MODEL, terms=LoadTerms(source="path:/m", engine="exllamav2")),
            standing("a", room(24), engines=("llamacpp",)),
            "no engine exllamav2",
        ),
        (
            dataclasses.replace(MODEL, terms=LoadTerms()),
            standing("a", room(24)),
            "not on its disk",
        ),
        (
            dataclasses.replace(MODEL, devices=2, max_devices=2),
            standing("a", room(24)),
            "has 1 devices",
        ),
        (dataclasses.replace(MODEL, memory_bytes=80 * GIB), standing("a", room(24)), "80.0 GiB"),
        (
            dataclasses.replace(MODEL, device_kind="cpu"),
            standing("a", room(24)),
            "0 cpu devices",
        ),
    ],
    ids=["host", "label", "engine", "files", "devices", "memory", "kind"],
)
def test_what_can_never_be_says_why(profile, standing_, word):
    decision = select.explain(ask(profile), [standing_])

    assert decision.outcome is Outcome.IMPOSSIBLE
    assert word in decision.candidates[0].reason
    assert decide(ask(profile), [standing_]).outcome is Outcome.IMPOSSIBLE


def test_feasible_but_refusing_is_told_apart_from_impossible():
    decision = decide(ask(), [standing("a", room(24), refusal="it is cordoned")])

    assert decision.outcome is Outcome.UNAVAILABLE


def test_a_neuron_that_has_not_reported_is_not_called_impossible():
    silent = NeuronInfo("a", refusal="it has not reported yet", is_known=False)

    assert decide(ask(), [silent]).outcome is Outcome.UNAVAILABLE


def test_only_the_named_neuron_is_considered():
    neurons = [standing("a", room(24)), standing("b", room(12))]

    assert where(decide(ask(only_neuron="b"), neurons)) == "b"


def test_a_neuron_that_has_a_copy_takes_no_second_one():
    has = standing("a", room(24), holdings=(holding("m", 10),), models=frozenset({"m"}))

    assert decide(ask(), [has]).outcome is Outcome.BLOCKED


def test_a_useless_copy_is_replaced_in_place():
    failed = holding("m", 20, is_surplus=True, state=InstanceState.FAILED)
    has = standing("a", room(4), holdings=(failed,), models=frozenset({"m"}))

    decision = decide(ask(), [has])

    assert decision.outcome is Outcome.EVICT
    assert decision.best is not None
    assert [v.model for v in decision.best.victims] == ["m"]


def test_explain_and_decide_agree():
    neurons = [
        standing("full", room(0), holdings=(holding("x", is_pinned=True),)),
        standing("busy", room(0), holdings=(holding("y", in_flight=1),)),
        standing("idle", room(0), holdings=(holding("z"),)),
        standing("small", room(4, capacity=4)),
    ]

    decided, told = decide(ask(), neurons), select.explain(ask(), neurons)

    assert decided.best == told.best
    assert [c.neuron for c in told.candidates] == ["idle", "busy", "full", "small"]
    assert [c.outcome for c in told.candidates] == [
        Outcome.EVICT,
        Outcome.WAIT,
        Outcome.BLOCKED,
        Outcome.IMPOSSIBLE,
    ]


def test_the_urgent_drain_where_nothing_is_idle():
    busy = standing("busy", room(0), holdings=(holding("y", in_flight=1),))

    assert decide(ask(may_drain=True), [busy]).outcome is Outcome.DRAIN


def test_without_eviction_only_free_room_counts():
    idle = standing("idle", room(0), holdings=(holding("z"),))

    assert decide(ask(may_evict=False), [idle]).outcome is Outcome.BLOCKED


def test_no_neurons_is_impossible_without_a_candidate():
    decision = decide(ask(), [])

    assert (decision.outcome, decision.best) == (Outcome.IMPOSSIBLE, None)


def _random_fleet(dice: random.Random) -> list[NeuronInfo]:
    fleet: list[NeuronInfo] = []
    for index in range(dice.randint(1, 12)):
        holdings: list[InstanceInfo] = []
        rooms: list[DeviceInfo] = []
        for device in [f"gpu{i}" for i in range(dice.randint(1, 3))]:
            free = 24
            for _ in range(dice.randint(0, 3)):
                gib = dice.choice((4, 8))
                free -= gib
                name = f"{index}-{device}-{free}"
                holdings.append(
                    holding(
                        name,
                        gib,
                        device,
                        last_used=dice.uniform(0, 99),
                        in_flight=dice.choice((0, 0, 1)),
                        residency_class=dice.choice((50, 100, 200)),
                        protected_until=dice.choice((0.0, 0.0, 105.0)),
                        is_pinned=dice.random() < 0.1,
                        is_surplus=dice.random() < 0.1,
                    )
                )
            busy = "loading z" if dice.random() < 0.1 else ""
            rooms.append(room(max(0, free), device=device, busy=busy))
        refusal = "it is cordoned" if dice.random() < 0.1 else ""
        labels = {"zone": dice.choice("ab")}
        fleet.append(
            standing(f"n{index}", *rooms, holdings=tuple(holdings), refusal=refusal, labels=labels)
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
    )
    question = ask(model, strategy=dice.choice(list(Strategy)), may_drain=dice.random() < 0.5)

    quick, thorough = decide(question, fleet), select.explain(question, fleet)

    assert quick.outcome is thorough.outcome
    if quick.outcome in PLACEABLE:
        assert quick.best == thorough.best
