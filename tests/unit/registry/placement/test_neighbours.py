"""Who has files that another neuron needs, and who will have them soon."""

from __future__ import annotations

import dataclasses

import pytest

from services.registry.catalogue.profile import LoadTerms
from services.registry.fleet.records import StoredModel
from services.registry.placement.neighbours import Neighbour, Neighbours
from tests.doubles.still_fleet import SIZE, StillFleet, profile

SOURCE = "hf:a/b@main/m-Q8_0.gguf#sha256=00"
A = dataclasses.replace(
    profile("a"), terms=LoadTerms(source=SOURCE), max_replicas=3, memory_bytes=SIZE
)


def holding(fleet: StillFleet, name: str, origin: str) -> None:
    """A neuron reports a model on its disk that it has fetched from an origin."""
    member = fleet.fleet_state.fleet.members[name]
    stored = StoredModel("m", "path:/m", 1, origin=origin)
    report = dataclasses.replace(member.report, sequence=10**9, stored=(stored,))
    fleet.control.membership.report(name, fleet.epochs[name], report, None)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("hf:a/b@main", ["n1"]),
        (SOURCE, ["n1"]),
        ("hf:a/b@other", []),
        ("hf:a/bc@main", []),
        ("path:/m", []),
        ("", []),
    ],
)
def test_those_that_have_files_of_the_repository_at_that_revision(source, found):
    fleet = StillFleet(A, capacities=(SIZE, SIZE, SIZE))
    holding(fleet, "n1", "hf:a/b@main")
    holding(fleet, "n2", "")
    neighbours = Neighbours(fleet.fleet_state)

    assert [one.name for one in neighbours.of(source, without="n0")] == found
    assert neighbours.of(source, without="n1") == ()


def test_a_load_under_way_makes_a_neighbour_until_it_ends():
    neighbours = Neighbours(StillFleet(A).fleet_state)
    first = Neighbour("n1", "n1:1")

    neighbours.note_load(7, "hf:a/b@main/other.gguf", first)
    assert neighbours.of(SOURCE, without="n0") == (first,)
    assert neighbours.of(SOURCE, without="n1") == ()
    neighbours.note_end(7)

    assert neighbours.of(SOURCE, without="n0") == ()


def test_the_second_of_two_loads_is_told_of_the_first():
    fleet = StillFleet(A, dataclasses.replace(A, model="b"), capacities=(SIZE, SIZE))
    fleet.ask("a", neuron="n0")
    fleet.ask("b", neuron="n1")

    first, second = fleet.loads

    assert first.neighbours == ()
    assert second.neighbours == (Neighbour(first.neuron, first.address),)
