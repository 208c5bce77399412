"""Words fleets and models for a terminal. Pure: messages in, tables out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Final

from rich.table import Column, Table
from rich.text import Text

from cortex.v1 import model_pb2 as model
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as reg
from services.backplane import protobuf_time

_STATE_STYLE: Final = {
    "READY": "green",
    "LOADING": "yellow",
    "RECOVERING": "yellow",
    "DRAINING": "cyan",
    "UNLOADING": "cyan",
    "FAILED": "red",
}
_PHASES: Final = {
    model.LOAD_PHASE_RESOLVING: "looks for its files",
    model.LOAD_PHASE_DOWNLOADING: "is downloaded",
    model.LOAD_PHASE_LOADING: "is loaded",
    model.LOAD_PHASE_WARMING: "says its first word",
}
_GIB: Final = 1 << 30


def table_of(*headers: str, title: str | None = None) -> Table:
    """A table whose cells lose nothing where there is little room."""
    return Table(*(Column(each, overflow="fold") for each in headers), title=title)


def gib(count: int) -> str:
    """Bytes for people: `12.3 GiB`, small ones in MiB."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / (1 << 20):.0f} MiB"


def state_name(state: model.InstanceState.ValueType) -> str:
    """`READY` for INSTANCE_STATE_READY."""
    return model.InstanceState.Name(state).removeprefix("INSTANCE_STATE_")


def state_text(instance: model.Instance) -> Text:
    """An instance's state in its colour, with its progress and its reason."""
    name = state_name(instance.state)
    words = name
    if instance.state == model.INSTANCE_STATE_LOADING and instance.load_progress.bytes_total:
        words += f" {progress_ratio(instance.load_progress):.0%}"
    if instance.state_reason:
        words += f": {instance.state_reason}"
    return Text(words, style=_STATE_STYLE.get(name, ""))


def progress_ratio(progress: model.LoadProgress) -> float:
    """How far a load has come, 0 to 1; 0 where totals are unknown."""
    if progress.bytes_total:
        return min(1.0, progress.bytes_done / progress.bytes_total)
    if progress.modules_total:
        return min(1.0, progress.modules_done / progress.modules_total)
    return 0.0


def neuron_state(neuron: reg.Neuron) -> Text:
    """What placement may do with a neuron, in a word."""
    if neuron.lost:
        return Text("lost", style="red")
    if neuron.report.draining:
        return Text("stopping", style="cyan")
    if neuron.cordoned:
        return Text("cordoned", style="yellow")
    return Text("ready", style="green")


def fleet_tables(fleet: op.GetFleetResponse) -> Iterable[Table]:
    """Neurons with their devices, instances, and placements under way."""
    yield _neurons(fleet.neurons)
    yield _instances(fleet.neurons)
    if fleet.pending:
        yield pending_table(fleet.pending)


def _neurons(neurons: Sequence[reg.Neuron]) -> Table:
    table = table_of("neuron", "state", "address", "device", "memory free / total", "engines")
    for neuron in neurons:
        who = neuron.identity
        for number, device in enumerate(neuron.report.devices or [model.Device()]):
            first = number == 0
            table.add_row(
                who.name if first else "",
                neuron_state(neuron) if first else "",
                who.address if first else "",
                device.name or device.device_id,
                f"{gib(device.memory_free_bytes)} / {gib(device.memory_total_bytes)}",
                ", ".join(who.engines) if first else "",
            )
    return table


def _instances(neurons: Sequence[reg.Neuron]) -> Table:
    table = table_of("model", "neuron", "state", "active", "queued", "memory", "context", "engine")
    for neuron in neurons:
        for instance in neuron.report.instances:
            table.add_row(
                instance.spec.model,
                neuron.identity.name,
                state_text(instance),
                f"{instance.active_requests}/{instance.max_active_requests}",
                f"{instance.queued_requests}/{instance.max_queued_requests}",
                gib(sum(memory.bytes for memory in instance.memory)),
                str(instance.max_context_tokens or ""),
                instance.engine,
            )
    return table


