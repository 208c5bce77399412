"""What one neuron offers to a model, and the reasons."""

from __future__ import annotations

import dataclasses

import pytest

from services.registry.catalogue.profile import LoadTerms
from services.registry.fleet.records import InstanceState
from services.registry.scheduler import select
from services.registry.scheduler.neuron_info import DeviceInfo, NeuronInfo
from services.registry.scheduler.request import (
    PlacementOutcome,
)
from tests.unit.registry.scheduler.neurons import (
    GIB,
    MODEL,
    decide,
    device,
    instance,
    neuron_info,
    request,
)


def test_busy_quarantined_and_held_devices_are_left_alone():
    busy = neuron_info("busy", device(24, busy="loading z"))
    broken = neuron_info("broken", device(24, quarantine="XID 79"))
    held = neuron_info("held", device(24))

    decision = select.explain(request(reserved={"held": frozenset({"gpu0"})}), [busy, broken, held])

    assert {c.neuron: c.outcome for c in decision.candidates} == {
        "busy": PlacementOutcome.WAIT,
        "broken": PlacementOutcome.UNAVAILABLE,
        "held": PlacementOutcome.WAIT,
    }
    assert {c.reason for c in decision.candidates} == {
        "loading z",
        "XID 79",
        "kept for a model that has waited longer",
    }


@pytest.mark.parametrize(
    ("profile", "neuron", "word"),
    [
        (dataclasses.replace(MODEL, neurons=("b",)), neuron_info("a", device(24)), "only on b"),
        (
            dataclasses.replace(MODEL, labels={"zone": "x"}),
            neuron_info("a", device(24), labels={"zone": "y"}),
            "lacks the label zone=x",
        ),
        (
            dataclasses.replace(MODEL, terms=LoadTerms(source="path:/m", engine="exllamav2")),
            neuron_info("a", device(24), engines=("llamacpp",)),
            "no engine exllamav2",
        ),
        (
            dataclasses.replace(MODEL, terms=LoadTerms()),
            neuron_info("a", device(24)),
            "not on its disk",
        ),
        (
            dataclasses.replace(MODEL, devices=2, max_devices=2),
            neuron_info("a", device(24)),
            "has 1 devices",
        ),
        (
            dataclasses.replace(MODEL, memory_bytes=80 * GIB),
            neuron_info("a", device(24)),
            "80.0 GiB",
        ),
        (
            dataclasses.replace(MODEL, device_kind="cpu"),
            neuron_info("a", device(24)),
            "0 cpu devices",
        ),
    ],
    ids=["host", "label", "engine", "files", "devices", "memory", "kind"],
)
def test_what_can_never_be_says_why(profile, neuron, word):
    decision = select.explain(request(profile), [neuron])

    assert decision.outcome is PlacementOutcome.IMPOSSIBLE
    assert word in decision.candidates[0].reason
    assert decide(request(profile), [neuron]).outcome is PlacementOutcome.IMPOSSIBLE


def test_feasible_but_refusing_is_told_apart_from_impossible():
    decision = decide(request(), [neuron_info("a", device(24), refusal="it is cordoned")])

    assert decision.outcome is PlacementOutcome.UNAVAILABLE


def test_a_neuron_that_has_not_reported_is_not_called_impossible():
    silent = NeuronInfo("a", refusal="it has not reported yet", is_known=False)

    assert decide(request(), [silent]).outcome is PlacementOutcome.UNAVAILABLE


def test_a_neuron_that_has_an_instance_takes_no_second_one():
    has = neuron_info("a", device(24), instances=(instance("m", 10),), models=frozenset({"m"}))

    assert decide(request(), [has]).outcome is PlacementOutcome.BLOCKED


def test_a_useless_instance_is_replaced_in_place():
    failed = instance("m", 20, is_surplus=True, state=InstanceState.FAILED)
    has = neuron_info("a", device(4), instances=(failed,), models=frozenset({"m"}))

    decision = decide(request(), [has])

    assert decision.outcome is PlacementOutcome.EVICT
    assert decision.best is not None
    assert [v.model for v in decision.best.victims] == ["m"]


DIVIDED = dataclasses.replace(
    MODEL,
    terms=LoadTerms(source="path:/m", parallel="tensor"),
    memory_bytes=30 * GIB,
    device_kind="cuda",
    max_devices=4,
)


def cards(*makes: str, free: int = 20) -> list[DeviceInfo]:
    return [device(free, device_id=f"gpu{number}", make=make) for number, make in enumerate(makes)]


def test_layers_are_divided_between_equal_devices_alone():
    decision = decide(request(DIVIDED), [neuron_info("a", *cards("A", "B", "B", free=22))])

    assert decision.best is not None
    assert decision.best.device_ids == ("gpu1", "gpu2")


def test_layers_are_divided_between_two_devices_even_where_one_would_do():
    small = dataclasses.replace(DIVIDED, memory_bytes=GIB)

    decision = decide(request(small), [neuron_info("a", *cards("A", "A"))])

    assert decision.best is not None
    assert len(decision.best.device_ids) == 2


def test_a_neuron_without_equal_devices_divides_no_layers():
    decision = select.explain(request(DIVIDED), [neuron_info("a", *cards("A", "B"))])

    (candidate,) = decision.candidates
    assert candidate.outcome is PlacementOutcome.IMPOSSIBLE
    assert candidate.reason == "it has 1 equal cuda devices; the model needs 2"


def test_room_for_divided_layers_is_made_on_equal_devices():
    devices = [
        device(22, device_id="gpu0", make="A"),
        device(2, device_id="gpu1", make="B"),
        device(22, device_id="gpu2", make="B"),
    ]
    info = neuron_info("a", *devices, instances=(instance("old", device_id="gpu1"),))

    decision = select.explain(request(DIVIDED), [info])

    (candidate,) = decision.candidates
    assert candidate.outcome is PlacementOutcome.EVICT
    assert sorted(candidate.device_ids) == ["gpu1", "gpu2"]
