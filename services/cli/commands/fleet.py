"""`cortex status` and `cortex models`: what the fleet is and has."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from cortex.v1 import operator_service_pb2 as op
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import unary
from services.cli.registry_client import (
    ANSWER_SECONDS,
    DEFAULT_REGISTRY,
    JsonOption,
    Operator,
    RegistryOption,
    ask,
    at_leader,
    run,
)
from services.cli.tables import fleet_tables, models_table
from services.cli.terminal import complain, out, print_json, print_json_line, show

_REFRESH_SECONDS = 1.0
# While another one takes the lead, or the only one starts again.
_AWAY = frozenset({Reason.REGISTRY_UNAVAILABLE, Reason.NOT_LEADER})


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
            print_json(await _fleet(registry))
        else:
            show(*fleet_tables(await _fleet(registry)))

    run(main)


def models(registry: RegistryOption = DEFAULT_REGISTRY, *, as_json: JsonOption = False) -> None:
    """List every model that clients may ask for, and where it is."""

    async def main() -> None:
        answer = await ask(registry, "ListModels", op.ListModelsRequest())
        if as_json:
            print_json(answer)
        else:
            show(models_table(answer.models))

    run(main)


async def _fleet(registry: str) -> op.GetFleetResponse:
    """The fleet as the leader has it; a stand-by has none, and says who leads."""

    async def work(stub: Operator) -> op.GetFleetResponse:
        fleet = await unary(
            stub.GetFleet(op.GetFleetRequest(), timeout=ANSWER_SECONDS),
            unavailable=Reason.REGISTRY_UNAVAILABLE,
        )
        if fleet.registry.role == "standby":
            leader = fleet.registry.leader_address
            facts = {"leader_address": leader} if leader else {}
            raise FleetError(Reason.NOT_LEADER, "No registry leads yet.", facts=facts)
        return fleet

    return await at_leader(registry, work)


async def _watch_json(registry: str) -> None:
    """Prints the fleet as one line of JSON again and again; a registry that goes is waited for."""
    last: op.GetFleetResponse | None = None
    while True:
        try:
            last = await _fleet(registry)
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
                tables = list(fleet_tables(await _fleet(registry)))
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
