"""The real worker with an engine that holds memory of its devices and says one word.

It stands for an engine on GPUs that this machine does not have: what the daemon does with workers,
devices and groups of them is real.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import socket
from collections.abc import Collection, Generator, Iterator, Sequence

from services.neuron.engine_api.device_time import StepTimes
from services.neuron.engine_api.events import Delta, Ended, EndReason, Event, Started
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.model import LoadPlan, LoadStep, ModelInfo, ModelStats
from services.neuron.engine_api.task import Constraint, Prompt, Task
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.loop import EngineLoop


class HoldingModel:
    """Answers every task with one word."""

    def __init__(self, size: int) -> None:
        devices = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        self.info = ModelInfo(
            engine="exllamav2",
            architecture="llama",
            max_context_tokens=100,
            max_sequences=4,
            max_queued=4,
            cache_tokens=100,
            vocabulary_size=300,
            memory_bytes={name: size // len(devices) for name in devices},
            facts={"devices": ",".join(devices)},
        )
        self._events: list[Event] = []

    @property
    def has_work(self) -> bool:
        return bool(self._events)

    def tokenize(self, prompt: Prompt) -> list[int]:
        return list(prompt.token_ids or (1,))

    def prepare(self, constraint: Constraint) -> None:
        """Enforces none."""

    def min_token_counts(self, prompt: Prompt) -> Iterator[int]:
        yield len(self.tokenize(prompt))

    def submit(self, task: Task, token_ids: Sequence[int]) -> None:
        self._events += [
            Started(task.task_id, len(token_ids), 0),
            Delta(task.task_id, "held", (7,)),
            Ended(task.task_id, EndReason.MAX_TOKENS, "", 1, 0.0, 0.0, 0.0),
        ]

    def cancel(self, task_id: int) -> None:
        self._events = [event for event in self._events if event.task_id != task_id]

    def credit(self, task_id: int, tokens: int) -> None:
        """Its one word needs none."""

    def step(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def embed(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        raise NotImplementedError

    def take_times(self, ended: Collection[int] | None = None) -> StepTimes:
        return StepTimes((), 0)

    def stats(self) -> ModelStats:
        return ModelStats()

    def close(self) -> None:
        """It holds nothing but numbers."""


class HoldingEngine:
    """Loads anything, at the size that it has on disk."""

    name = "exllamav2"
    facts: dict[str, str] = {}
    shares = FairShares()

    def load(self, plan: LoadPlan) -> Generator[LoadStep, None, HoldingModel]:
        size = sum(file.stat().st_size for file in pathlib.Path(plan.path).glob("*.safetensors"))
        yield LoadStep(0, size)
        return HoldingModel(size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    with socket.socket(fileno=parser.parse_args().fd) as daemon:
        EngineLoop(HoldingEngine(), DaemonLink(daemon)).run()


if __name__ == "__main__":
    main()
