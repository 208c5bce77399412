"""The neuron's status and reports, built from memory without waiting."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services import __version__
from services.backplane.protobuf_time import duration, timestamp
from services.neuron.devices.inventory import copied, unheld, within_budget
from services.neuron.instances.instances import Instance, Instances, State
from services.neuron.settings import NeuronSettings
from services.neuron.supervisor.device_use import DeviceUse
from services.neuron.supervisor.listener import SlotView, WorkerKey
from services.neuron.weights.inspect import capabilities

_STATES: Final = {
    State.LOADING: model.INSTANCE_STATE_LOADING,
    State.READY: model.INSTANCE_STATE_READY,
    State.DRAINING: model.INSTANCE_STATE_DRAINING,
    State.UNLOADING: model.INSTANCE_STATE_UNLOADING,
    State.RECOVERING: model.INSTANCE_STATE_RECOVERING,
    State.FAILED: model.INSTANCE_STATE_FAILED,
}
_WORKER_STATES: Final = {
    "starting": neuron.WORKER_STATE_STARTING,
    "running": neuron.WORKER_STATE_RUNNING,
    "restarting": neuron.WORKER_STATE_RESTARTING,
    "quarantined": neuron.WORKER_STATE_QUARANTINED,
}


def new_identity(settings: NeuronSettings, engines: Sequence[str]) -> neuron.NeuronIdentity:
    """This process's identity for the registry; the address is filled in once it listens."""
    return neuron.NeuronIdentity(
        name=settings.own_name,
        incarnation_id=uuid.uuid4().hex,
        labels=settings.labels,
        version=__version__,
        engines=engines,
        features=["session", "resume", "cache"],
    )


class Workers(Protocol):
    """The worker processes, as far as reports tell of them."""

    @property
    def view(self) -> Mapping[WorkerKey, SlotView]:
        """The state of every slot, by worker."""
        ...

    @property
    def device_use(self) -> DeviceUse:
        """Device time by principal, over all workers."""
        ...


class StatusBoard:
    """Makes reports. What has to be measured is put in by those who measure it."""

    def __init__(
        self,
        *,
        identity: neuron.NeuronIdentity,
        instances: Instances,
        workers: Workers,
        memory_budget_bytes: int | None = None,
    ) -> None:
        self.identity = identity
        self._instances = instances
        self._workers = workers
        self._budget = memory_budget_bytes
        # A restarted neuron has another incarnation; within one, time only goes up.
        self._sequence = time.time_ns()
        self._devices: tuple[model.Device, ...] = ()
        self._stored: tuple[model.StoredModel, ...] = ()
        self._problems: tuple[str, ...] = ()
        self._unfinished: tuple[model.UnfinishedDownload, ...] = ()
        self._is_draining = False

    @property
    def devices(self) -> Sequence[model.Device]:
        """The devices as last measured, within the budget; those of dead workers out of use."""
        bad = {
            device: view.quarantine_reason
            for view in self._workers.view.values()
            if view.state == "quarantined"
            for device in view.key.device_ids
        }
        judged: list[model.Device] = []
        for device in self._budgeted():
            made = copied(device)
            made.quarantine_reason = bad.get(device.device_id, device.quarantine_reason)
            judged.append(made)
        return judged

    def _budgeted(self) -> Sequence[model.Device]:
        held: dict[str, int] = {}
        for instance in self._instances:
            memory = instance.info.memory_bytes if instance.info else {}
            for device_id, count in memory.items():
                held[device_id] = held.get(device_id, 0) + count
        made: list[model.Device] = []
        for device in self._devices:
            count = held.get(device.device_id, 0)
            if self._budget is not None:
                made.append(within_budget(device, self._budget, count))
            else:
                is_measured = device.kind != model.DEVICE_KIND_GPU
                made.append(device if is_measured else unheld(device, count))
        return made

    def energy(self) -> Mapping[str, float]:
        """Joules that requests have used of devices that tell, by model."""
        return self._workers.device_use.energy.joules

    def note_address(self, address: str) -> None:
        """Sets the `host:port` under which others reach this neuron."""
        self.identity.address = address

    def note_draining(self) -> None:
        """Marks the neuron as draining in all reports from now on."""
        self._is_draining = True

    def note_devices(self, devices: Sequence[model.Device]) -> None:
        """Replaces the devices' figures by newer ones."""
        self._devices = tuple(devices)
        self._workers.device_use.note_readings(devices)

    def note_stored(
        self,
        stored: Sequence[model.StoredModel],
        problems: Sequence[str],
        unfinished: Sequence[model.UnfinishedDownload] = (),
    ) -> None:
        """A new listing of the disk; bumps the status if it differs."""
        listed = tuple(stored), tuple(problems), tuple(unfinished)
        if listed != (self._stored, self._problems, self._unfinished):
            self._stored, self._problems, self._unfinished = listed
            self._instances.changes.bump()

    def status(self) -> neuron.NeuronStatus:
        """The neuron's identity and its newest report, as GetStatus answers."""
        return neuron.NeuronStatus(identity=self.identity, report=self.report())

    def reports(self) -> Callable[[], neuron.NeuronReport]:
        """Yields the reports for one stream, which hold the device time by principal too."""
        told = 0

        def next_report() -> neuron.NeuronReport:
            nonlocal told
            made = self.report()
            made.device_use.extend(self._workers.device_use.since(told))
            told = self._workers.device_use.version
            return made

        return next_report

    def report(self) -> neuron.NeuronReport:
        """What this neuron holds now; each report is newer than the one before."""
        self._sequence += 1
        return neuron.NeuronReport(
            sequence=self._sequence,
            devices=self.devices,
            instances=[to_instance(instance) for instance in self._instances],
            stored_models=self._stored,
            draining=self._is_draining,
            problems=self._problems,
            unfinished_downloads=self._unfinished,
            workers=[_worker(view) for view in self._workers.view.values()],
            busy_microseconds=self._workers.device_use.busy_microseconds,
        )


