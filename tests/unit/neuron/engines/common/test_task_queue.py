import pytest

from services.backplane.errors import FleetError
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.task import Prompt, Task
from services.neuron.engines.common.task_queue import TaskQueue


def queue(*task_ids: int, max_queued: int = 10) -> TaskQueue[str]:
    made = TaskQueue[str](max_queued=max_queued, timeout_seconds=5, places=1, shares=FairShares())
    for task_id in task_ids:
        made.push(f"item {task_id}", Task(task_id, "i", Prompt()), now=0)
    return made


def places(waiting: TaskQueue[str], now: float = 0) -> list[tuple[int, int]]:
    return [(queued.task_id, queued.position) for queued in waiting.moves(now)]


def test_places_are_told_in_order_and_once() -> None:
    waiting = queue(7, 5)

    assert places(waiting) == [(7, 0), (5, 1)]
    assert places(waiting) == []


def test_places_are_told_again_once_somebody_has_left() -> None:
    waiting = queue(7, 5, 6)
    waiting.moves(0)

    assert waiting.remove(5)
    assert places(waiting, 1) == [(7, 0), (6, 1)]
    assert waiting.pop([]) is not None
    assert places(waiting, 2) == [(6, 0)]
    assert not waiting.remove(5)
    assert places(waiting, 3) == []


def test_newcomers_hear_at_once_and_the_others_once_a_second() -> None:
    waiting = queue(7, 5)
    waiting.moves(0)

    assert waiting.pop([]) is not None
    waiting.push("item 6", Task(6, "i", Prompt()), now=0.5)

    assert places(waiting, 0.5) == [(6, 1)]
    assert places(waiting, 0.9) == []
    assert places(waiting, 1.0) == [(5, 0), (6, 1)]
    assert places(waiting, 9.0) == []


def test_a_full_queue_refuses_with_numbers() -> None:
    waiting = queue(1, max_queued=1)
    waiting.note_end(20)

    with pytest.raises(FleetError) as caught:
        waiting.push("x", Task(2, "i", Prompt()), now=0)

    assert caught.value.reason.value == "QUEUE_FULL"
    assert caught.value.facts == {"queued": "1"}
    assert caught.value.retry_after_seconds == 40


def test_who_waits_too_long_hears_how_long() -> None:
    waiting = queue(1)

    assert waiting.expire(4.9) == []
    ((item, failure),) = waiting.expire(5.25)

    assert (item, failure.task_id, failure.reason) == ("item 1", 1, "QUEUE_TIMEOUT")
    assert failure.message.endswith("within 5.2 seconds.")
    assert len(waiting) == 0


def test_who_makes_room_hears_that_the_queue_is_full() -> None:
    waiting = queue(1, 2, 3, max_queued=3)

    displaced = waiting.push("of bob", Task(9, "i", Prompt(), principal="bob"), now=1)

    assert displaced is not None
    item, failure = displaced
    assert (item, failure.task_id, failure.reason) == ("item 3", 3, "QUEUE_FULL")
    assert [number for number, _ in places(waiting)] == [1, 9, 2]
