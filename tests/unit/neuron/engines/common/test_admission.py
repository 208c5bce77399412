import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.task import WorkClass
from services.neuron.engines.common.admission import (
    MOST_PASSED,
    AdmissionQueue,
    QueueFullError,
    Waiting,
)
from services.neuron.engines.common.task_queue import reserved_places

INTERACTIVE, DEFAULT, BATCH = WorkClass


class Line:
    """A queue whose items are their own keys."""

    def __init__(
        self,
        *,
        max_queued: int = 100,
        timeout_seconds: float = 10.0,
        shares: FairShares | None = None,
    ) -> None:
        self.shares = shares or FairShares()
        self.queue = AdmissionQueue[int](
            max_queued=max_queued, timeout_seconds=timeout_seconds, shares=self.shares
        )

    def push(
        self, key: int, who: str = "", kind: WorkClass = DEFAULT, *, now: float = 0.0
    ) -> Waiting[int] | None:
        return self.queue.push(key, key=key, principal=who, work_class=kind, now=now)

    def pop_all(self) -> list[int]:
        keys: list[int] = []
        while (waiting := self.queue.pop()) is not None:
            keys.append(waiting.key)
        return keys


def test_one_principal_is_served_in_order() -> None:
    line = Line()
    for key in range(4):
        line.push(key, "ann")

    assert line.pop_all() == [0, 1, 2, 3]


def test_principals_take_turns() -> None:
    line = Line()
    for key, who in enumerate(["ann", "ann", "ann", "bob", "cid", "bob"]):
        line.push(key, who)

    assert line.pop_all() == [0, 3, 4, 1, 5, 2]


def test_a_newcomer_does_not_wait_behind_another_ones_backlog() -> None:
    line = Line()
    for key in range(5):
        line.push(key, "ann")
    line.queue.pop()
    line.push(9, "bob")

    assert line.pop_all()[0] == 9


def test_interactive_work_goes_first_and_batch_does_not_starve() -> None:
    line = Line()
    line.push(100, kind=BATCH)
    for key in range(10):
        line.push(key)

    order = line.pop_all()

    assert order.index(100) == MOST_PASSED


def test_classes_go_in_their_order() -> None:
    line = Line()
    line.push(0, kind=BATCH)
    line.push(1)
    line.push(2, kind=INTERACTIVE)

    assert line.pop_all() == [2, 1, 0]


@given(st.lists(st.sampled_from([None, *WorkClass]), max_size=60))
def test_nothing_that_is_next_in_its_class_is_passed_by_more_than_the_bound(
    moves: list[WorkClass | None],
) -> None:
    """The bound of docs/placement.md: four of higher classes, and two of a lower one."""
    line = Line()
    waiting: dict[WorkClass, list[int]] = {one: [] for one in WorkClass}
    passed = dict.fromkeys(WorkClass, 0)
    for key, kind in enumerate([*moves, *[None] * len(moves)]):
        if kind is not None:
            line.push(key, kind=kind)
            waiting[kind].append(key)
        elif (popped := line.queue.pop()) is not None:
            assert waiting[popped.work_class].pop(0) == popped.key
            passed[popped.work_class] = 0
            for other in WorkClass:
                passed[other] += bool(waiting[other]) and other is not popped.work_class
                bound = {INTERACTIVE: 2, DEFAULT: MOST_PASSED + 2, BATCH: MOST_PASSED}[other]
                assert passed[other] <= bound


def test_in_a_full_queue_lower_classes_make_room_but_keep_a_quarter() -> None:
    line = Line(max_queued=8)
    for key in range(8):
        line.push(key, kind=BATCH)

    displaced = [line.push(100 + n, kind=INTERACTIVE) for n in range(6)]

    assert [one.key for one in displaced if one] == [7, 6, 5, 4, 3, 2]
    with pytest.raises(QueueFullError):
        line.push(200, kind=INTERACTIVE)
    assert len(line.queue) == 8


def test_batch_is_passed_over_where_it_may_not_go() -> None:
    line = Line()
    line.push(0, kind=BATCH)

    assert line.queue.pop(with_batch=False) is None
    line.push(1)
    passed = line.queue.peek(with_batch=False)
    assert passed is not None
    assert passed.key == 1


@pytest.mark.parametrize(("places", "reserved"), [(1, 0), (2, 1), (4, 1), (8, 2), (16, 4)])
def test_a_quarter_of_the_places_is_reserved(places: int, reserved: int) -> None:
    assert reserved_places(places) == reserved


def test_a_full_queue_refuses() -> None:
    line = Line(max_queued=2)
    line.push(0)
    line.push(1)

    with pytest.raises(QueueFullError):
        line.push(2)


def test_removed_items_leave_room() -> None:
    line = Line(max_queued=1)
    for key in range(50):
        line.push(key)
        assert line.queue.remove(key)

    assert len(line.queue) == 0
    assert not line.queue.remove(7)


def test_items_that_waited_too_long_are_taken_out() -> None:
    line = Line(timeout_seconds=5)
    line.push(0, now=0)
    line.push(1, kind=BATCH, now=1)
    line.push(2, now=3)

    assert [waiting.key for waiting in line.queue.expire(5.9)] == [0]
    assert [waiting.key for waiting in line.queue.expire(6.0)] == [1]
    assert len(line.queue) == 1


