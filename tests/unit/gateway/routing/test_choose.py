"""Choosing an instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from services.gateway.routing.choose import (
    MOST_HOME_SLACK,
    Availability,
    InstanceCandidate,
    NoneServing,
    choose,
)
from services.gateway.routing.homes import Homes
from services.gateway.routing.prefix import Trail

SERVING, RECOVERING, UNUSABLE = Availability.SERVING, Availability.RECOVERING, Availability.UNUSABLE


def candidate(
    name: str, availability: Availability = SERVING, foreign: int = 0
) -> InstanceCandidate:
    return InstanceCandidate(name, "m", f"neuron-{name}", "host:1", availability, foreign, places=8)


@pytest.mark.parametrize(
    ("candidates", "outstanding", "excluded", "expected"),
    [
        ([candidate("a"), candidate("b")], {"a": 1}, (), "b"),
        ([candidate("a", foreign=3), candidate("b")], {"b": 2}, (), "b"),
        ([candidate("a", foreign=1), candidate("b")], {"b": 2}, (), "a"),
        ([candidate("a"), candidate("b")], {"b": 9}, ("a",), "b"),
        ([candidate("a", UNUSABLE), candidate("b")], {"b": 9}, (), "b"),
        ([candidate("a", RECOVERING), candidate("b")], {"b": 9}, (), "b"),
        ([candidate("b"), candidate("a")], {}, (), "a"),
    ],
    ids=[
        "own work counts", "foreign work counts", "both are added", "excluded ones are not asked",
        "unusable ones are not asked", "recovering ones are not asked", "a tie goes by name",
    ],
)  # fmt: skip
def test_the_least_busy_that_may_serve_is_chosen(
    candidates: list[InstanceCandidate],
    outstanding: dict[str, int],
    excluded: tuple[str, ...],
    expected: str,
) -> None:
    chosen = choose(candidates, outstanding, Homes(), excluded=excluded)

    assert isinstance(chosen, InstanceCandidate)
    assert chosen.instance_id == expected


@pytest.mark.parametrize(
    ("candidates", "recovering"),
    [([], False), ([candidate("a", UNUSABLE)], False), ([candidate("a", RECOVERING)], True)],
)
def test_nobody_serves(candidates: list[InstanceCandidate], recovering: bool) -> None:
    assert choose(candidates, {}, Homes()) == NoneServing(recovering)


def trails(count: int) -> list[Trail]:
    """The first turns of so many conversations."""
    return [[i.to_bytes(16, "little")] for i in range(1, count + 1)]


def send(
    candidates: Sequence[InstanceCandidate],
    homes: Homes,
    trail: Trail,
    outstanding: dict[str, int] | None = None,
) -> str:
    chosen = choose(candidates, outstanding or {}, homes, trail=lambda: trail)
    assert isinstance(chosen, InstanceCandidate)
    return chosen.instance_id


ABCD = [candidate(name) for name in "abcd"]


def test_a_conversation_goes_home_by_its_longest_known_beginning() -> None:
    homes = Homes()
    short, longer, longest = [b"1"], [b"1", b"2"], [b"1", b"2", b"3"]
    homes.settle(short, "a")
    homes.settle(longer, "d")

    assert send(ABCD, homes, longest, {"d": MOST_HOME_SLACK}) == "d"


def test_a_home_that_is_too_busy_is_left_for_good() -> None:
    homes = Homes()
    homes.settle([b"1"], "a")
    busy = {"a": MOST_HOME_SLACK + 1}

    elsewhere = send(ABCD, homes, [b"1", b"2"], busy)

    assert elsewhere != "a"
    assert send(ABCD, homes, [b"1", b"2", b"3"]) == elsewhere


def test_conversations_that_come_one_by_one_spread() -> None:
    homes = Homes()

    counts = Counter(send(ABCD, homes, trail) for trail in trails(64))

    assert max(counts.values()) <= 64 / 4 * 1.25


def test_those_of_a_dead_instance_spread_and_the_others_stay() -> None:
    homes = Homes()
    before = [send(ABCD, homes, trail) for trail in trails(64)]

    after = [send(ABCD[:-1], homes, trail) for trail in trails(64)]

    moved = Counter(new for old, new in zip(before, after, strict=True) if old == "d")
    assert all(old == new for old, new in zip(before, after, strict=True) if old != "d")
    assert max(moved.values()) <= moved.total() / 2


def test_two_gateways_agree_on_most_homes() -> None:
    one, two = Homes(), Homes()

    same = [send(ABCD, one, trail) == send(ABCD[::-1], two, trail) for trail in trails(64)]

    assert sum(same) > len(same) / 2


def test_requests_without_a_conversation_take_turns() -> None:
    homes = Homes()

    chosen = [choose(ABCD, {}, homes) for _ in range(8)]

    assert Counter(
        one.instance_id for one in chosen if isinstance(one, InstanceCandidate)
    ) == dict.fromkeys("abcd", 2)


def test_no_digest_is_made_without_a_choice() -> None:
    def never() -> Trail:
        raise AssertionError

    assert choose(ABCD[:1], {}, Homes(), trail=never) == ABCD[0]


def test_what_is_remembered_is_bounded_and_what_is_used_stays() -> None:
    homes = Homes(most_digests=8)

    for number in range(100):
        homes.settle([b"used", b"%d" % number], "a")

    assert len(homes) <= 16
    assert homes.home([b"used"]) == "a"
