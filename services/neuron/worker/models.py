"""The loaded models of a worker, shared by the engine loop and the threads that tokenise."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Generator

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.model import LoadPlan


@dataclasses.dataclass(eq=False)
class WorkerInstance:
    """A loaded model and the tasks that it was given.

    Attributes:
        plan: as it was loaded.
        model: the model.
        tasks: ids of tasks that have not ended.
    """

    plan: LoadPlan
    model: LoadedModel
    tasks: set[int] = dataclasses.field(default_factory=set[int])
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    _holders: int = 0
    _is_leaving: bool = False

    @property
    def instance_id(self) -> str:
        """The instance's id."""
        return self.plan.instance_id

    @contextlib.contextmanager
    def held(self) -> Generator[bool]:
        """Keeps the model from being freed by another thread; False where it is too late."""
        with self._lock:
            if not self._is_leaving:
                self._holders += 1
            is_held = not self._is_leaving
        try:
            yield is_held
        finally:
            if is_held:
                with self._lock:
                    self._holders -= 1

    @property
    def is_leaving(self) -> bool:
        """True once `leave` was called: the model is being unloaded."""
        return self._is_leaving

    def leave(self) -> None:
        """Begins the unload: no thread may take hold of the model any more."""
        with self._lock:
            self._is_leaving = True

    @property
    def is_free(self) -> bool:
        """True if it is leaving and nobody holds it: the model may be closed."""
        with self._lock:
            return self._is_leaving and not self._holders


class WorkerInstances:
    """The loaded models by instance id. Only the engine loop adds and removes them."""

    def __init__(self) -> None:
        self._by_id: dict[str, WorkerInstance] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> list[WorkerInstance]:
        """All loaded models."""
        return list(self._by_id.values())

    def get(self, instance_id: str) -> WorkerInstance | None:
        """The instance, or None where it is not loaded."""
        return self._by_id.get(instance_id)

    def add(self, instance: WorkerInstance) -> None:
        """Makes an instance known."""
        self._by_id[instance.instance_id] = instance

    def remove(self, instance_id: str) -> WorkerInstance | None:
        """Makes an instance unknown; it is not closed, and nobody new may hold it."""
        instance = self._by_id.pop(instance_id, None)
        if instance is not None:
            instance.leave()
        return instance

    @contextlib.contextmanager
    def holding(self, instance_id: str) -> Generator[WorkerInstance]:
        """The instance, which is not freed meanwhile.

        Raises:
            FleetError: INSTANCE_GONE.
        """
        instance = self.get(instance_id)
        if instance is not None:
            with instance.held() as is_held:
                if is_held:
                    yield instance
                    return
        raise gone(instance_id)


def gone(instance_id: str) -> FleetError:
    """The error INSTANCE_GONE for an id that names no loaded model."""
    return FleetError(Reason.INSTANCE_GONE, f"{instance_id} is not loaded here.")
