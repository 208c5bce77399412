"""Loads models into the real engine, emulated or not, and runs tasks on them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.neuron.engine_api.engine import Engine
from services.neuron.engine_api.events import Event
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
from tests.contract.engine.driving import run, tokens

GREEDY = SamplingParams(temperature=0)
_TASK_IDS = itertools.count(1000)


def load(engine: Engine, path: Path, **fields: Any) -> Any:
    """A loaded model; close it. Typed loosely: its modules may be imported after the library."""
    fields.setdefault("max_context_tokens", 2048)
    instance_id = f"i{next(_TASK_IDS)}"
    steps = engine.load(LoadPlan(instance_id, "exllamav2", str(path), **fields))
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def task(prompt: Sequence[int] | str, *, tokens: int = 24, **fields: Any) -> Task:
    """Greedy, of a fixed length, unless told otherwise."""
    ids = [3 + byte for byte in prompt.encode()] if isinstance(prompt, str) else prompt
    fields.setdefault("sampling", GREEDY)
    fields.setdefault("stop", StopParams(max_tokens=tokens, ignore_eos=True))
    return Task(next(_TASK_IDS), "i", Prompt(token_ids=tuple(ids)), **fields)


def said(model: Any, *tasks: Task) -> list[list[int]]:
    """What each of several tasks that run together says."""
    events: list[Event] = run(model, *tasks)
    return [tokens(events, one) for one in tasks]
