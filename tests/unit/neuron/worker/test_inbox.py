"""What a long prompt must not hold up: real model, real link, and a gate between two pieces."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.frames import (
    Cancel,
    CountTokens,
    Credit,
    EmbedTexts,
    Submit,
    Unload,
)
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Constraint, ConstraintKind, Prompt, Segment, Task
from services.neuron.engines import create_engine
from services.neuron.worker.inbox import Inbox
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.models import WorkerInstance, WorkerInstances
from services.neuron.worker.work import TokenisedTask, TokenisedTexts, Work
from tests.doubles import scripted

DEADLINE_SECONDS = 60.0
WINDOW = 60_000
# Its 13 bytes per token at most say 39,000 tokens, so that it must be counted; it has 510,000.
LONG = "the road goes on " * 30_000


class Gated:
    """A real model that asks for leave before every piece of a long prompt."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self.gate = threading.Semaphore(0)
        self.asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.tokenised: list[int] = []
        self.submitted: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def tokenize(self, prompt: Prompt) -> list[int]:
        ids = self._model.tokenize(prompt)
        self.tokenised.append(len(ids))
        return ids

    def min_token_counts(self, prompt: Prompt) -> Iterator[int]:
        for number in self._model.min_token_counts(prompt):
            self.asked.put(number)
            assert self.gate.acquire(timeout=DEADLINE_SECONDS)
            yield number

    def prepare(self, constraint: Constraint) -> None:
        self.asked.put(0)
        assert self.gate.acquire(timeout=DEADLINE_SECONDS)
        self._model.prepare(constraint)

    def wait_at_gate(self) -> int:
        return self.asked.get(timeout=DEADLINE_SECONDS)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    path = scripted.build(tmp_path_factory.mktemp("m") / "m.gguf", scripted.Script(context=WINDOW))
    steps = create_engine("llamacpp").load(
        LoadPlan("i", "llamacpp", str(path), max_context_tokens=WINDOW, max_sequences=1)
    )
    while True:
        try:
            next(steps)
        except StopIteration as done:
            model: LoadedModel = done.value
            break
    yield model
    model.close()


@pytest.fixture
def model(loaded: LoadedModel) -> Gated:
    return Gated(loaded)


@pytest.fixture
def instances(model: Gated) -> WorkerInstances:
    instances = WorkerInstances()
    instances.add(WorkerInstance(LoadPlan("i", "llamacpp", "m"), cast("LoadedModel", model)))
    return instances


@pytest.fixture
def inbox(instances: WorkerInstances, model: Gated) -> Iterator[Inbox]:
    instance = instances.get("i")
    assert instance is not None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Inbox(instances, DaemonLink(theirs))
        instances.remove("i")
        model.gate.release(1000)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not instance.is_free:  # the model is closed next
            assert time.monotonic() < deadline
            time.sleep(0.01)


def task(task_id: int, text: str = "Hi\n", principal: str = "") -> Task:
    return Task(task_id, "i", Prompt((Segment(text),)), principal=principal)


def next_work(inbox: Inbox, count: int = 1) -> list[Work]:
    work: list[Work] = []
    while len(work) < count:
        came = inbox.take(wait_seconds=DEADLINE_SECONDS)
        assert came, "nothing came in time"
        work += came
    return work


def refusal(work: Work) -> FleetError:
    assert isinstance(work, TokenisedTask)
    assert isinstance(work.token_ids, FleetError)
    return work.token_ids


def test_others_are_handled_between_two_pieces_of_a_long_prompt(inbox: Inbox, model: Gated) -> None:
    inbox.put_command(Submit(task(1, LONG)))
    model.wait_at_gate()

    inbox.put_command(Submit(task(2)))
    inbox.put_command(Cancel((7,)))

    other, cancel = next_work(inbox, 2)
    assert isinstance(other, TokenisedTask)
    assert other.token_ids == model.tokenize(task(2).prompt)
    assert cancel == Cancel((7,))
    model.gate.release(2)
    error = refusal(next_work(inbox)[0])
    assert error.facts["prompt_tokens_is_minimum"] == "true"
    assert WINDOW < int(error.facts["prompt_tokens"]) < len(LONG)
    assert "at least" in error.message