def test_peek_shows_what_pop_gives() -> None:
    line = Line()
    line.push(0)
    line.push(1, "bob")

    peeked = line.queue.peek()

    assert peeked is not None
    assert peeked == line.queue.pop()


def test_an_item_is_found_by_its_key() -> None:
    line = Line()
    line.push(3, kind=BATCH)

    assert line.queue.get(3) == 3
    assert line.queue.get(4) is None


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(WorkClass)), max_size=20),
    st.integers(0, 10),
)
def test_the_order_told_is_the_order_kept(
    pushes: list[tuple[str, WorkClass]], turns_before: int
) -> None:
    line = Line()
    for key, (who, kind) in enumerate(pushes):
        line.push(key, who, kind=kind)
    gone = [popped.key for _ in range(turns_before) if (popped := line.queue.pop()) is not None]

    told = line.queue.order()

    assert told == line.pop_all()
    assert sorted(gone + told) == list(range(len(pushes)))


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60))
def test_no_principal_is_served_twice_while_another_waits_unserved(whos: list[str]) -> None:
    line = Line()
    for key, who in enumerate(whos):
        line.push(key, who)

    first_round = [whos[key] for key in line.pop_all()[: len(set(whos))]]

    assert len(set(first_round)) == len(first_round)


def test_principals_that_are_gone_are_forgotten() -> None:
    line = Line(max_queued=1)

    for key in range(500):
        line.push(key, f"visitor {key}")
        line.queue.pop()

    assert len(line.queue._raised) < 100


def test_the_newest_of_the_heaviest_makes_room_for_another_principal() -> None:
    line = Line(max_queued=4)
    for key in range(4):
        line.push(key, "hog", now=float(key))

    first = line.queue.push(10, key=10, principal="bob", work_class=DEFAULT, now=9.0)
    second = line.queue.push(11, key=11, principal="bob", work_class=DEFAULT, now=9.5)

    assert first is not None
    assert second is not None
    assert [first.key, second.key] == [3, 2]
    with pytest.raises(QueueFullError):  # they have two places each now
        line.push(12, "bob", now=10.0)
    with pytest.raises(QueueFullError):
        line.push(4, "hog", now=10.0)
    assert sorted(line.pop_all()) == [0, 1, 10, 11]


def test_in_a_queue_of_single_places_nobody_makes_room() -> None:
    line = Line(max_queued=3)
    for key, who in enumerate(["ann", "bob", "cid"]):
        line.push(key, who)

    with pytest.raises(QueueFullError):
        line.push(3, "dan")


@given(st.lists(st.sampled_from("abcde"), max_size=60), st.integers(1, 12))
def test_nobody_who_has_less_than_an_equal_share_is_refused(whos: list[str], places: int) -> None:
    line = Line(max_queued=places)
    held: dict[int, str] = {}
    for key, who in enumerate(whos):
        before = list(held.values())
        try:
            displaced = line.queue.push(
                key, key=key, principal=who, work_class=DEFAULT, now=float(key)
            )
        except QueueFullError:
            share = len(before) / len({*before, who})
            assert before.count(who) + 1 > share
            continue
        held[key] = who
        if displaced is not None:
            del held[displaced.key]
    assert len(held) <= places
    assert sorted(line.pop_all()) == sorted(held)


def test_the_principal_that_has_had_least_of_the_devices_goes_first() -> None:
    line = Line()
    for key, who in enumerate(["ann", "bob", "ann", "bob", "bob", "bob"]):
        line.push(key, who)
    first, second = line.queue.pop(cost=1.0), line.queue.pop(cost=1.0)
    line.shares.add("ann", 2.5)  # it was measured to take more

    assert first is not None
    assert second is not None
    assert [first.key, second.key, *line.pop_all()] == [0, 1, 3, 4, 5, 2]


def test_what_a_principal_had_on_another_model_counts() -> None:
    shares = FairShares()
    line, other = Line(shares=shares), Line(shares=shares)
    for key in range(3):
        other.push(key, "ann")
        other.queue.pop(cost=5.0)
    for key, who in enumerate(["ann", "bob", "bob"]):
        line.push(key, who)

    assert line.pop_all() == [1, 2, 0]


def test_idleness_earns_nothing() -> None:
    line = Line()
    for key in range(20):
        line.push(key, "ann")
    for _ in range(10):
        line.queue.pop()
    for key in range(100, 110):
        line.push(key, "bob")

    served = ["bob" if key >= 100 else "ann" for key in line.pop_all()[:6]]

    assert served.count("bob") in {3, 4}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.01, 5.0)), min_size=30, max_size=90))
def test_nobody_who_waits_has_less_than_another_by_more_than_two_turns(
    turns: list[tuple[str, float]],
) -> None:
    """Whatever tasks are measured to take, as long as all have some that wait."""
    line = Line(max_queued=1000)
    for key, (who, _) in enumerate(turns):
        line.push(key, who)
    left = collections.Counter(who for who, _ in turns)
    had = dict.fromkeys(left, 0.0)

    while all(left.values()):
        popped = line.queue.pop(cost=1.0)
        assert popped is not None
        who, seconds = turns[popped.key]
        line.shares.add(who, seconds - 1.0)
        left[who] -= 1
        had[who] += seconds

        assert max(had.values()) - min(had.values()) <= 2 * 5.0
