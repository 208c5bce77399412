from __future__ import annotations

import dataclasses
import random

import pytest

from services.registry.fleet.policy import Strategy
from services.registry.fleet.records import InstanceState
from services.registry.scheduler import eviction
from services.registry.scheduler.eviction import Incoming
from services.registry.scheduler.index import NeuronIndex
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo, NeuronInfo

INCOMING = Incoming(100, may_drain=False, now=50.0)


def some_neuron(dice: random.Random, neuron: str) -> NeuronInfo:
    instances = tuple(
        InstanceInfo(
            f"{neuron}/{index}",
            "m",
            InstanceState.READY,
            {"gpu": 1},
            residency_class=dice.choice((50, 100, 200)),
            in_flight=dice.choice((0, 2)),
            last_used=dice.choice((1.0, 2.0, 3.0)),
            protected_until=dice.choice((0.0, 60.0, 70.0)),
            is_pinned=dice.random() < 0.2,
            is_kept=dice.random() < 0.2,
            is_surplus=dice.random() < 0.2,
        )
        for index in range(dice.randint(0, 3))
    )
    kind = dice.choice(("cuda", "cpu"))
    busy = "loading" if dice.random() < 0.3 else ""
    devices = (DeviceInfo("gpu", kind, 24, dice.randint(0, 3), busy=busy),)
    stored = frozenset({"file"}) if dice.random() < 0.1 else frozenset[str]()
    return NeuronInfo(
        neuron,
        devices=devices,
        instances=instances,
        work=dice.randint(0, 2),
        stored=stored,
        resident={"file": 0.5} if stored and dice.random() < 0.5 else {},
    )


def everything(index: NeuronIndex) -> object:
    """All that can be read of it; neurons by name, because their order means nothing."""
    return (
        sorted(neuron_info.neuron for neuron_info in index),
        [list(index.with_room(kind, 2)) for kind in ("", "cuda", "cpu")],
        [index.has_room(kind) for kind in ("", "cuda", "cpu")],
        index.has_stored("file"),
        [list(index.resident(kind, 2, "file", "")) for kind in ("", "cuda", "cpu")],
        list(index.in_turn(INCOMING)),
        list(index.protections(INCOMING.now)),
    )


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("seed", range(20))
def test_keeping_it_up_to_date_is_the_same_as_making_it_anew(seed, strategy):
    dice = random.Random(seed)
    now: dict[str, NeuronInfo] = {}
    index = NeuronIndex(strategy)

    for _ in range(120):
        neuron = f"n{dice.randint(0, 12)}"
        if dice.random() < 0.2:
            now.pop(neuron, None)
            index.discard(neuron)
        else:
            now[neuron] = some_neuron(dice, neuron)
            index.put(now[neuron])

    assert everything(index) == everything(NeuronIndex(strategy, now.values()))


@pytest.mark.parametrize("seed", range(20))
def test_instances_come_in_the_order_of_their_turns_without_the_immune(seed):
    dice = random.Random(seed)
    fleet = [some_neuron(dice, f"n{index}") for index in range(10)]

    told = list(NeuronIndex(Strategy.LRU, fleet).in_turn(INCOMING))

    expected = [
        (eviction.turn(instance, Strategy.LRU), neuron_info.neuron, index)
        for neuron_info in fleet
        for index, instance in enumerate(neuron_info.instances)
        if not eviction.immunity(instance, INCOMING)
    ]
    assert [(turn, s.neuron, s.instances.index(i)) for turn, s, i in told] == sorted(expected)


@pytest.mark.parametrize("seed", range(20))
def test_neurons_with_room_come_least_busy_first_then_roomiest(seed):
    dice = random.Random(seed)
    fleet = [some_neuron(dice, f"n{index}") for index in range(10)]

    told = [(w, f, s.neuron) for w, f, s in NeuronIndex(Strategy.LRU, fleet).with_room("cuda", 2)]

    expected = [
        (s.work, s.open_free["cuda"][0], s.neuron)
        for s in fleet
        if s.open_free["cuda"] and s.open_free["cuda"][0] >= 2
    ]
    assert told == sorted(expected, key=lambda e: (e[0], -e[1], e[2]))


def test_a_neuron_that_lists_one_instance_twice_harms_nobody():
    dice = random.Random(1)
    twice = some_neuron(dice, "a").instances[:1] * 2
    assert twice
    confused = dataclasses.replace(some_neuron(dice, "a"), instances=twice)
    index = NeuronIndex(Strategy.LRU, [confused])

    index.put(dataclasses.replace(confused, instances=twice[:1]))

    assert len(list(index.in_turn(INCOMING))) <= 1
