"""`python -m bench.classes MODEL.gguf`: how long interactive requests wait beside batch work.

The llama.cpp engine in this process. Measured in CPU time of the process, which neighbours on the
machine hardly change. First each interactive request runs alone; then
beside so many batch requests, all of which are there before it. Time to first token, as whoever
steps the engine sees it. They come in the middle of a step, as in a worker, where another thread
hears of them. Idle is the time outside the model's passes, while batch work waits. `--as default`
gives the batch requests the class of those that say
nothing: then only the order of the queue helps.
"""

from __future__ import annotations

import argparse
import itertools
import random
import threading
import time

from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.events import Delta, Ended, Event, Failed
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task, WorkClass
from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.batch.loop import Loop
from services.neuron.engines.llamacpp.engine import LlamaCppEngine
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.locate import locate

_PROMPT_TOKENS = 64
_IDS = itertools.count(1)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.classes", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--places", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="batch requests")
    parser.add_argument("--tokens", type=int, default=200, help="of each batch answer")
    parser.add_argument("--interactive", type=int, default=50, help="interactive requests")
    parser.add_argument("--as", dest="kind", choices=("batch", "default"), default="batch")
    asked = parser.parse_args()
    model = _load(asked)
    alone = sorted(_first_token(model, number) for number in range(asked.interactive))
    kind = WorkClass.BATCH if asked.kind == "batch" else WorkClass.DEFAULT
    dice = random.Random(1)
    waiting = set[int]()
    made = 0
    beside: list[float] = []
    watch = _PassWatch(model)
    began, began_wall = time.process_time(), time.perf_counter()
    for number in range(asked.interactive):
        while len(waiting) < asked.batch:
            waiting.add(_submit(model, len(waiting) + made, asked.tokens, kind))
        # so that all places are taken
        for _ in range(dice.randint(8, 40)):
            made += _note(model.step(), waiting)
        since, events = watch.step_with_arrival(dice.random())
        made += _note(events, waiting)
        task_id = _submit(model, 10_000 + number, 8, WorkClass.INTERACTIVE)
        is_first = True
        while True:
            events = model.step()
            made += _note(events, waiting)
            mine = [event for event in events if event.task_id == task_id]
            if is_first and any(isinstance(event, Delta) for event in mine):
                beside.append(time.process_time() - since)
                is_first = False
            if any(isinstance(event, (Ended, Failed)) for event in mine):
                break
    seconds = time.process_time() - began
    idle = 1 - watch.pass_seconds / (time.perf_counter() - began_wall)
    beside.sort()
    print(f"alone    p50 {_at(alone, 50) * 1e3:8.1f} ms   p99 {_at(alone, 99) * 1e3:8.1f} ms")
    print(f"beside   p50 {_at(beside, 50) * 1e3:8.1f} ms   p99 {_at(beside, 99) * 1e3:8.1f} ms")
    print(
        f"ratio    p50 {_at(beside, 50) / _at(alone, 50):8.2f}      p99"
        f" {_at(beside, 99) / _at(alone, 99):8.2f}"
    )
    print(f"idle     {idle:.1%} of the time, beside batch work that waits")
    print(f"batch    {made / seconds:.1f} tokens/s beside {len(beside)} interactive requests")


class _PassWatch:
    """Measures a model's passes, and has somebody arrive in the middle of one."""

    def __init__(self, model: LoadedModel) -> None:
        assert isinstance(model, Loop)
        self._model = model
        self._context = model._context  # noqa: SLF001 - its passes are what is measured
        self._decode = self._context.decode
        self._context.decode = self._measured  # type: ignore[method-assign]
        self._usual = 0.1
        self._arrives_after: float | None = None
        self._since = 0.0
        self.pass_seconds = 0.0

    def step_with_arrival(self, share: float) -> tuple[float, list[Event]]:
        """One step, into which somebody comes. Returns: when, in CPU time, and its events."""
        self._arrives_after = share * self._usual
        events = self._model.step()
        if self._arrives_after is not None:  # the pass was over sooner
            self._arrives_after, self._since = None, time.process_time()
        return self._since, events

    def _measured(self, batch: TokenBatch) -> bool:
        timer = None
        if self._arrives_after is not None:
            timer = threading.Timer(self._arrives_after, self._arrive)
            timer.start()
        began = time.perf_counter()
        is_complete = self._decode(batch)
        seconds = time.perf_counter() - began
        if timer is not None:
            timer.cancel()
            timer.join()
        elif is_complete:
            self._usual += (seconds - self._usual) * 0.2
        self.pass_seconds += seconds
        return is_complete

    def _arrive(self) -> None:
        self._since, self._arrives_after = time.process_time(), None
        self._model.hurry()


def _load(asked: argparse.Namespace) -> LoadedModel:
    plan = LoadPlan(
        "i",
        "llamacpp",
        asked.model,
        max_sequences=asked.places,
        max_context_tokens=1024,
        max_queued=asked.batch + 8,
        queue_timeout_seconds=3600.0,
    )
    steps = LlamaCppEngine(Library(locate(""))).load(plan)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            model: LoadedModel = done.value
            return model


def _submit(model: LoadedModel, number: int, tokens: int, kind: WorkClass) -> int:
    ids = [100 + (number * 7919 + place * 31) % 4000 for place in range(_PROMPT_TOKENS)]
    stop = StopParams(max_tokens=tokens, ignore_eos=True)
    greedy = SamplingParams(temperature=0)
    task = Task(next(_IDS), "i", Prompt(), greedy, stop, principal=kind.name, work_class=kind)
    model.submit(task, ids)
    return task.task_id


def _first_token(model: LoadedModel, number: int) -> float:
    since = time.process_time()
    _submit(model, 20_000 + number, 8, WorkClass.INTERACTIVE)
    first = 0.0
    while model.has_work:
        if any(isinstance(event, Delta) for event in model.step()) and not first:
            first = time.process_time() - since
    return first


def _note(events: list[Event], waiting: set[int]) -> int:
    """Takes out the batch requests that ended. Returns: how many of their tokens came."""
    made = sum(
        len(event.token_ids)
        for event in events
        if isinstance(event, Delta) and event.task_id in waiting
    )
    waiting -= {event.task_id for event in events if isinstance(event, (Ended, Failed))}
    return made


def _at(values: list[float], percent: int) -> float:
    return values[min(len(values) - 1, len(values) * percent // 100)]


if __name__ == "__main__":
    main()
