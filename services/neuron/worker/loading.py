"""Loads, one at a time, in small steps between the steps of models that already run."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections import deque
from collections.abc import Generator, Iterable
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.engine import Engine, LoadedModel
from services.neuron.engine_api.events import NO_NUMBER, Delta, Ended, Failed, trace
from services.neuron.engine_api.fair_shares import NOBODY
from services.neuron.engine_api.frames import Crashed, LoadAborted, LoadAdvanced
from services.neuron.engine_api.model import EnginePoisoned, LoadFailed, LoadPlan, LoadStep
from services.neuron.engine_api.task import Prompt, SamplingParams, Segment, StopParams, Task
from services.neuron.weights.confined import first_outside, is_inside, mapped_models
from services.neuron.worker.charges import Charges
from services.neuron.worker.link import DaemonLink

_REPORT_SECONDS: Final = 0.1
_WARM_UP_STEPS: Final = 64
_WARM_UP_TASK: Final = -1
_DAMAGED: Final = "the weights are damaged, or are computed wrongly here."
_ALIKE: Final = 1e-4


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """A load that has succeeded: the model, and the seconds that it took."""

    plan: LoadPlan
    model: LoadedModel
    seconds: float


class LoadQueue:
    """The loads that were asked for; the first of them goes on at every `advance`.

    One at a time, because two loads that each fit alone may not fit together.
    """

    def __init__(self, engine: Engine, link: DaemonLink, charges: Charges) -> None:
        self._engine = engine
        self._link = link
        self._charges = charges
        self._waiting: deque[LoadPlan] = deque()
        self._plan: LoadPlan | None = None
        self._steps: Generator[LoadStep, None, LoadedModel] | None = None
        self._started_at = 0.0
        self._reported_at = 0.0
        self._mapped: set[str] = set()

    @property
    def is_busy(self) -> bool:
        """True while a load goes on or waits."""
        return self._plan is not None or bool(self._waiting)

    @property
    def loading(self) -> str:
        """The instance whose load goes on; empty where none does."""
        return "" if self._plan is None else self._plan.instance_id

    def has(self, instance_id: str) -> bool:
        """True if a load of this name goes on or waits."""
        return instance_id in {self.loading, *(plan.instance_id for plan in self._waiting)}

    def begin(self, plan: LoadPlan) -> None:
        """Queues a load."""
        self._waiting.append(plan)

    def abandon(self, instance_id: str) -> None:
        """Cancels a load and frees what it had taken."""
        if self._plan is not None and self._plan.instance_id == instance_id:
            if self._steps is not None:
                self._steps.close()
            self._finish()
        else:
            kept = [plan for plan in self._waiting if plan.instance_id != instance_id]
            if len(kept) == len(self._waiting):
                return  # it has ended already
            self._waiting = deque(kept)
        self._link.send(LoadAborted(instance_id, "CANCELLED", "The load was abandoned."))

    def advance(self) -> Ready | None:
        """Does one step of the first load.

        Returns: a load that just became ready; None otherwise.

        Raises:
            EnginePoisoned: the process must be replaced.
        """
        if self._plan is None and not self._start_next():
            return None
        assert self._plan is not None
        with self._charges.loading(self._plan):
            return self._advance(self._plan)

    def _advance(self, plan: LoadPlan) -> Ready | None:
        try:
            if self._steps is None:
                self._steps = self._engine.load(plan)
            step = next(self._steps)
        except StopIteration as done:
            return self._warm_up(plan, done.value)
        except LoadFailed as error:
            self._fail(error)
        except MemoryError:
            self._fail(LoadFailed("OUT_OF_MEMORY", "The process ran out of memory."))
        except (EnginePoisoned, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - it ends this load alone
            self._fail(_crashed(error))
            self._link.send(Crashed("worker.load", trace(error)))
        else:
            self._report(step)
        return None

    def _start_next(self) -> bool:
        if not self._waiting:
            return False
        self._plan = self._waiting.popleft()
        self._started_at = time.monotonic()
        self._mapped = mapped_models() if self._plan.confined.paths else set()
        return True

    def _report(self, step: LoadStep) -> None:
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_SECONDS:
            self._reported_at = now
            assert self._plan is not None
            self._link.send(LoadAdvanced(self._plan.instance_id, step))

    def _warm_up(self, plan: LoadPlan, model: LoadedModel) -> Ready | None:
        """Has the model make one real token: only then it is ready."""
        self._link.send(LoadAdvanced(plan.instance_id, LoadStep(), warming=True))
        try:
            _require_inside(plan, mapped_models() - self._mapped if plan.confined.paths else ())
            _try_out(model)
        except LoadFailed as error:
            model.close()
            self._fail(error)
            return None
        except (EnginePoisoned, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - likewise
            model.close()
            self._fail(_crashed(error))
            self._link.send(Crashed("worker.load", trace(error)))
            return None
        self._finish()
        return Ready(plan, model, time.monotonic() - self._started_at)

    def _fail(self, error: LoadFailed) -> None:
        assert self._plan is not None
        self._link.send(LoadAborted(self._plan.instance_id, error.reason, error.message))
        self._finish()

    def _finish(self) -> None:
        self._plan = None
        self._steps = None


def _require_inside(plan: LoadPlan, mapped: Iterable[str]) -> None:
    """Refuses files that were put in the place of others between the check and the opening.

    Raises:
        LoadFailed: SOURCE_FORBIDDEN.
    """
    folders = [pathlib.Path(each) for each in plan.confined.folders]
    paths = [pathlib.Path(each) for each in plan.confined.paths]
    others = {plan.path, plan.draft_path or plan.path, *plan.adapter_paths}
    free = [pathlib.Path(each).parent for each in others.difference(plan.confined.paths)]
    outside = first_outside(paths, folders) or next(
        (each for each in map(pathlib.Path, mapped) if not is_inside(each, [*folders, *free])), None
    )
    if outside is not None:
        told = "A file was put in the place of another while it was loaded."
        raise LoadFailed("SOURCE_FORBIDDEN", told)


def _crashed(error: BaseException) -> LoadFailed:
    return LoadFailed("LOAD_FAILED", f"The engine failed at this model: {type(error).__name__}.")


def _try_out(model: LoadedModel) -> None:
    """Has the model make a token, or a vector, and looks at what came.

    Raises:
        LoadFailed: MODEL_FILE_BAD, it makes no numbers; LOAD_FAILED, nothing came.
    """
    prompt = Prompt(segments=(Segment("Hello"),), add_bos=True)
    tokens = model.tokenize(prompt)
    if model.info.embedding_size:
        try:
            model.embed([tokens])
        except FleetError as error:
            raise _refused(error.reason.value, error.message) from error
        return
    task = Task(
        _WARM_UP_TASK,
        "",
        prompt,
        SamplingParams(temperature=0),
        StopParams(max_tokens=1, ignore_eos=True),
        top_logprobs=0,
        principal=NOBODY,
    )
    model.submit(task, tokens)
    for _ in range(_WARM_UP_STEPS):
        for event in model.step():
            if isinstance(event, Ended):
                model.take_times()  # they are the load's
                return
            if isinstance(event, Failed):
                raise _refused(event.reason, event.message)
            if isinstance(event, Delta) and _is_blind(event, model.info.vocabulary_size):
                raise LoadFailed("MODEL_FILE_BAD", f"All its logits are alike: {_DAMAGED}")
    raise LoadFailed("LOAD_FAILED", f"No token came within {_WARM_UP_STEPS} steps.")


def _refused(reason: str, message: str) -> LoadFailed:
    if reason == Reason.ENGINE_FAILED.value and message == NO_NUMBER:
        return LoadFailed("MODEL_FILE_BAD", f"Its logits are not numbers: {_DAMAGED}")
    return LoadFailed("LOAD_FAILED", f"The first token failed: {message}")


def _is_blind(first: Delta, vocabulary_size: int) -> bool:
    """Whether no token was likelier than any other one, as where the weights are zeros."""
    likeliest = first.logprobs[0].logprob if first.logprobs else 0.0
    return vocabulary_size > 1 and abs(likeliest + math.log(vocabulary_size)) < _ALIKE
