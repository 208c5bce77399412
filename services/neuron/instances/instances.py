"""The instances of models and the states that they pass through. The single writer of both."""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Iterator, Mapping
from typing import Final

import structlog

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from services.backplane.changes import Changes
from services.backplane.errors import FleetError, Reason
from services.backplane.security.principals import SYSTEM
from services.neuron.chat.answer import ChatStyle
from services.neuron.chat.segments import ControlTokens
from services.neuron.chat.thinking_budget import Closing
from services.neuron.chat.tool_calls.formats import GENERIC
from services.neuron.engine_api.model import LoadPlan, ModelInfo, ModelStats
from services.neuron.instances.running import RunningGeneration
from services.neuron.rendering.frames import TemplateSource
from services.neuron.rendering.renderer import Renderer
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.listener import WorkerKey

log = structlog.get_logger()


class State(enum.Enum):
    """State of an instance, as cortex.v1.InstanceState defines it."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    UNLOADING = "unloading"
    RECOVERING = "recovering"
    FAILED = "failed"


_NEXT: Final[Mapping[State, frozenset[State]]] = {
    State.LOADING: frozenset({State.READY, State.UNLOADING}),
    State.READY: frozenset({State.DRAINING, State.RECOVERING, State.FAILED}),
    State.RECOVERING: frozenset({State.READY, State.FAILED, State.DRAINING}),
    State.DRAINING: frozenset({State.UNLOADING}),
    State.FAILED: frozenset({State.UNLOADING}),
    State.UNLOADING: frozenset(),
}


@dataclasses.dataclass(eq=False, kw_only=True, slots=True)
class Instance:
    """One loaded model, or one that is being loaded.

    Attributes:
        instance_id: unique for the life of the fleet.
        spec: as it was asked for.
        state: changed by `Instances` alone.
        key: the worker that holds it, once chosen.
        weights: the files that it is loaded from, once found.
        plan: what the worker was told; kept to load it again.
        layers_left: of a GGUF model, on the host for lack of room on GPUs.
        info: what the model says of itself, once loaded.
        stats: how busy it is, as its worker said last.
        link: its worker's process, while there is one.
        control_tokens: the model's, to be found in raw prompts.
        templates: its chat templates as its files or the load have them.
        renderer: of its chat templates, if it has any: the first for chats, a second for chats
            with tools where it has one. None before it is loaded, and for what makes vectors.
        template_error: why the template cannot be used, if it cannot.
        style: how it marks its reasoning and writes tool calls.
        closing: what ends its reasoning; None where it does not reason.
        running: generations that have not ended.
        principal: whose request caused its load.
        reason: why it is RECOVERING or FAILED.
        progress: how far its load has come.
        loaded_at, last_used_at: seconds since the epoch; 0 is never.
        load_seconds: how long its load took; 0 until then.
    """

    instance_id: str
    spec: model.LoadSpec
    state: State = State.LOADING
    key: WorkerKey | None = None
    weights: model.StoredModel | None = None
    plan: LoadPlan | None = None
    layers_left: int = 0
    info: ModelInfo | None = None
    stats: ModelStats = dataclasses.field(default_factory=ModelStats)
    link: WorkerLink | None = None
    control_tokens: ControlTokens = dataclasses.field(default_factory=lambda: ControlTokens(()))
    templates: tuple[TemplateSource, ...] = ()
    renderer: Renderer | None = None
    template_error: FleetError | None = None
    style: ChatStyle = dataclasses.field(default_factory=lambda: ChatStyle(None, GENERIC))
    closing: Closing | None = None
    running: set[RunningGeneration] = dataclasses.field(default_factory=set[RunningGeneration])
    principal: str = SYSTEM
    reason: str = ""
    progress: model.LoadProgress | None = None
    loaded_at: float = 0.0
    last_used_at: float = 0.0
    load_seconds: float = 0.0

    @property
    def model(self) -> str:
        """The name that clients ask for."""
        return self.spec.model

    @property
    def is_quiet(self) -> bool:
        """True if no generation runs on it."""
        return not self.running


class Instances:
    """All instances of this neuron."""

    def __init__(self, changes: Changes) -> None:
        """Starts empty.

        Args:
            changes: bumped at every change that a status shows.
        """
        self.changes = changes
        self._by_id: dict[str, Instance] = {}
        self._is_closed = False

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self._by_id.values()))

    def get(self, instance_id: str) -> Instance | None:
        """The instance with this id."""
        return self._by_id.get(instance_id)

    def of_id(self, instance_id: str) -> Instance:
        """The instance with this id.

        Raises:
            FleetError: INSTANCE_GONE, there is none.
        """
        instance = self._by_id.get(instance_id)
        if instance is None:
            raise FleetError(Reason.INSTANCE_GONE, f"There is no instance {instance_id} here.")
        return instance

    def of_model(self, name: str) -> list[Instance]:
        """All instances of a model, whatever their state."""
        return [instance for instance in self._by_id.values() if instance.model == name]

    def in_slot(self, key: WorkerKey) -> list[Instance]:
        """All instances that a worker holds."""
        return [instance for instance in self._by_id.values() if instance.key == key]

    @property
    def is_closed(self) -> bool:
        """True once shutdown has begun: no request and no load is admitted any more."""
        return self._is_closed

    def close(self) -> None:
        """Refuses all requests and loads from now on; shutdown has begun."""
        self._is_closed = True
        self.changes.bump()

    @property
    def running(self) -> int:
        """Generations that have not ended, over all instances."""
        return sum(len(instance.running) for instance in self._by_id.values())

    # Changes.

    def add(self, instance: Instance) -> None:
        """Takes in a LOADING instance."""
        self._by_id[instance.instance_id] = instance
        self.changes.bump()

    def move(self, instance: Instance, state: State, reason: str = "") -> None:
        """Brings an instance into its next state."""
        assert state in _NEXT[instance.state], f"{instance.state} to {state}"
        log.info(
            "instance.moved",
            model=instance.model,
            instance_id=instance.instance_id,
            before=instance.state.value,
            now=state.value,
            reason=reason or None,
        )
        instance.state, instance.reason = state, reason
        if state is State.READY:
            instance.progress = None
        self.changes.bump()

    def remove(self, instance: Instance) -> None:
        """Removes an instance from the neuron's list, and ends what renders for it."""
        if instance.renderer is not None:
            instance.renderer.close()
        self._by_id.pop(instance.instance_id, None)
        self.changes.bump()

    def note_progress(self, instance: Instance, progress: model.LoadProgress) -> None:
        """Records how far a load has come."""
        instance.progress = progress
        self.changes.bump()

    def note_sampling(self, instance: Instance, sampling: generation.Sampling) -> None:
        """Sets what requests get that set nothing; those that run keep what they have."""
        instance.spec.default_sampling.CopyFrom(sampling)
        self.changes.bump()

    def note_stats(self, instance_id: str, stats: ModelStats) -> None:
        """Records how busy a worker says a model is."""
        instance = self._by_id.get(instance_id)
        if instance is None:
            return
        before, instance.stats = instance.stats, stats
        if (before.active, before.queued) != (stats.active, stats.queued):
            self.changes.bump()

    def begin(self, instance: Instance, generation: RunningGeneration) -> None:
        """Counts a generation that runs on the instance."""
        instance.running.add(generation)
        instance.last_used_at = time.time()
        self.changes.bump()

    def end(self, instance: Instance, generation: RunningGeneration) -> None:
        """Takes back the count of a generation that has ended."""
        instance.running.discard(generation)
        instance.last_used_at = time.time()
        self.changes.bump()

    # Choice.

    def admit(self, name: str, instance_id: str) -> Instance:
        """The instance that serves a request.

        Args:
            name: the model that the caller wants; may be empty if it names the instance.
            instance_id: the instance that the caller chose; empty leaves it to the neuron.

        Raises:
            FleetError: SHUTTING_DOWN, INSTANCE_GONE, INSTANCE_MISMATCH, MODEL_UNKNOWN, or why the
                instance takes no work now.
        """
        if self._is_closed:
            raise shutting_down()
        instance = self._chosen(name, instance_id) if instance_id else self._idlest(name)
        match instance.state:
            case State.READY:
                return instance
            case State.LOADING | State.RECOVERING:
                raise FleetError(
                    Reason.INSTANCE_RECOVERING,
                    f"{instance.model} is {instance.state.value}.",
                    retry_after_seconds=2.0,
                )
            case State.DRAINING | State.UNLOADING:
                raise FleetError(Reason.INSTANCE_DRAINING, f"{instance.model} is being unloaded.")
            case State.FAILED:
                raise FleetError(
                    Reason.INSTANCE_GONE, f"{instance.model} has failed: {instance.reason}"
                )

    def _chosen(self, name: str, instance_id: str) -> Instance:
        instance = self.of_id(instance_id)
        if name and instance.model != name:
            raise FleetError(
                Reason.INSTANCE_MISMATCH,
                f"Instance {instance_id} holds {instance.model}, not {name}.",
                facts={"model": instance.model},
            )
        return instance

    def _idlest(self, name: str) -> Instance:
        found = self.of_model(name)
        if not found:
            raise FleetError(
                Reason.MODEL_UNKNOWN, f"The model {name!r} is not loaded here.", field="model"
            )
        return min(found, key=lambda each: (each.state is not State.READY, len(each.running)))


def shutting_down() -> FleetError:
    """The error for requests and loads that come after shutdown has begun: SHUTTING_DOWN."""
    return FleetError(
        Reason.SHUTTING_DOWN, "The neuron is shutting down.", retry_after_seconds=15.0
    )