def to_instance(instance: Instance) -> model.Instance:
    """An instance as the contract shows it."""
    info, stats = instance.info, instance.stats
    made = model.Instance(
        instance_id=instance.instance_id,
        spec=instance.spec,
        state=_STATES[instance.state],
        active_requests=stats.active,
        queued_requests=stats.queued,
        engine=instance.key.engine if instance.key else "",
        state_reason=instance.reason,
        load_progress=instance.progress,
        cache_tokens_used=stats.cache_tokens_used,
        weights=instance.weights,
        layers_left=instance.layers_left,
    )
    if info is not None:
        made.max_active_requests = info.max_sequences
        made.max_queued_requests = info.max_queued
        made.max_context_tokens = info.max_context_tokens
        made.longest_token_bytes = info.longest_token
        made.cache_tokens_total = info.cache_tokens
        made.engine_facts.update(info.facts)
        made.engine_facts["tool_format"] = instance.style.tool_format
        made.capabilities.extend(_capabilities(instance))
        for device_id, held in info.memory_bytes.items():
            made.memory.add(device_id=device_id, bytes=held)
    if instance.loaded_at:
        made.loaded_at.CopyFrom(timestamp(instance.loaded_at))
        made.load_duration.CopyFrom(duration(instance.load_seconds))
    if instance.last_used_at:
        made.last_used_at.CopyFrom(timestamp(instance.last_used_at))
    return made


def _capabilities(instance: Instance) -> list[model.Capability.ValueType]:
    info = instance.info
    assert info is not None
    if info.embedding_size:
        return capabilities(is_embedder=True)
    made = [model.CAPABILITY_COMPLETION]
    if instance.renderer is not None and instance.renderer.templates:
        made.append(model.CAPABILITY_CHAT)
        # a template that knows no tools is helped out, see chat.tool_calls.generic
        made.append(model.CAPABILITY_TOOLS)
    if instance.style.markers is not None:
        made.append(model.CAPABILITY_REASONING)
    if info.supports_images:
        made.append(model.CAPABILITY_VISION)
    return made


def _worker(view: SlotView) -> neuron.Worker:
    return neuron.Worker(
        device_ids=view.key.device_ids,
        pid=view.pid,
        state=_WORKER_STATES[view.state],
        restarts=view.deaths,
        last_words=view.last_words,
        load_cycles=view.load_cycles,
        rank_pids=view.rank_pids,
    )