def test_a_prompt_is_refused_after_the_first_piece_that_tells(inbox: Inbox, model: Gated) -> None:
    model.gate.release(100)

    inbox.put_command(Submit(task(1, LONG)))

    refusal(next_work(inbox)[0])
    assert model.asked.qsize() == 2  # by its bytes, then one piece of four
    assert model.tokenised == []


def test_a_cancelled_prompt_ends_at_the_next_piece(inbox: Inbox, model: Gated) -> None:
    inbox.put_command(Submit(task(1, LONG)))
    model.wait_at_gate()

    inbox.put_command(Cancel((1,)))
    model.gate.release(1)
    inbox.put_command(Submit(task(2, LONG)))  # tells when the first is done with
    model.wait_at_gate()
    model.gate.release(2)

    cancel, other = next_work(inbox, 2)
    assert cancel == Cancel((1,))
    assert isinstance(other, TokenisedTask)
    assert other.task.task_id == 2
    assert model.asked.qsize() == 1  # no second piece of the first


def test_an_unload_ends_it_at_the_next_piece(
    inbox: Inbox, instances: WorkerInstances, model: Gated
) -> None:
    inbox.put_command(Submit(task(1, LONG)))
    model.wait_at_gate()
    inbox.put_command(Unload("i"))

    instance = instances.remove("i")
    assert instance is not None
    assert not instance.is_free

    model.gate.release(1)
    unload, told = next_work(inbox, 2)
    assert unload == Unload("i")
    assert refusal(told).reason.value == "INSTANCE_GONE"
    assert instance.is_free


def test_credit_waits_for_its_long_prompt(inbox: Inbox, model: Gated) -> None:
    blanks = " " * (8 * WINDOW + 1)  # measured, and refused in the end
    inbox.put_command(Submit(task(1, blanks)))
    model.wait_at_gate()

    inbox.put_command(Credit(((1, 5), (9, 3))))
    inbox.put_command(Credit(((1, 2),)))

    assert next_work(inbox) == [Credit(((9, 3),))]
    model.gate.release(2)
    told, credit = next_work(inbox, 2)
    assert isinstance(told, TokenisedTask)
    assert credit == Credit(((1, 7),))


