from collections.abc import Sequence

import pytest
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import Failed, Queued
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.model import ModelInfo, ModelStats
from services.neuron.engine_api.task import Prompt, Segment, Task
from services.neuron.engines.common.task_queue import TaskQueue
from services.neuron.engines.common.token_model import EmbeddingModel, GeneratingModel
from services.neuron.engines.common.tokeniser import Tokeniser

INFO = ModelInfo(
    engine="e",
    architecture="a",
    max_context_tokens=4,
    max_sequences=1,
    max_queued=1,
    cache_tokens=4,
    vocabulary_size=128,
)


class Bytes(Tokeniser):
    def __init__(self) -> None:
        super().__init__(size=128, leading_bos_id=None, pieces=[b"a"], is_bytewise=False)

    @override
    def tokenize_plain(self, text: bytes) -> list[int]:
        return list(text)

    @override
    def _segment_ids(self, segment: Segment) -> list[int]:
        return list(segment.text.encode())


class Embedder(EmbeddingModel):
    """Its vector is the text's length."""

    @override
    def close(self) -> None: ...

    @override
    def _vectors(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[float(len(tokens))] for tokens in inputs]


class Generator(GeneratingModel[str]):
    """Refuses empty prompts, admits nobody until told to, and counts its steps."""

    def __init__(self, *, timeout_seconds: float = 60) -> None:
        queue = TaskQueue[str](
            max_queued=1, timeout_seconds=timeout_seconds, places=1, shares=FairShares()
        )
        super().__init__(Bytes(), INFO, queue)
        self.has_place = False
        self.steps = 0

    @override
    def cancel(self, task_id: int) -> None: ...

    @override
    def credit(self, task_id: int, tokens: int) -> None: ...

    @property
    @override
    def has_work(self) -> bool:
        return len(self._queue) > 0

    @override
    def stats(self) -> ModelStats:
        return ModelStats(queued=len(self._queue), steps=self.steps)

    @override
    def close(self) -> None: ...

    @override
    def _receive(self, task: Task, token_ids: Sequence[int]) -> str:
        if not token_ids:
            raise FleetError(Reason.BAD_REQUEST, "The prompt is empty.")
        return "item"

    @override
    def _admit(self, now: float) -> None:
        if self.has_place:
            self._queue.pop([])

    @override
    def _run_step(self) -> None:
        self.steps += 1


def task(task_id: int) -> Task:
    return Task(task_id, "i", Prompt())


def test_prompts_are_tokenised_by_the_models_tokeniser() -> None:
    prompt = Prompt((Segment("ab"),))

    assert Generator().tokenize(prompt) == [97, 98]
    assert list(Generator().min_token_counts(prompt))[-1] == 2


def test_a_task_waits_until_it_has_a_place() -> None:
    model = Generator()
    model.submit(task(1), [1])

    assert model.step() == [Queued(1, 0)]
    assert model.step() == []
    model.has_place = True
    model.step()
    assert model.stats() == ModelStats(queued=0, steps=3)


def test_what_cannot_run_or_wait_fails_at_the_next_step() -> None:
    model = Generator()
    model.submit(task(1), [])
    model.submit(task(2), [1])
    model.submit(task(3), [1])

    events = model.step()

    failures = [event for event in events if isinstance(event, Failed)]
    assert [(f.task_id, f.reason) for f in failures] == [(1, "BAD_REQUEST"), (3, "QUEUE_FULL")]


def test_who_waits_too_long_fails() -> None:
    model = Generator(timeout_seconds=0)
    model.submit(task(1), [1])

    (failure,) = model.step()

    assert isinstance(failure, Failed)
    assert failure.reason == "QUEUE_TIMEOUT"
    assert not model.has_work


def test_a_generator_makes_no_vectors() -> None:
    with pytest.raises(FleetError) as caught:
        Generator().embed([[1]])

    assert caught.value.reason is Reason.WRONG_MODALITY


def test_an_embedder_checks_its_inputs_first() -> None:
    model = Embedder(Bytes(), INFO)

    assert model.embed([[1, 2], [3]]) == [[2.0], [1.0]]
    with pytest.raises(FleetError, match="empty") as empty:
        model.embed([[1], []])
    with pytest.raises(FleetError) as long:
        model.embed([[1] * 5])
    assert empty.value.field == "input.1"
    assert long.value.facts == {"prompt_tokens": "5", "max_context_tokens": "4"}


def test_an_embedder_refuses_tasks_at_its_next_step() -> None:
    model = Embedder(Bytes(), INFO)
    model.submit(task(1), [1])
    assert model.has_work

    (failure,) = model.step()

    assert isinstance(failure, Failed)
    assert failure.reason == "WRONG_MODALITY"
    assert not model.has_work
