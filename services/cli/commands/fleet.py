"""`cortex status`, `models` and `usage`: what the fleet is, has, and has done."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cortex.v1 import accounting_service_pb2 as pb
from cortex.v1 import accounting_service_pb2_grpc as accounting_grpc
from cortex.v1 import operator_service_pb2 as op
from services.backplane.errors import FleetError, Reason
from services.backplane.units import parse_seconds
from services.cli.registry_client import (
    DEFAULT_REGISTRY,
    JsonOption,
    RegistryOption,
    ask,
    run,
)
from services.cli.registry_client import fleet as fleet_now
from services.cli.stored.disks import show_disks
from services.cli.tables import fleet_tables, models_table, table_of
from services.cli.terminal import complain, fail, out, print_json, print_json_line, show

_REFRESH_SECONDS = 1.0
# While another one takes the lead, or the only one starts again.
_AWAY = frozenset({Reason.REGISTRY_UNAVAILABLE, Reason.NOT_LEADER})
_KEYS: Final = {
    "key": pb.USAGE_KEY_PRINCIPAL,
    "model": pb.USAGE_KEY_MODEL,
    "hour": pb.USAGE_KEY_HOUR,
}
_COUNTS: Final = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
)
_DEVICE_TIMES: Final = ("prefill", "decode", "load", "unload")
_MICROSECOND: Final = 1e-6


def status(
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it.")] = False,
) -> None:
    """Show neurons, devices, loaded models and what is being placed."""

    async def main() -> None:
        if watch:
            await (_watch_json if as_json else _watch)(registry)
            return
        if as_json:
            print_json(await fleet_now(registry))
        else:
            show(*fleet_tables(await fleet_now(registry)))

    run(main)


def models(
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    local: Annotated[
        bool, typer.Option("--local", help="What lies on each neuron's disk instead.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List every model that clients may ask for, and where it is."""

    async def main() -> None:
        if local:
            show_disks(await fleet_now(registry), as_json=as_json)
            return
        answer = await ask(registry, "ListModels", op.ListModelsRequest())
        if as_json:
            print_json(answer)
        else:
            show(models_table(answer.models))

    run(main)


async def _watch_json(registry: str) -> None:
    """Prints the fleet as one line of JSON again and again; a registry that goes is waited for."""
    last: op.GetFleetResponse | None = None
    while True:
        try:
            last = await fleet_now(registry)
            print_json_line(last)
        except FleetError as error:
            if error.reason not in _AWAY or last is None:
                raise
            complain(error.message)
        await asyncio.sleep(_REFRESH_SECONDS)


async def _watch(registry: str) -> None:
    """Shows the fleet again and again; a registry that goes away is waited for."""
    tables: list[RenderableType] = []
    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        while True:
            try:
                tables = list(fleet_tables(await fleet_now(registry)))
                shown = tables
            except FleetError as error:
                if error.reason not in _AWAY or not tables:
                    raise
                shown = [Text(f"{error.message} This was its last answer:", style="red"), *tables]
            if out.is_terminal:
                live.update(Group(*shown), refresh=True)
            else:  # a pipe or a file gets one view after the other
                for part in shown:
                    out.print(part)
            await asyncio.sleep(_REFRESH_SECONDS)


def usage(
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(help="key, model or hour; several are possible. Default: key."),
    ] = None,
    since: Annotated[
        str,
        typer.Option(help="How long ago, such as 24h or 30d, or a day of UTC such as 2026-11-01."),
    ] = "30d",
    key: Annotated[
        str | None, typer.Option(metavar="PRINCIPAL", help="Only of this key's principal.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show requests, tokens and the devices' time, by key, model or hour (of UTC).

    Cached tokens are among the prompt's, reasoning tokens among the completion's. Seconds are those
    of devices: for prompts, answers, loads and unloads, which the CSV has apart. Joules are of
    prompts and answers, where devices tell their energy.
    """
    names = by or ["key"]
    unknown = [name for name in names if name not in _KEYS]
    if unknown:
        fail(f"--by {unknown[0]}: expected one of {', '.join(_KEYS)}")
    request = pb.GetUsageRequest(
        by=[_KEYS[name] for name in names], since_unix_seconds=_since(since), principal=key
    )

    async def main() -> None:
        found: pb.GetUsageResponse = await ask(
            registry, "GetUsage", request, service=accounting_grpc.AccountingServiceStub
        )
        if as_json:
            print_json(found)
        elif as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            times = [f"{kind}_seconds" for kind in _DEVICE_TIMES]
            writer.writerow([*names, *_COUNTS, *times, "joules"])
            writer.writerows(
                [*_cells(row, names), *map(_seconds, _device_times(row)), _joules(row)]
                for row in found.rows
            )
        else:
            show(usage_table(found.rows, names))

    run(main)


def usage_table(rows: Iterable[pb.UsageRow], names: Sequence[str]) -> Table:
    """Usage, the heaviest first; by hour in order."""
    titles = [name.removesuffix("_tokens") for name in _COUNTS]
    rows = list(rows)
    energy = ["joules"] if any(row.millijoules for row in rows) else []
    table = table_of(*names, *titles, "device seconds", *energy)
    for column in table.columns[len(names) :]:
        column.justify = "right"
    for row in rows:
        told = [_joules(row)] if energy else []
        table.add_row(*_cells(row, names), _seconds(sum(_device_times(row))), *told)
    return table


def _device_times(row: pb.UsageRow) -> list[int]:
    return [getattr(row, f"{kind}_microseconds") for kind in _DEVICE_TIMES]


def _seconds(microseconds: int) -> str:
    return f"{microseconds * _MICROSECOND:.3f}"


def _joules(row: pb.UsageRow) -> str:
    """Empty where none is known."""
    return f"{row.millijoules / 1000:.3f}" if row.millijoules else ""


def _cells(row: pb.UsageRow, names: Sequence[str]) -> list[str]:
    hour = dt.datetime.fromtimestamp(row.hour_unix_seconds, dt.UTC).strftime("%Y-%m-%dT%H:00Z")
    heads = {"key": row.principal, "model": row.model, "hour": hour}
    return [
        *(heads[name] for name in names),
        *(str(getattr(row, name)) for name in _COUNTS),
    ]


def _since(text: str) -> int:
    """Seconds since the epoch, the whole hour in which they lie."""
    try:
        at = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        try:
            at = time.time() - parse_seconds(text)
        except ValueError as error:
            fail(f"--since: {error}, and no day like 2026-11-01")
    return max(0, int(at) // 3600 * 3600)