def test_a_long_prompt_that_may_fit_has_the_same_token_ids(inbox: Inbox, model: Gated) -> None:
    text = LONG[: 8 * WINDOW // 5]

    inbox.put_command(Submit(task(1, text)))

    (told,) = next_work(inbox)
    assert isinstance(told, TokenisedTask)
    assert told.token_ids == model.tokenize(Prompt((Segment(text),)))
    assert model.asked.empty()


def test_no_more_long_prompts_wait_than_may(inbox: Inbox, model: Gated) -> None:
    inbox.put_command(Submit(task(1, LONG)))
    model.wait_at_gate()
    for number in range(2, 35):
        inbox.put_command(Submit(task(number, LONG)))

    error = refusal(next_work(inbox)[0])

    assert error.reason.value == "QUEUE_FULL"
    inbox.put_command(Cancel(tuple(range(1, 35))))
    model.gate.release(100)


def test_places_of_long_prompts_are_shared_by_principal(inbox: Inbox, model: Gated) -> None:
    inbox.put_command(Submit(task(1, LONG, "ann")))
    model.wait_at_gate()
    for number in range(2, 34):  # as many as may wait
        inbox.put_command(Submit(task(number, LONG, "ann")))
    inbox.put_command(Submit(task(50, LONG, "bob")))

    (displaced,) = next_work(inbox)
    assert isinstance(displaced, TokenisedTask)
    assert displaced.task.task_id == 33
    assert refusal(displaced).reason is Reason.QUEUE_FULL
    inbox.put_command(Cancel(tuple(range(1, 34))))
    assert isinstance(next_work(inbox)[0], Cancel)
    model.gate.release(1000)
    (next_one,) = next_work(inbox)
    assert isinstance(next_one, TokenisedTask)
    assert next_one.task.task_id == 50


def test_places_of_long_texts_are_shared_by_principal(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    answered = threading.Semaphore(0)
    tokenising, go_on = threading.Event(), threading.Event()

    def send(_: DaemonLink, report: Any) -> None:
        sent.append(report)
        answered.release()

    def tokenize(_: Gated, prompt: Prompt) -> list[int]:
        tokenising.set()
        assert go_on.wait(DEADLINE_SECONDS)
        return [len(prompt.segments)]

    monkeypatch.setattr(DaemonLink, "send", send)
    monkeypatch.setattr(Gated, "tokenize", tokenize)
    long = Prompt((Segment(LONG),))
    inbox.put_command(CountTokens(1, "i", long, "ann"))
    assert tokenising.wait(DEADLINE_SECONDS)
    for number in range(2, 34):
        inbox.put_command(CountTokens(number, "i", long, "ann"))
    inbox.put_command(CountTokens(50, "i", long, "bob"))
    assert answered.acquire(timeout=DEADLINE_SECONDS)
    go_on.set()
    for _ in range(33):
        assert answered.acquire(timeout=DEADLINE_SECONDS)

    assert (sent[0].call_id, sent[0].error[0]) == (33, "QUEUE_FULL")
    # behind the one that was at it, another of ann's, whose turn had not been yet, or bob's
    assert 50 in [report.call_id for report in sent[1:4]]
    assert all(report.error is None for report in sent[1:])


def test_a_count_is_exact_and_holds_up_nobody(inbox: Inbox, model: Gated) -> None:
    inbox.put_command(CountTokens(1, "i", Prompt((Segment(LONG),))))
    inbox.put_command(Submit(task(2)))

    assert isinstance(next_work(inbox)[0], TokenisedTask)
    assert model.asked.empty()


def test_of_a_text_that_is_cut_only_the_beginning_is_tokenised(inbox: Inbox, model: Gated) -> None:
    endless = Prompt((Segment(LONG * 20),))

    inbox.put_command(EmbedTexts(1, "i", (endless,), truncate=True))

    (texts,) = next_work(inbox)
    assert isinstance(texts, TokenisedTexts)
    assert not isinstance(texts.inputs, FleetError)
    ids = texts.inputs[0]
    assert [len(ids)] == model.tokenised
    assert WINDOW < len(ids) < len(LONG)


def test_others_are_handled_while_a_constraint_is_compiled(inbox: Inbox, model: Gated) -> None:
    constraint = Constraint(ConstraintKind.REGEX, "a+")
    constrained = msgspec.structs.replace(task(1), constraint=constraint)
    inbox.put_command(Submit(constrained))
    model.wait_at_gate()

    inbox.put_command(Submit(task(2)))
    inbox.put_command(Credit(((1, 5),)))

    (other,) = next_work(inbox)
    assert isinstance(other, TokenisedTask)
    assert other.task.task_id == 2
    model.gate.release(1)
    compiled, credit = next_work(inbox, 2)
    assert isinstance(compiled, TokenisedTask)
    assert compiled.task == constrained
    assert credit == Credit(((1, 5),))


def test_a_constraint_that_cannot_be_compiled_fails_its_task(inbox: Inbox, model: Gated) -> None:
    model.gate.release(1)
    constraint = Constraint(ConstraintKind.REGEX, "(")

    inbox.put_command(Submit(msgspec.structs.replace(task(1), constraint=constraint)))

    assert refusal(next_work(inbox)[0]).reason is Reason.BAD_CONSTRAINT
