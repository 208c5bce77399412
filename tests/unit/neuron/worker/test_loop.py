"""Tasks as the daemon sees them: a real process, real frames, real models."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.neuron.engine_api.device_time import Charge
from services.neuron.engine_api.events import Delta, Ended, Failed
from services.neuron.engine_api.frames import (
    Beat,
    Cancel,
    Charged,
    Credit,
    Load,
    Stepped,
    Submit,
    Unload,
    Unloaded,
)
from services.neuron.engine_api.task import Prompt, StopParams, Task
from tests.doubles import scripted
from tests.doubles.scripted import Script
from tests.doubles.worker_process import WorkerProcess, active, plan, task, text_of


def test_all_tokens_of_a_step_come_in_one_frame(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless, max_sequences=4))
    worker.send(*[Submit(task(n, stop=StopParams(max_tokens=400))) for n in range(4)])

    full = worker.until(
        Stepped, lambda report: sum(isinstance(e, Delta) for e in report.events) == 4
    )

    assert active(full) == 4


def test_a_cancelled_task_falls_silent(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless, max_sequences=2, max_context_tokens=4096))
    worker.send(Submit(task(1)), Submit(task(2, stop=StopParams(max_tokens=2000))))
    worker.until(Stepped, lambda report: active(report) == 2)

    worker.send(Cancel((1,)))
    worker.until(Stepped, lambda report: active(report) == 1)

    after = worker.collect({2})[2]
    assert not any(event.task_id == 1 for event in after)


def test_a_cancelled_waiter_never_runs(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless, max_sequences=1))
    worker.send(Submit(task(1, credit_tokens=0)), Submit(task(2)), Cancel((2,)), Cancel((1,)))

    events = worker.generate(task(3, stop=StopParams(max_tokens=1)))

    assert text_of(events[3]) == " w0"


def test_credit_lets_a_task_go_on(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless))
    worker.send(Submit(task(1, stop=StopParams(max_tokens=4), credit_tokens=1)))
    first = worker.until(Stepped, lambda r: any(isinstance(e, Delta) for e in r.events))

    worker.send(Credit(((1, 10),)))

    rest = worker.collect({1})[1]
    assert text_of([*first.events, *rest]) == " w0 w1 w2 w3"


def test_a_wait_that_is_too_long_ends_though_nothing_moves(
    worker: WorkerProcess, endless: Path
) -> None:
    worker.load(plan(endless, max_sequences=1, queue_timeout_seconds=0.2))
    worker.send(Submit(task(1, credit_tokens=0)), Submit(task(2)))

    events = worker.collect({2})[2]

    last = events[-1]
    assert isinstance(last, Failed)
    assert last.reason == "QUEUE_TIMEOUT"


def test_two_models_talk_at_once(worker: WorkerProcess, said: Path, tmp_path: Path) -> None:
    other = scripted.build(tmp_path / "other.gguf", Script(words=("It", " is", " other")))
    worker.load(plan(said, "one"))
    worker.load(plan(other, "two"))

    events = worker.generate(task(1, instance_id="one"), task(2, instance_id="two"))

    assert text_of(events[1]) == "Hello from model bravo"
    assert text_of(events[2]) == "It is other"


def test_an_unload_frees_memory_and_ends_its_tasks(worker: WorkerProcess, tmp_path: Path) -> None:
    big = scripted.build(
        tmp_path / "big.gguf", Script(words=[" a", " b"], is_endless=True, context=65_536)
    )
    worker.load(plan(big, max_context_tokens=65_536, max_sequences=4))
    worker.send(Submit(task(1)))
    worker.until(Stepped)

    worker.send(Unload("i"))

    failed = worker.until(Stepped, lambda r: any(isinstance(e, Failed) for e in r.events))
    assert [getattr(e, "reason", "") for e in failed.events] == ["INSTANCE_GONE"]
    assert worker.until(Unloaded).freed_bytes > 50 << 20


def test_a_task_for_a_model_that_is_gone_fails(worker: WorkerProcess) -> None:
    (event,) = worker.generate(task(1, instance_id="gone"))[1]

    assert isinstance(event, Failed)
    assert event.reason == "INSTANCE_GONE"


def test_an_unload_of_nothing_is_answered(worker: WorkerProcess) -> None:
    worker.send(Unload("gone"))

    assert worker.until(Unloaded).freed_bytes == 0


def test_a_prompt_that_is_refused_fails_its_task_alone(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))
    bad = Task(1, "i", Prompt(token_ids=(999_999,)))

    events = worker.generate(bad, task(2), task(3, "x" * 2000))

    assert getattr(events[1][-1], "reason", "") == "BAD_REQUEST"
    assert text_of(events[2]) == "Hello from model bravo"
    assert getattr(events[3][-1], "facts", {})["prompt_tokens"] == "2000"


def test_it_beats_while_idle_and_while_busy(worker: WorkerProcess, tmp_path: Path) -> None:
    long = Script(words=[" a", " b"], is_endless=True, context=65_536)
    worker.load(plan(scripted.build(tmp_path / "long.gguf", long), max_context_tokens=65_536))
    idle = worker.until(Beat, lambda beat: not beat.busy_with)
    worker.send(Submit(task(1)))

    busy = worker.until(Beat, lambda beat: bool(beat.busy_with))

    worker.send(Cancel((1,)))
    assert idle.resident_bytes > 10 << 20
    assert busy.busy_with == "generating"


def test_usage_is_told_at_the_end(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))

    ended = worker.generate(task(1))[1][-1]

    assert isinstance(ended, Ended)
    assert ended.completion_tokens == 4
    assert ended.decode_seconds >= 0


def charged(worker: WorkerProcess, open_ids: set[int]) -> tuple[list[Charge], int]:
    """All charges until these tasks have ended and the loop has gone on, and the busy time."""
    charges: list[Charge] = []
    busy = 0
    while True:
        report = worker.receive()
        if isinstance(report, Charged):
            charges += report.charges
            busy += report.busy_ns
        elif isinstance(report, Stepped):
            open_ids -= {e.task_id for e in report.events if isinstance(e, Ended | Failed)}
        elif isinstance(report, Beat) and not open_ids:
            return charges, busy


def test_the_devices_time_is_charged_to_whom_they_worked_for(
    worker: WorkerProcess, endless: Path
) -> None:
    worker.load(plan(endless, max_sequences=4, principal="ann", model="endless"))
    worker.send(
        Submit(task(1, stop=StopParams(max_tokens=40), principal="ann")),
        Submit(task(2, stop=StopParams(max_tokens=40), principal="bob")),
        Submit(task(3, stop=StopParams(max_tokens=900), principal="cid")),
    )
    worker.send(Cancel((3,)))
    charges, _ = charged(worker, {1, 2})
    worker.send(Unload(plan(endless).instance_id, "bob"))
    unloaded = worker.until(Charged, lambda report: any(c.unload_ns for c in report.charges))

    assert {one.model for one in charges} == {"endless"}
    assert {one.task_id for one in charges if one.decode_ns} >= {1, 2}
    assert {one.principal for one in charges if one.prefill_ns} >= {"ann", "bob"}
    assert [one.principal for one in unloaded.charges if one.unload_ns] == ["bob"]


def test_what_a_cancelled_task_has_used_is_charged(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless, max_sequences=2, max_context_tokens=4096, model="endless"))
    worker.send(Submit(task(1, stop=StopParams(max_tokens=4000), principal="ann")))
    worker.until(Stepped, lambda r: any(isinstance(e, Delta) for e in r.events))

    worker.send(Cancel((1,)))

    told = worker.until(Charged, lambda report: any(c.decode_ns for c in report.charges))
    assert {one.principal for one in told.charges if one.task_id == 1} == {"ann"}


def test_what_a_task_has_used_that_an_unload_ends_is_charged_before_its_end(
    worker: WorkerProcess, endless: Path
) -> None:
    worker.load(plan(endless, max_context_tokens=4096))
    worker.send(Submit(task(1, stop=StopParams(max_tokens=4000), principal="ann")))
    charges = list[Charge]()
    made = 0
    while not made:
        report = worker.receive()
        made += isinstance(report, Stepped) and any(isinstance(e, Delta) for e in report.events)
        charges += report.charges if isinstance(report, Charged) else ()

    worker.send(Unload("i"))

    is_over = False
    while not isinstance(report := worker.receive(), Unloaded):
        if isinstance(report, Stepped):
            is_over |= any(isinstance(event, Failed) for event in report.events)
        elif isinstance(report, Charged):
            assert not (is_over and any(one.task_id for one in report.charges))
            charges += report.charges
    assert is_over
    assert {one.task_id for one in charges if one.decode_ns} == {1}


def test_what_is_charged_is_what_the_worker_was_busy(worker: WorkerProcess, endless: Path) -> None:
    worker.send(Load(plan(endless, max_sequences=2, principal="ann", model="endless")))
    worker.send(
        *[
            Submit(task(n, stop=StopParams(max_tokens=60), principal=f"p{n % 3}"))
            for n in range(1, 7)
        ]
    )

    charges, busy = charged(worker, set(range(1, 7)))

    assert {one.principal for one in charges if one.load_ns} == {"ann"}
    total = sum(c.prefill_ns + c.decode_ns + c.load_ns + c.unload_ns for c in charges)
    assert total == pytest.approx(busy, rel=0.001)
