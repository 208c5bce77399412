"""What `cortex top` shows, as tables. Pure: answers in, tables out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cortex.v1 import model_pb2 as model
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as reg
from services.cli.tables import gib, neuron_state, pending_table, state_text, table_of
from services.cli.terminal import printable

_BAR_SIGNS: Final = 20
_FULL: Final = 0.9


class FirstTokens(msgspec.Struct, frozen=True):
    """Milliseconds to the first token (median, 95th percentile); None without recent requests."""

    p50: float | None = None
    p95: float | None = None


class InstanceRate(msgspec.Struct, frozen=True):
    """What a gateway counts of one instance."""

    tokens_per_second: float = 0.0


class GatewayRates(msgspec.Struct, frozen=True):
    """What one gateway process counts of its own requests.

    Attributes:
        instances: by their ids.
        problem: why it is not known, in words; empty where it is.
    """

    tokens_per_second: float = 0.0
    requests_open: int = 0
    streams_open: int = 0
    first_token_ms: FirstTokens = FirstTokens()
    instances: dict[str, InstanceRate] = {}
    problem: str = ""


def rates_of(snapshot: Any) -> GatewayRates:
    """Reads the rates out of the console's snapshot (the first event of `/ui/events`)."""
    try:
        return msgspec.convert(snapshot["rates"], GatewayRates)
    except (msgspec.ValidationError, KeyError, TypeError):
        return GatewayRates(problem="the gateway is of another version: it tells no rates")


def overview(fleet: op.GetFleetResponse, rates: GatewayRates) -> list[RenderableType]:
    """A line of the gateway's figures, the devices, the models, and what is being placed."""
    shown: list[RenderableType] = [
        _figures(fleet, rates),
        _devices(fleet.neurons),
        _models(fleet.neurons, rates.instances),
    ]
    if fleet.pending:
        shown.append(pending_table(fleet.pending))
    return shown


def _figures(fleet: op.GetFleetResponse, rates: GatewayRates) -> Text:
    running = [i for n in fleet.neurons if not n.lost for i in n.report.instances]
    active = sum(each.active_requests for each in running)
    queued = sum(each.queued_requests for each in running)
    waiting = sum(each.waiters for each in fleet.pending)
    words = f"fleet: {active} active, {queued} queued, {waiting} wait for a model"
    if rates.problem:
        return Text.assemble(words, "   ", (f"gateway: {printable(rates.problem)}", "red"))
    first = rates.first_token_ms
    told = (
        f"   gateway: {rates.requests_open} requests, {rates.streams_open} streams,"
        f" {rates.tokens_per_second:.1f} tokens/s"
    )
    if first.p50 is not None and first.p95 is not None:
        told += f", first token {first.p50:.0f} ms (95 %: {first.p95:.0f})"
    return Text(words + told)


def _devices(neurons: Sequence[reg.Neuron]) -> Table:
    table = table_of("neuron", "state", "device", "memory", "used / total", "busy", "°C", "W")
    for neuron in neurons:
        for number, device in enumerate(neuron.report.devices or [model.Device()]):
            used = device.memory_total_bytes - device.memory_free_bytes
            busy = f"{device.utilization_ratio:.0%}" if device.HasField("utilization_ratio") else ""
            heat = device.HasField("temperature_celsius")
            power = device.HasField("power_watts")
            table.add_row(
                printable(neuron.identity.name) if not number else "",
                neuron_state(neuron) if not number else "",
                _device_name(device),
                _bar(used, device.memory_total_bytes),
                f"{gib(used)} / {gib(device.memory_total_bytes)}",
                busy,
                f"{device.temperature_celsius:.0f}" if heat else "",
                f"{device.power_watts:.0f}" if power else "",
            )
    return table


def _device_name(device: model.Device) -> Text:
    name = printable(device.name or device.device_id)
    return Text(name, style="red" if device.quarantine_reason else "")


def _bar(used: int, total: int) -> Text:
    if not total:
        return Text("")
    share = min(1.0, used / total)
    full = round(share * _BAR_SIGNS)
    style = "red" if share > _FULL else "green"
    return Text.assemble(("█" * full, style), ("░" * (_BAR_SIGNS - full), "dim"))


def _models(neurons: Iterable[reg.Neuron], rates: Mapping[str, InstanceRate]) -> Table:
    table = table_of(
        "model", "neuron", "state", "active", "queued", "tokens/s", "cache", "memory", "engine"
    )
    rows = [(i.spec.model, n.identity.name, i) for n in neurons for i in n.report.instances]
    for name, neuron, one in sorted(rows, key=lambda row: (*row[:2], row[2].instance_id)):
        rate = rates.get(one.instance_id, InstanceRate()).tokens_per_second
        share = one.cache_tokens_used / one.cache_tokens_total if one.cache_tokens_total else None
        table.add_row(
            printable(name),
            printable(neuron),
            state_text(one),
            f"{one.active_requests}/{one.max_active_requests}",
            f"{one.queued_requests}/{one.max_queued_requests}",
            f"{rate:.1f}" if rate else "",
            "" if share is None else f"{share:.0%}",
            gib(sum(memory.bytes for memory in one.memory)),
            one.engine,
        )
    return table
