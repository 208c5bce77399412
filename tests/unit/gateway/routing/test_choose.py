"""Choosing an instance."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import pytest

from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.routing.candidates import (
    MOST_HOME_SLACK,
    Availability,
    InstanceCandidate,
    Replicas,
)
from services.gateway.routing.choose import NoneServing, choose
from services.gateway.routing.holdings import Holdings
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
    replicas = Replicas("m", candidates, outstanding).without(excluded, outstanding)

    chosen = choose(replicas, Homes())

    assert isinstance(chosen, InstanceCandidate)
    assert chosen.instance_id == expected


@pytest.mark.parametrize(
    ("candidates", "recovering"),
    [([], False), ([candidate("a", UNUSABLE)], False), ([candidate("a", RECOVERING)], True)],
)
def test_nobody_serves(candidates: list[InstanceCandidate], recovering: bool) -> None:
    replicas = Replicas("m", candidates, {})

    assert choose(replicas, Homes()) == NoneServing(recovering)
    assert choose(replicas.without(["a"], {}), Homes()) == NoneServing(recovering)


NOBODY = (None, None, 0)


def trail(*turns: bytes, head: bytes = b"", size_bytes: int = 0) -> Trail:
    return Trail(list(turns), head, size_bytes)


def trails(count: int) -> list[Trail]:
    """The first turns of so many conversations."""
    return [trail(i.to_bytes(16, "little")) for i in range(1, count + 1)]


def send(
    candidates: Sequence[InstanceCandidate],
    homes: Homes,
    beginnings: Trail,
    outstanding: dict[str, int] | None = None,
) -> str:
    replicas = Replicas("m", candidates, outstanding or {})
    chosen = choose(replicas, homes, trail=lambda _: beginnings)
    assert isinstance(chosen, InstanceCandidate)
    return chosen.instance_id


ABCD = [candidate(name) for name in "abcd"]


def test_a_conversation_goes_home_by_its_longest_known_beginning() -> None:
    homes = Homes()
    short, longer = trail(b"1"), trail(b"1", b"2")
    longest = trail(b"1", b"2", b"3", size_bytes=40_000)
    homes.settle(short, NOBODY, "a")
    homes.settle(longer, NOBODY, "d")

    assert send(ABCD, homes, longest, {"d": MOST_HOME_SLACK}) == "d"


def test_a_home_that_is_too_busy_is_left_for_good() -> None:
    homes = Homes()
    homes.settle(trail(b"1"), NOBODY, "a")
    busy = {"a": MOST_HOME_SLACK + 1}

    elsewhere = send(ABCD, homes, trail(b"1", b"2"), busy)

    assert elsewhere != "a"
    assert send(ABCD, homes, trail(b"1", b"2", b"3")) == elsewhere


def test_conversations_that_come_one_by_one_spread() -> None:
    homes = Homes()

    counts = Counter(send(ABCD, homes, one) for one in trails(64))

    assert max(counts.values()) <= 64 / 4 * 1.25


def test_those_of_a_dead_instance_spread_and_the_others_stay() -> None:
    homes = Homes()
    before = [send(ABCD, homes, one) for one in trails(64)]

    after = [send(ABCD[:-1], homes, one) for one in trails(64)]

    moved = Counter(new for old, new in zip(before, after, strict=True) if old == "d")
    assert all(old == new for old, new in zip(before, after, strict=True) if old != "d")
    assert max(moved.values()) <= moved.total() / 2


def test_two_gateways_agree_on_most_homes() -> None:
    first, second = Homes(), Homes()

    same = [send(ABCD, first, one) == send(ABCD[::-1], second, one) for one in trails(64)]

    assert sum(same) > len(same) / 2


def test_requests_without_a_conversation_take_turns() -> None:
    homes = Homes()

    chosen = [choose(Replicas("m", ABCD, {}), homes) for _ in range(8)]

    assert Counter(
        one.instance_id for one in chosen if isinstance(one, InstanceCandidate)
    ) == dict.fromkeys("abcd", 2)


def test_no_digest_is_made_without_a_choice() -> None:
    def never(_: str) -> Trail:
        raise AssertionError

    assert choose(Replicas("m", ABCD[:1], {}), Homes(), trail=never) == ABCD[0]


def test_what_is_remembered_is_bounded_and_what_is_used_stays() -> None:
    homes = Homes(most_digests=8)

    for number in range(100):
        used = trail(b"used", b"%d" % number)
        homes.settle(used, homes.find(used, {}), "a")

    assert len(homes) <= 16
    assert homes.find(trail(b"used"), {}) == ("a", None, 1)


def holdings(
    *held: tuple[str, bytes, int],
    seconds_per_token: float = 0.0,
    seconds_per_request: float = 1.0,
) -> Holdings:
    """What these instances tell: id, digest, tokens."""
    made = Holdings()
    for name in "abcd":
        made.apply(
            neuron.CacheChange(
                instance_id=name,
                seconds_per_token=seconds_per_token,
                seconds_per_request=seconds_per_request,
            )
        )
    for name, digest, tokens in held:
        prefix = neuron.HeldPrefix(digest=digest, tokens=tokens)
        made.apply(neuron.CacheChange(instance_id=name, held=[prefix]))
    return made


FIRST, SECOND, HEAD = (bytes([n]) * 16 for n in range(3))
LONG = trail(FIRST, SECOND, head=HEAD, size_bytes=40_000)  # 10,000 tokens


def chosen(
    held: Holdings,
    busy: dict[str, int] | None = None,
    beginnings: Trail = LONG,
    among: Sequence[InstanceCandidate] = ABCD,
) -> str:
    replicas = Replicas("m", among, busy or {})
    found = choose(replicas, Homes(), holdings=held, trail=lambda _: beginnings)
    assert isinstance(found, InstanceCandidate)
    return found.instance_id


def test_what_a_neuron_tells_counts_for_gateways_that_have_sent_nothing() -> None:
    assert chosen(holdings(("c", FIRST, 8_000))) == "c"
    assert chosen(holdings(("c", FIRST, 8_000), ("d", SECOND, 9_000))) == "d"


def test_reading_is_weighed_against_the_queue_by_the_neurons_own_speed() -> None:
    slow = holdings(("c", FIRST, 8_000), seconds_per_token=0.001, seconds_per_request=2.0)
    fast = holdings(("c", FIRST, 8_000), seconds_per_token=0.0001, seconds_per_request=2.0)

    # three requests there are 6 seconds; the 8,000 tokens elsewhere are 8 seconds, or 0.8
    assert chosen(slow, {"c": 3}) == "c"
    assert chosen(fast, {"c": 3}) != "c"


def test_a_home_with_a_free_place_is_kept_for_one_request_more() -> None:
    held = holdings(("c", FIRST, 8_000), seconds_per_token=1e-9, seconds_per_request=2.0)
    single = [dataclasses.replace(one, places=1) for one in ABCD]

    assert chosen(held, {"c": 1}) == "c"
    assert chosen(held, {"c": 1}, among=single) != "c"  # there it would wait
    assert chosen(held, {"c": 2}) != "c"


def test_a_holder_that_is_far_busier_is_left_whatever_it_holds() -> None:
    held = holdings(("c", FIRST, 8_000), seconds_per_token=1.0, seconds_per_request=0.001)

    assert chosen(held, {"c": MOST_HOME_SLACK}) == "c"
    assert chosen(held, {"c": MOST_HOME_SLACK + 1}) != "c"


def test_what_programs_share_is_weighed_and_gathers_nobody_at_one_instance() -> None:
    held = holdings(("a", HEAD, 5_000), ("b", HEAD, 5_000), seconds_per_token=0.001)
    news = [trail(bytes([n]) * 16, head=HEAD, size_bytes=40_000) for n in range(3, 67)]

    counts = Counter(chosen(held, beginnings=one) for one in news)

    assert counts["a"] > counts["c"]
    assert counts["c"] > 0


def test_what_is_saved_counts_with_the_time_to_restore_it() -> None:
    held = Holdings()
    for name, seconds in (("a", 9.0), ("b", 0.1)):
        saved = neuron.HeldPrefix(digest=FIRST, tokens=9_000, restore_seconds=seconds)
        held.apply(neuron.CacheChange(instance_id=name, held=[saved]))

    assert chosen(held) == "b"
    assert chosen(held, {"b": 3}) != "a"


def test_an_instance_that_has_dropped_a_beginning_is_no_home_any_more() -> None:
    homes = Homes()
    held = Holdings(homes.forget)
    homes.settle(LONG, NOBODY, "c")
    held.apply(neuron.CacheChange(instance_id="c", held=[neuron.HeldPrefix(digest=SECOND)]))
    held.apply(neuron.CacheChange(instance_id="c", dropped=[SECOND]))

    assert homes.find(trail(SECOND), held.told)[0] is None


def test_templates_that_write_old_turns_anew_make_homes_worth_less() -> None:
    held = holdings(("c", FIRST, 8_000), seconds_per_token=0.001, seconds_per_request=1.0)
    assert chosen(held, {"c": 2}) == "c"

    for _ in range(64):
        held.learn("", size_bytes=40_000, tokens=10_000, foretold=8_000, found=20)

    assert chosen(held, {"c": 2}) != "c"


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_what_a_neuron_measures_as_no_number_keeps_nobody_from_being_chosen(seconds: float) -> None:
    held = holdings(("c", HEAD, 5_000), ("d", HEAD, 5_000), seconds_per_token=0.001)
    for name in "ab":
        saved = [neuron.HeldPrefix(digest=HEAD, tokens=9_000, restore_seconds=seconds)]
        held.apply(neuron.CacheChange(instance_id=name, held=saved))
        for token, request in ((seconds, 1.0), (0.001, seconds), (seconds, seconds)):
            held.apply(
                neuron.CacheChange(
                    instance_id=name, seconds_per_token=token, seconds_per_request=request
                )
            )
    news = [trail(bytes([n]) * 16, head=HEAD, size_bytes=40_000) for n in range(3, 67)]

    counts = Counter(chosen(held, beginnings=one) for one in news)

    assert counts["c"] > 0 < counts["d"]


def test_of_an_instance_that_has_gone_nothing_is_kept() -> None:
    held = holdings(("c", FIRST, 8_000), seconds_per_token=0.001)

    held.apply(neuron.CacheChange(instance_id="c", whole=True))

    assert not held.knows("c")
    assert held.knows("d")