def pending_table(pending: Sequence[op.PendingPlacement]) -> Table:
    """What is being placed, and how many wait for it."""
    table = table_of("placing", "waiting clients", "step")
    for placement in pending:
        words = Text(placement.problem, "red") if placement.problem else step_words(placement.step)
        table.add_row(placement.model, str(placement.waiters), words)
    return table


def step_words(step: reg.EnsureModelResponse) -> str:
    """One step of a placement in a sentence."""
    match step.WhichOneof("event"):
        case "queued":
            return f"waits ({step.queued.reason or 'its turn'}), {step.queued.position} before it"
        case "evicting":
            victims = ", ".join(step.evicting.victim_models)
            return f"makes room on {step.evicting.neuron}: unloads {victims}"
        case "loading":
            return _loading_words(step.loading)
        case "placed":
            return f"is ready on {step.placed.neuron}"
        case _:
            return "starts"


def _loading_words(loading: reg.PlacementLoading) -> str:
    progress = loading.progress
    words = f"{_PHASES.get(progress.phase, 'loads')} on {loading.neuron}"
    if progress.bytes_total or progress.modules_total:
        words += f": {progress_ratio(progress):.0%}"
    if progress.bytes_total:
        words += f" of {gib(progress.bytes_total)}"
    left = protobuf_time.seconds(loading.eta)
    if loading.HasField("eta") and left >= 1 and progress_ratio(progress) < 1:
        words += f", about {left:.0f} s left"
    return words


def bar_of(step: reg.EnsureModelResponse) -> tuple[float, float | None]:
    """How full a progress bar is, and its whole; None where the duration is unknown."""
    if step.WhichOneof("event") == "placed":
        return 1.0, 1.0
    progress = step.loading.progress
    if progress.phase == model.LOAD_PHASE_WARMING:
        return 1.0, 1.0
    known = progress.bytes_total or progress.modules_total
    return progress_ratio(progress), 1.0 if known else None


def models_table(models: Sequence[op.ModelStatus]) -> Table:
    """Every model that clients may ask for, and where it is."""
    table = table_of("model", "aliases", "where", "context", "size", "can", "pinned")
    for status in models:
        entry = status.model
        where = [
            f"{location.neuron} ({state_name(location.instance.state).lower()})"
            for location in status.locations
            if location.HasField("instance")
        ]
        disks = [place.neuron for place in status.locations if not place.HasField("instance")]
        if disks and not where:
            where = [f"on disk: {', '.join(disks)}"]
        table.add_row(
            entry.model,
            ", ".join(entry.aliases),
            ", ".join(where) or "not loaded",
            str(entry.max_context_tokens or ""),
            _size(entry.weights),
            ", ".join(
                model.Capability.Name(each).removeprefix("CAPABILITY_").lower()
                for each in entry.capabilities
            ),
            "yes" if entry.pinned else "",
        )
    return table


def waiting_table(hosts: Iterable[op.WaitingHost]) -> Table:
    """Hosts that wait to be approved, one a line."""
    table = table_of("neuron", "key", "from", "waits", "state")
    for host in hosts:
        since, until = (protobuf_time.seconds(at) for at in (host.since, host.expires_at))
        table.add_row(
            host.neuron,
            host.key,
            host.source,
            f"since {_clock(since)}, until {_clock(until)}",
            Text("approved", style="green") if host.approved else Text("waits", style="yellow"),
        )
    return table


def _clock(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _size(weights: model.StoredModel) -> str:
    """`135M Q4_1, 94 MiB`: as far as a neuron has told."""
    labels = " ".join(filter(None, (weights.parameter_size, weights.quantization)))
    return ", ".join(filter(None, (labels, gib(weights.bytes) if weights.bytes else "")))


def explanation(answer: op.ExplainPlacementResponse) -> Table:
    """Every candidate of a placement with its reason."""
    table = table_of(
        "neuron", "verdict", "free", "would unload", "seconds", "why", title=answer.summary
    )
    for candidate in answer.candidates:
        table.add_row(
            candidate.neuron,
            Text("possible", style="green") if candidate.feasible else Text("refused", style="red"),
            gib(candidate.free_bytes),
            ", ".join(candidate.evicted_models),
            f"{protobuf_time.seconds(candidate.predicted):.0f}"
            if candidate.HasField("predicted")
            else "",
            candidate.reason,
        )
    return table
