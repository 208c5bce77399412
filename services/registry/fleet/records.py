"""What a neuron reports of itself, as values: devices, instances, files, workers."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Final

from services.registry.catalogue.profile import NO_SAMPLING, SamplingDefaults

CPU: Final = "cpu"
"""The id of a host's own memory among its devices."""


class InstanceState(enum.Enum):
    """The state of one loaded instance of a model, as the neuron reports it."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    UNLOADING = "unloading"
    RECOVERING = "recovering"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """A state that this registry has no name for; never routed to."""


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """One device.

    Attributes:
        kind: `cuda` or `cpu`.
        free_bytes: measured by the neuron when it made the report.
        reserved_bytes: what no placement may use.
        quarantine_reason: why it takes no work; empty where it does.
        name: as its maker calls it.
    """

    device_id: str
    kind: str
    total_bytes: int
    free_bytes: int
    _: dataclasses.KW_ONLY
    reserved_bytes: int = 0
    quarantine_reason: str = ""
    name: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load has come; totals are 0 where the engine does not know them."""

    phase: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    modules_done: int = 0
    modules_total: int = 0

    @property
    def ratio(self) -> float | None:
        """Between 0 and 1; None where nothing is counted."""
        if self.bytes_total:
            return min(1.0, self.bytes_done / self.bytes_total)
        if self.modules_total:
            return min(1.0, self.modules_done / self.modules_total)
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class GpuLayers:
    """How a GGUF model is divided between GPUs and the host, its cache left out.

    Attributes:
        most: layers that go to GPUs where there is room, the output counted as one; 0: none.
        all: that there are.
        gpu_bytes: weights of `most` layers; host_bytes: of the rest.
    """

    most: int
    all: int
    gpu_bytes: int
    host_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class StoredModel:
    """A model's files on the disk of a neuron, as the neuron describes them.

    Attributes:
        modified: when the newest of them was written, seconds since the epoch; 0: not known.
        cache_bytes_per_token: in fp16; 0: not known.
        default_cache_tokens: fewest that a load takes there where nothing is asked for.
        origin: where the neuron itself has fetched them from; empty where it has not.
        gpu_layers: how it is divided there; None where it is whole, or that is not known.
    """

    model: str
    source: str
    size_bytes: int
    _: dataclasses.KW_ONLY
    capabilities: tuple[str, ...] = ()
    max_context_tokens: int = 0
    format: str = ""
    architecture: str = ""
    quantization: str = ""
    parameter_size: str = ""
    fingerprint: str = ""
    modified: float = 0.0
    cache_bytes_per_token: int = 0
    default_cache_tokens: int = 0
    origin: str = ""
    gpu_layers: GpuLayers | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """One loaded instance of a model.

    Attributes:
        memory: bytes held, by device id.
        active_requests: being decoded; queued_requests wait in the neuron.
        config_revision: the catalogue entry's revision it was loaded from; 0 for none.
        servable: False where it is loaded but cannot serve now; True where the neuron is silent.
        last_used: the neuron's own clock, seconds since the epoch; the end of its load where it
            was never used.
        load_seconds: how long its load took; 0 where the neuron does not say.
        device_ids: where it was told to go; while it loads it may hold no memory there yet.
        sampling: what its requests get where they set nothing.
        layers_left: of a GGUF model, on the host because GPUs had no room for them.
    """

    instance_id: str
    model: str
    state: InstanceState
    memory: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    _: dataclasses.KW_ONLY
    active_requests: int = 0
    queued_requests: int = 0
    max_active_requests: int = 0
    config_revision: int = 0
    servable: bool = True
    last_used: float = 0.0
    load_seconds: float = 0.0
    max_context_tokens: int = 0
    capabilities: tuple[str, ...] = ()
    progress: LoadProgress | None = None
    state_reason: str = ""
    weights: StoredModel | None = None
    device_ids: tuple[str, ...] = ()
    sampling: SamplingDefaults = NO_SAMPLING
    layers_left: int = 0

    @property
    def in_flight(self) -> int:
        """Requests that an unload has to wait for: those decoded and those queued."""
        return self.active_requests + self.queued_requests


@dataclasses.dataclass(frozen=True, slots=True)
class Worker:
    """One worker process of a neuron; `load_cycles` counts its loads and unloads."""

    device_ids: tuple[str, ...]
    load_cycles: int
    is_running: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class NeuronIdentity:
    """Who a neuron is: the same for as long as its process lives."""

    name: str
    incarnation_id: str
    address: str
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    engines: tuple[str, ...] = ()
    version: str = ""
    metrics_address: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class NeuronReport:
    """The whole state of a neuron, never only a difference.

    Attributes:
        sequence: grows with every report of one incarnation.
        resident: of models and sources whose files are in the neuron's page cache, the share that
            is.
        is_draining: the neuron is about to stop.
        unfinished: origins of downloads that ended early.
    """

    sequence: int
    devices: tuple[Device, ...] = ()
    instances: tuple[Instance, ...] = ()
    stored: tuple[StoredModel, ...] = ()
    resident: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    workers: tuple[Worker, ...] = ()
    is_draining: bool = False
    unfinished: tuple[str, ...] = ()

    def says_the_same(self, other: NeuronReport) -> bool:
        """True if the reports differ in nothing but the sequence."""
        return dataclasses.replace(self, sequence=other.sequence) == other


EMPTY_REPORT = NeuronReport(sequence=0)


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One neuron as the fleet knows it.

    Attributes:
        epoch: which attachment of this name it is; grows for the life of the registry.
        reported_epoch: in which one it reported last.
        is_cordoned: an operator keeps new placements off it.
        is_lost: its lease has lapsed or its stream broke; it gets no work until it reports again.
        status: the neuron's own message, opaque here, for whoever passes it on.
    """

    identity: NeuronIdentity
    epoch: int
    report: NeuronReport = EMPTY_REPORT
    reported_epoch: int = 0
    is_cordoned: bool = False
    is_lost: bool = False
    status: Any = None

    @property
    def name(self) -> str:
        """The neuron's name, unique in the fleet."""
        return self.identity.name

    @property
    def has_reported(self) -> bool:
        """False between hello and the first report on the same stream.

        What was known before a neuron was away may be wrong in anything by now.
        """
        return self.reported_epoch == self.epoch

    @property
    def can_serve(self) -> bool:
        """True if requests may go to its instances. A cordon keeps off placements, not requests."""
        return not self.is_lost and not self.report.is_draining

    def instance(self, instance_id: str) -> Instance | None:
        """The instance of that id, or None."""
        for instance in self.report.instances:
            if instance.instance_id == instance_id:
                return instance
        return None
