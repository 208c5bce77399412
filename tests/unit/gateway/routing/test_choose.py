"""Choosing an instance."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.gateway.routing.choose import Availability, InstanceCandidate, NoneServing, choose

SERVING, RECOVERING, UNUSABLE = Availability.SERVING, Availability.RECOVERING, Availability.UNUSABLE


def candidate(
    name: str, availability: Availability = SERVING, foreign: int = 0
) -> InstanceCandidate:
    return InstanceCandidate(name, "m", f"neuron-{name}", "host:1", availability, foreign)


@pytest.mark.parametrize(
    ("candidates", "outstanding", "excluded", "expected"),
    [
        ([candidate("a"), candidate("b")], {"a": 1}, (), "b"),
        ([candidate("a", foreign=3), candidate("b")], {"b": 2}, (), "b"),
        ([candidate("a", foreign=1), candidate("b")], {"b": 2}, (), "a"),
        ([candidate("a"), candidate("b")], {"b": 9}, ("a",), "b"),
        ([candidate("a", UNUSABLE), candidate("b")], {"b": 9}, (), "b"),
        ([candidate("a", RECOVERING), candidate("b")], {"b": 9}, (), "b"),
        ([candidate("a"), candidate("b")], {}, (), "b"),
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
    chosen = choose(candidates, outstanding, excluded=excluded)

    assert isinstance(chosen, InstanceCandidate)
    assert chosen.instance_id == expected


@pytest.mark.parametrize(
    ("candidates", "recovering"),
    [([], False), ([candidate("a", UNUSABLE)], False), ([candidate("a", RECOVERING)], True)],
)
def test_nobody_serves(candidates: list[InstanceCandidate], recovering: bool) -> None:
    assert choose(candidates, {}) == NoneServing(recovering)


def always(prefix: bytes) -> Callable[[], bytes]:
    return lambda: prefix


def test_a_conversation_comes_back_and_conversations_spread() -> None:
    candidates = [candidate(name) for name in "abcd"]

    chosen = {
        prefix: {choose(order, {}, prefix=always(prefix)) for order in (candidates, candidates[::-1])}
        for prefix in (bytes([i]) for i in range(64))
    }  # fmt: skip

    assert all(len(one) == 1 for one in chosen.values())
    assert {next(iter(one)) for one in chosen.values()} == set(candidates)


def test_when_an_instance_leaves_only_its_own_conversations_move() -> None:
    candidates = [candidate(name) for name in "abcd"]
    prefixes = [bytes([i]) for i in range(64)]
    before = [choose(candidates, {}, prefix=always(p)) for p in prefixes]

    after = [choose(candidates[:-1], {}, prefix=always(p)) for p in prefixes]

    stayed = [(b, a) for b, a in zip(before, after, strict=True) if b != candidates[-1]]
    assert all(b == a for b, a in stayed)


def test_the_prefix_is_not_computed_without_a_tie() -> None:
    def never() -> bytes:
        raise AssertionError

    assert choose([candidate("a"), candidate("b", foreign=1)], {}, prefix=never) == candidate("a")
