"""What an inference engine owes the worker that runs it, in plain values.

An `Engine` loads models; each loaded model is a `LoadedModel` that is stepped by the worker's main
thread. Values are msgspec structs, because the same values cross the pipe between worker and daemon
(`engine_api/frames.py`). Nothing here imports an engine, a GPU library or protobuf.

Threads: everything is called from the worker's main thread, except `LoadedModel.tokenize`,
`min_token_counts` and `prepare`, which other threads call, several at a time, while the main thread
decodes.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Protocol, runtime_checkable

from services.neuron.engine_api.device_time import StepTimes
from services.neuron.engine_api.events import Event
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.model import LoadPlan, LoadStep, ModelInfo, ModelStats
from services.neuron.engine_api.task import Constraint, Prompt, Task


class LoadedModel(Protocol):
    """One model in memory: a continuous batch that is stepped."""

    @property
    def info(self) -> ModelInfo:
        """Facts of the model that never change: sizes, templates, control tokens, limits."""
        ...

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt. Safe to call while other threads step and tokenise."""
        ...

    def min_token_counts(self, prompt: Prompt) -> Iterator[int]:
        """Lower bounds on a prompt's token count, rising; each costs a bounded piece of work.

        Whoever needs only to know that a prompt is too long stops at the first that is. Safe to
        call while other threads step and tokenise.
        """
        ...

    def prepare(self, constraint: Constraint) -> None:
        """Compiles a constraint, so that the main thread need not. Safe to call as `tokenize`.

        Raises:
            FleetError: BAD_CONSTRAINT, it cannot be enforced.
        """
        ...

    def submit(self, task: Task, token_ids: Sequence[int]) -> None:
        """Queues a task; its prompt has been tokenised. What cannot run ends with `Failed`."""
        ...

    def cancel(self, task_id: int) -> None:
        """Forgets a task at once, running or queued; no event follows. Unknown ids are ignored."""
        ...

    def credit(self, task_id: int, tokens: int) -> None:
        """Lets a task send more tokens. Unknown ids are ignored."""
        ...

    @property
    def has_work(self) -> bool:
        """True if `step` would do something now."""
        ...

    def step(self) -> list[Event]:
        """Runs one step of the batch: admits, prefills one bounded chunk, decodes one token each.

        While tasks are unfinished it is called at least every tenth of a second, also without
        work, so that those that wait too long hear of it.

        Returns: what happened, in order; empty where nothing did.

        Raises:
            EnginePoisoned: the process must be replaced.
        """
        ...

    def take_times(self, ended: Collection[int] | None = None) -> StepTimes:
        """Device time of the steps since the last call, and each task's share of it.

        Args:
            ended: of these tasks alone, which have ended or were cancelled; None: of all.
        """
        ...

    def embed(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector per tokenised input, normalised."""
        ...

    def stats(self) -> ModelStats:
        """How many tasks run and wait, and how full the cache is; costs next to nothing to ask."""
        ...

    def close(self) -> None:
        """Frees the memory. Every task must have ended or been cancelled."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """A `LoadedModel` whose steps may be long, and can be cut short."""

    def interrupt(self, task_ids: Collection[int]) -> None:
        """Cuts the running step short if it serves none but these tasks, which end now.

        Called by the reader thread while another thread steps; the cancels follow by the usual way.
        """
        ...

    def hurry(self) -> None:
        """Cuts short a step that only reads prompts of batch work, because other work waits.

        Called likewise. Not twice in a row, so that batch prompts are read all the same.
        """
        ...


@runtime_checkable
class Hibernating(Protocol):
    """A `LoadedModel` that can save what its cache holds, for when it is loaded again."""

    def hibernate(self) -> tuple[int, int]:
        """Saves it in the store of its plan, within seconds. The next call is `close`.

        Returns: how many sequences were saved, and their bytes.

        Raises:
            OSError: the store cannot be written.
        """
        ...


@runtime_checkable
class Grouped(Protocol):
    """An `Engine` that may run a model with several processes (tensor parallelism)."""

    @property
    def rank_pids(self) -> tuple[int, ...]:
        """Ids of the processes that run models together with this one, rank by rank from 1."""
        ...


class Engine(Protocol):
    """A library that loads models into this process."""

    @property
    def shares(self) -> FairShares:
        """Device seconds that each principal has had, over all models of this process."""
        ...

    @property
    def name(self) -> str:
        """`llamacpp`, `exllamav2`."""
        ...

    @property
    def facts(self) -> dict[str, str]:
        """The library's version and what it found on this machine, for `Hello`."""
        ...

    def load(self, plan: LoadPlan) -> Generator[LoadStep, None, LoadedModel]:
        """Loads a model step by step; other models are stepped between two steps.

        Closing the generator abandons the load and frees what it had taken.

        Raises:
            LoadFailed: with the engine's own words.
        """
        ...
