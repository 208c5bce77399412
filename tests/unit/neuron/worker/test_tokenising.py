"""Texts that are counted, as the daemon sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.neuron.engine_api.events import Ended, Failed
from services.neuron.engine_api.frames import (
    Cancel,
    Counted,
    CountTokens,
    Stepped,
    Submit,
)
from services.neuron.engine_api.task import Prompt, Segment, StopParams
from tests.doubles.worker_process import WorkerProcess, plan, task


def test_texts_are_counted(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))

    prompt = Prompt((Segment("four"),))
    worker.send(CountTokens(4, "i", prompt))
    worker.send(CountTokens(5, "i", prompt, wants_ids=True))
    worker.send(CountTokens(6, "gone", prompt))

    counted = worker.until(Counted, lambda r: r.call_id == 4)
    known = worker.until(Counted, lambda r: r.call_id == 5)
    error = worker.until(Counted, lambda r: r.call_id == 6).error

    assert (counted.tokens, counted.token_ids) == (4, ())
    assert (known.tokens, len(known.token_ids)) == (4, 4)
    assert error is not None
    assert error[0] == "INSTANCE_GONE"


def test_sixteen_megabytes_hold_up_nobody(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))
    endless = "the road goes on " * (1 << 20)
    stop = StopParams(max_tokens=1)
    long = endless[:900_000]
    worker.send(CountTokens(4, "i", Prompt((Segment(endless),))))
    worker.send(CountTokens(5, "i", Prompt((Segment(long),))))
    worker.send(Submit(task(1, endless)), Submit(task(2, endless)), Cancel((2,)))
    worker.send(Submit(task(3, stop=stop)))

    happened: list[Any] = []
    while not (happened and isinstance(happened[-1], Counted) and happened[-1].call_id == 5):
        report = worker.receive()
        happened += report.events if isinstance(report, Stepped) else [report]

    # What is far beyond any context is not counted to its end.
    refused = next(each for each in happened if isinstance(each, Counted))
    assert (refused.call_id, (refused.error or ("",))[0]) == (4, "CONTEXT_TOO_LONG")
    # All others have ended before the count has.
    failed = next(each for each in happened if isinstance(each, Failed))
    assert (failed.task_id, failed.reason) == (1, "CONTEXT_TOO_LONG")
    assert 1024 < int(failed.facts["prompt_tokens"]) <= len(endless)
    assert [each.task_id for each in happened if isinstance(each, Ended)] == [3]
    assert not any(getattr(each, "task_id", 0) == 2 for each in happened)
    assert happened[-1].tokens == len(long)
