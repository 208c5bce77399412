"""Steps a model the way the worker does, and reads what it said."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from services.neuron.engine_api.engine import Engine, LoadedModel
from services.neuron.engine_api.events import Delta, Ended, Event, Failed, Started
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Prompt, SamplingParams, Segment, Task
from tests.contract.engine.subjects import Subject
from tests.doubles.scripted import Script

GREEDY = SamplingParams(temperature=0)
MOST_STEPS = 20_000


class Driver:
    """One engine with the models that a test loaded."""

    def __init__(self, engine: Engine, subject: Subject, folder: Path) -> None:
        self.engine = engine
        self._subject = subject
        self._folder = folder
        self._models: list[LoadedModel] = []
        self._task_ids = itertools.count(1)

    def load(self, script: Script | None = None, **plan: Any) -> LoadedModel:
        path = self._subject.build(self._folder, script or Script())
        plan.setdefault("max_context_tokens", 1024)
        model = self.finish(self.engine.load(self.plan(path, **plan)))
        self._models.append(model)
        return model

    def plan(self, path: Path, **fields: Any) -> LoadPlan:
        settled = {**self._subject.plan, **fields}
        return LoadPlan(instance_id="i", engine=self.engine.name, path=str(path), **settled)

    def finish(self, steps: Any) -> LoadedModel:
        while True:
            try:
                next(steps)
            except StopIteration as done:
                model: LoadedModel = done.value
                return model

    def task(self, text: str | Prompt = "Hi\n", **fields: Any) -> Task:
        prompt = Prompt((Segment(text),)) if isinstance(text, str) else text
        fields.setdefault("sampling", GREEDY)
        return Task(next(self._task_ids), "i", prompt, **fields)

    def close(self) -> None:
        for model in self._models:
            model.close()


def submit(model: LoadedModel, *tasks: Task) -> None:
    for task in tasks:
        model.submit(task, model.tokenize(task.prompt))


def step_until(model: LoadedModel, is_enough: Callable[[list[Event]], bool]) -> list[Event]:
    """Steps until what happened is enough."""
    events: list[Event] = []
    for _ in range(MOST_STEPS):
        if is_enough(events):
            return events
        events += model.step()
    raise AssertionError(f"not enough after {MOST_STEPS} steps; last events: {events[-3:]}")


def run(model: LoadedModel, *tasks: Task) -> list[Event]:
    """Events of all tasks, until all have ended."""
    submit(model, *tasks)
    ids = {task.task_id for task in tasks}
    return step_until(model, lambda events: ids <= {e.task_id for e in ends(events)})


def ends(events: Iterable[Event]) -> list[Ended | Failed]:
    return [event for event in events if isinstance(event, Ended | Failed)]


def text(events: Iterable[Event], task: Task | None = None) -> str:
    return "".join(delta.text for delta in deltas(events, task))


def tokens(events: Iterable[Event], task: Task | None = None) -> list[int]:
    return [token for delta in deltas(events, task) for token in delta.token_ids]


def deltas(events: Iterable[Event], task: Task | None = None) -> list[Delta]:
    return [
        event
        for event in events
        if isinstance(event, Delta) and (task is None or event.task_id == task.task_id)
    ]


def only(kind: type[Any], events: Iterable[Event]) -> Any:
    """The one event of a kind."""
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def started(events: Iterable[Event]) -> Started:
    found: Started = only(Started, events)
    return found


def ended(events: Iterable[Event]) -> Ended:
    found: Ended = only(Ended, events)
    return found


def failed(events: Iterable[Event]) -> Failed:
    found: Failed = only(Failed, events)
    return found
