"""Unloads: a model leaves once no thread tokenises for it, its cache is saved, its memory freed."""

from __future__ import annotations

from services.neuron.engine_api.engine import Hibernating
from services.neuron.engine_api.events import trace
from services.neuron.engine_api.frames import Crashed, Unloaded
from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.worker.charges import Charges
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.models import WorkerInstance
from services.neuron.worker.process import give_memory_back, resident_bytes


class Unloading:
    """Unloads that have begun: each waits until no thread tokenises for its model any more."""

    def __init__(self, link: DaemonLink, charges: Charges) -> None:
        self._link = link
        self._charges = charges
        self._leaving: list[tuple[WorkerInstance, str]] = []

    def begin(self, instance: WorkerInstance, principal: str) -> None:
        """Starts the unload of a model that has no tasks left.

        Args:
            instance: which nobody finds any more.
            principal: whose request caused it.
        """
        self._leaving.append((instance, principal))

    def advance(self) -> None:
        """Frees the models for which no thread tokenises any more."""
        free = [index for index, (one, _) in enumerate(self._leaving) if one.is_free]
        for index in reversed(free):
            self._free(*self._leaving.pop(index))

    def hibernate(self, instance: WorkerInstance, principal: str) -> tuple[int, int]:
        """Saves a model's cache; if that fails its prompts will have to be read again."""
        with self._charges.unloading(instance, principal):
            return self._hibernated(instance)

    def _free(self, instance: WorkerInstance, principal: str) -> None:
        before = resident_bytes()
        self._charges.collect(instance)
        with self._charges.unloading(instance, principal):
            sequences, saved_bytes = self._hibernated(instance)
            instance.model.close()
            del instance.model  # the last reference, whoever still has the instance
            give_memory_back()
        freed_bytes = max(0, before - resident_bytes())
        self._charges.tell()  # the process may be ended when this is answered
        self._link.send(Unloaded(instance.instance_id, freed_bytes, sequences, saved_bytes))

    def _hibernated(self, instance: WorkerInstance) -> tuple[int, int]:
        model = instance.model
        try:
            return model.hibernate() if isinstance(model, Hibernating) else (0, 0)
        except (EnginePoisoned, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the model goes all the same
            self._link.send(Crashed("worker.hibernate", trace(error)))
            return 0, 0
