"""An exception anywhere in the worker ends one command; a bystander's task finishes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from services.neuron.engine_api.events import Ended, Event, Failed
from services.neuron.engine_api.frames import (
    Counted,
    CountTokens,
    Crashed,
    Credit,
    Embedded,
    EmbedTexts,
    Load,
    LoadAborted,
    Stepped,
    Submit,
)
from services.neuron.engine_api.task import Prompt, Segment, StopParams
from tests.doubles.worker_process import WorkerProcess, plan, task

WORKER = "services.neuron.worker."
LLAMA = "services.neuron.engines.llamacpp.batch."
TASKS = [
    WORKER + "inbox:Inbox._put",
    WORKER + "inbox:token_ids",
    WORKER + "inbox:token_ids!",
    WORKER + "loop:EngineLoop._do",
    WORKER + "loop:EngineLoop._do!",
    WORKER + "loop:EngineLoop._submit",
    LLAMA + "loop:Loop.submit",
    LLAMA + "loop:Loop._receive",
    LLAMA + "loop:Loop._start",
    LLAMA + "loop:Loop._new_sampler",
    LLAMA + "streams:Stream.sample",
    LLAMA + "streams:Stream.sample!",
    LLAMA + "streams:Stream.ended",
    "services.neuron.engines.common.transcript:Transcript.push",
]


def begin(worker: WorkerProcess, model: Path) -> None:
    """A bystander that waits for credit; then the next call fails."""
    worker.hello()
    worker.load(plan(model, max_sequences=2))
    worker.send(Submit(task(1, stop=StopParams(max_tokens=20), credit_tokens=1)))
    worker.until(Stepped, lambda r: any(event.task_id == 1 for event in r.events))
    os.kill(worker.process.pid, signal.SIGUSR2)
    assert worker.process.stderr is not None
    assert worker.process.stderr.readline() == b"armed\n"


def end(worker: WorkerProcess) -> None:
    worker.send(Credit(((1, 100),)))
    last: Event = worker.collect({1})[1][-1]
    assert isinstance(last, Ended)
    assert last.completion_tokens == 20


@pytest.mark.parametrize("place", TASKS)
def test_a_task_fails_alone(monkeypatch: pytest.MonkeyPatch, endless: Path, place: str) -> None:
    monkeypatch.setenv("FAIL_AT", place)
    with WorkerProcess(module="tests.doubles.neuron_failing_worker") as worker:
        begin(worker, endless)

        worker.send(Submit(task(2, stop=StopParams(max_tokens=5))))

        failure = worker.collect({2})[2][-1]
        assert isinstance(failure, Failed)
        assert failure.reason == "INTERNAL"
        end(worker)


@pytest.mark.parametrize("place", [WORKER + "inbox:Inbox._put", WORKER + "inbox:token_ids!"])
def test_a_count_fails_alone(monkeypatch: pytest.MonkeyPatch, endless: Path, place: str) -> None:
    monkeypatch.setenv("FAIL_AT", place)
    with WorkerProcess(module="tests.doubles.neuron_failing_worker") as worker:
        begin(worker, endless)

        worker.send(CountTokens(1, "i", Prompt((Segment("Hi"),))))

        counted = worker.until(Counted)
        assert counted.error is not None
        assert counted.error[0] == "INTERNAL"
        assert "RuntimeError" in worker.until(Crashed).trace or place.endswith("!")
        end(worker)


@pytest.mark.parametrize(
    "place", [WORKER + "inbox:token_ids", WORKER + "embedding:Embeddings.begin"]
)
def test_embedding_fails_alone(monkeypatch: pytest.MonkeyPatch, endless: Path, place: str) -> None:
    monkeypatch.setenv("FAIL_AT", place)
    with WorkerProcess(module="tests.doubles.neuron_failing_worker") as worker:
        begin(worker, endless)

        worker.send(EmbedTexts(1, "i", (Prompt((Segment("Hi"),)),)))

        embedded = worker.until(Embedded)
        assert embedded.error is not None
        assert embedded.error[0] == "INTERNAL"
        end(worker)


@pytest.mark.parametrize(
    "place",
    [
        WORKER + "loop:EngineLoop._begin_load",
        "services.neuron.engines.llamacpp.engine:LlamaCppEngine.load",
        WORKER + "loading:_try_out!",
    ],
)
def test_a_load_fails_alone(monkeypatch: pytest.MonkeyPatch, endless: Path, place: str) -> None:
    monkeypatch.setenv("FAIL_AT", place)
    with WorkerProcess(module="tests.doubles.neuron_failing_worker") as worker:
        begin(worker, endless)

        worker.send(Load(plan(endless, "j")))

        assert worker.until(LoadAborted).instance_id == "j"
        end(worker)
