"""Collects device time by principal in the worker, and reports it to the daemon."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Generator
from typing import Final

from services.neuron.engine_api.device_time import Charge
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.frames import Charged
from services.neuron.engine_api.model import LoadPlan
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.models import WorkerInstance

_NANOSECONDS: Final = 1e-9
_PREFILL, _LOAD, _UNLOAD = range(3)


class Charges:
    """Device time that was not reported to the daemon yet.

    Args:
        link: to the daemon.
        shares: told of what the models themselves do not measure.
    """

    def __init__(self, link: DaemonLink, shares: FairShares) -> None:
        self._link = link
        self._shares = shares
        self._tasks: list[Charge] = []
        self._others: dict[tuple[str, str], list[int]] = {}  # prefill, load, unload
        self._busy_ns = 0

    def collect(self, instance: WorkerInstance, ended: Collection[int] | None = None) -> None:
        """Takes over the times of a model's steps; see `LoadedModel.take_times`."""
        times = instance.model.take_times(ended)
        self._busy_ns += times.busy_ns
        name = instance.plan.model
        self._tasks += [
            Charge(principal, name, task_id, prefill_ns, decode_ns)
            for task_id, principal, prefill_ns, decode_ns in times.tasks
        ]

    def loading(self, plan: LoadPlan) -> contextlib.AbstractContextManager[None]:
        """Context whose duration is charged as a load, whether it succeeds or not."""
        return self._measured(plan.principal, plan.model, _LOAD)

    def unloading(
        self, instance: WorkerInstance, principal: str
    ) -> contextlib.AbstractContextManager[None]:
        """Context whose duration is charged as an unload."""
        return self._measured(principal, instance.plan.model, _UNLOAD)

    def embedding(
        self, instance: WorkerInstance, principal: str
    ) -> contextlib.AbstractContextManager[None]:
        """Context whose duration is charged as reading texts to embed."""
        return self._measured(principal, instance.plan.model, _PREFILL)

    def tell(self) -> None:
        """Sends what was collected to the daemon, if there is any."""
        if not (self._tasks or self._others or self._busy_ns):
            return
        others = [
            Charge(principal, model, prefill_ns=prefill, load_ns=load, unload_ns=unload)
            for (principal, model), (prefill, load, unload) in self._others.items()
        ]
        self._link.send(Charged((*self._tasks, *others), self._busy_ns))
        self._tasks, self._others, self._busy_ns = [], {}, 0

    @contextlib.contextmanager
    def _measured(self, principal: str, model: str, kind: int) -> Generator[None]:
        began = time.perf_counter_ns()
        try:
            yield
        finally:
            elapsed = time.perf_counter_ns() - began
            self._busy_ns += elapsed
            self._shares.add(principal, elapsed * _NANOSECONDS)
            self._others.setdefault((principal, model), [0, 0, 0])[kind] += elapsed
