import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engine_api.device_time import StepTimes, TaskTime
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.task import Prompt, Task
from services.neuron.engines.common.step_meter import StepMeter

SECOND = 1_000_000_000


def task(task_id: int, principal: str = "ada") -> Task:
    return Task(task_id, "i", Prompt(), principal=principal)


def test_a_step_is_divided_by_the_tokens_that_it_computed() -> None:
    meter = StepMeter(FairShares())

    meter.note([(task(1), 6, 0), (task(2, "bob"), 0, 2)])
    meter.end_step(800)

    assert meter.take() == StepTimes([TaskTime(1, "ada", 600, 0), TaskTime(2, "bob", 0, 200)], 800)
    assert meter.take() == StepTimes([], 0)


def test_a_step_that_computed_nothing_is_nobodys() -> None:
    meter = StepMeter(FairShares())

    meter.note([(task(1), 0, 0)])
    meter.end_step(800)

    assert meter.take() == StepTimes([], 0)


def test_an_ended_task_is_told_alone() -> None:
    meter = StepMeter(FairShares())
    for _ in range(2):
        meter.note([(task(1), 0, 1), (task(2), 0, 1)])
        meter.end_step(200)

    ended = meter.take([2, 99])

    assert ended == StepTimes([TaskTime(2, "ada", 0, 200)], 400)
    assert meter.take() == StepTimes([TaskTime(1, "ada", 0, 200)], 0)


def test_a_turn_counts_as_its_estimate_until_more_was_measured_and_then_as_it_was() -> None:
    shares = FairShares()
    meter = StepMeter(shares)
    shares.add("ada", 1.0)  # as the queue does with a turn
    meter.begin(1, "ada", 1.0)

    meter.note([(task(1), 0, 1)])
    meter.end_step(SECOND // 4)
    meter.take()
    early = shares.seconds["ada"]
    meter.note([(task(1), 0, 1)])
    meter.end_step(2 * SECOND)
    meter.take()
    long = shares.seconds["ada"]
    shares.add("ada", 10.0)
    meter.begin(2, "ada", 10.0)
    meter.take([2])

    assert early == pytest.approx(1.0)
    assert long == pytest.approx(2.25)
    assert shares.seconds["ada"] == pytest.approx(2.25)


def test_what_was_read_of_a_task_before_its_turn_is_told_and_counted_once() -> None:
    shares = FairShares()
    meter = StepMeter(shares)
    for number in (1, 2):  # with pictures, one behind the other
        meter.charge(task(number), SECOND)
    shares.add("ada", 5.0)  # as the queue does with a turn
    meter.begin(1, "ada", 5.0)

    meter.note([(task(1), 0, 1)])
    meter.end_step(SECOND)

    assert meter.take([1, 2]) == StepTimes(
        [TaskTime(1, "ada", SECOND, SECOND), TaskTime(2, "ada", SECOND, 0)], 3 * SECOND
    )
    assert shares.seconds["ada"] == pytest.approx(3.0)


def test_the_estimate_follows_what_tasks_took() -> None:
    meter = StepMeter(FairShares())
    for task_id, seconds in ((1, 4), (2, 9)):
        meter.note([(task(task_id), 0, 1)])
        meter.end_step(seconds * SECOND)
        meter.take([task_id])

    assert meter.turn_seconds == pytest.approx(5.0)


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 5), st.integers(0, 600), st.integers(0, 4))),
            st.integers(0, SECOND),
            st.sets(st.integers(0, 5)),
        ),
        max_size=30,
    )
)
def test_all_parts_add_up_to_what_the_devices_worked(
    steps: list[tuple[list[tuple[int, int, int]], int, set[int]]],
) -> None:
    meter = StepMeter(FairShares())
    charged = busy = 0
    for number, (work, elapsed, ended) in enumerate(steps):
        meter.note([(task(task_id), read, made) for task_id, read, made in work])
        meter.end_step(elapsed)
        told = meter.take(ended if number % 2 else None)
        charged += sum(one.prefill_ns + one.decode_ns for one in told.tasks)
        busy += told.busy_ns
    last = meter.take()
    charged += sum(one.prefill_ns + one.decode_ns for one in last.tasks)

    assert charged == pytest.approx(busy + last.busy_ns, abs=1 + 2 * 6 * len(steps))
