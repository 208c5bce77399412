"""Each step's time goes to its tasks by the tokens that it computed of them."""

from __future__ import annotations

import pytest

from services.neuron.engine_api.task import StopParams
from tests.contract.engine.driving import Driver, run
from tests.doubles.scripted import Script

ENDLESS = Script(is_endless=True)


def test_all_that_steps_took_is_some_tasks(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=4)
    model.take_times()
    long = driver.task("Hi\n" * 100, stop=StopParams(max_tokens=6), principal="ada")
    talking = driver.task("Hi\n", stop=StopParams(max_tokens=20), principal="bob")

    run(model, long, talking)

    times = model.take_times([long.task_id, talking.task_id])
    by_task = {one.task_id: one for one in times.tasks}
    charged = sum(one.prefill_ns + one.decode_ns for one in times.tasks)
    assert charged == pytest.approx(times.busy_ns, rel=0.001)
    assert [by_task[one.task_id].principal for one in (long, talking)] == ["ada", "bob"]
    assert by_task[long.task_id].prefill_ns > by_task[talking.task_id].prefill_ns > 0
    assert by_task[talking.task_id].decode_ns > by_task[long.task_id].decode_ns > 0
    assert not model.take_times().tasks


def test_what_was_computed_of_a_cancelled_task_is_told(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=2)
    task = driver.task(stop=StopParams(max_tokens=500))
    model.submit(task, model.tokenize(task.prompt))
    for _ in range(5):
        model.step()

    model.cancel(task.task_id)

    (told,) = model.take_times([task.task_id]).tasks
    assert told.prefill_ns > 0
    assert told.decode_ns > 0


def test_principals_that_had_less_of_the_devices_go_first(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=1)
    driver.engine.shares.add("heavy", 1000.0)
    order = [
        driver.task(stop=StopParams(max_tokens=1), principal=who)
        for who in ("heavy", "heavy", "bob")
    ]
    for task in order:
        model.submit(task, model.tokenize(task.prompt))

    ended: list[int] = []
    while len(ended) < len(order):
        ended += [event.task_id for event in model.step() if type(event).__name__ == "Ended"]

    assert ended[0] == order[2].task_id
