"""The loaded models of a worker, shared by the engine loop and the reader thread."""

from __future__ import annotations

import dataclasses
import threading

from services.backplane.errors import FleetError, Reason
from services.neuron.engine import LoadedModel, Prompt


@dataclasses.dataclass(eq=False)
class Instance:
    """A loaded model and the tasks that it was given.

    Attributes:
        instance_id: its name.
        model: the model.
        tasks: ids of tasks that have not ended.
        lock: held while the reader tokenises, so that the model is not freed under it.
    """

    instance_id: str
    model: LoadedModel
    tasks: set[int] = dataclasses.field(default_factory=set[int])
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class Instances:
    """By name. Only the engine loop adds and removes."""

    def __init__(self) -> None:
        self._by_id: dict[str, Instance] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> list[Instance]:
        """Those that are loaded now."""
        return list(self._by_id.values())

    def get(self, instance_id: str) -> Instance | None:
        """The instance, or None where it is not loaded."""
        return self._by_id.get(instance_id)

    def add(self, instance: Instance) -> None:
        """Makes an instance known."""
        self._by_id[instance.instance_id] = instance

    def remove(self, instance_id: str) -> Instance | None:
        """Makes an instance unknown; it is not closed."""
        return self._by_id.pop(instance_id, None)

    def tokenize(self, instance_id: str, prompts: tuple[Prompt, ...]) -> list[list[int]]:
        """Token ids of each prompt; safe to call from the reader thread.

        Raises:
            FleetError: INSTANCE_GONE, or the model refuses a prompt.
        """
        instance = self.get(instance_id)
        if instance is not None:
            with instance.lock:
                # It may have been removed, and will then be closed, since we looked.
                if self.get(instance_id) is instance:
                    return [instance.model.tokenize(prompt) for prompt in prompts]
        raise FleetError(Reason.INSTANCE_GONE, f"{instance_id} is not loaded here.")
