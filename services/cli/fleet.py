"""`cortex status` and `cortex models`: what the fleet is and has."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from cortex.v1 import operator_service_pb2 as op
from services.backplane.calls import unary
from services.backplane.errors import FleetError, Reason
from services.cli.registry_client import (
    ANSWER_SECONDS,
    DEFAULT_REGISTRY,
    JsonOption,
    RegistryOption,
    operator,
    out,
    print_json,
    run,
)
from services.cli.tables import fleet_tables, models_table

_REFRESH_SECONDS = 1.0


def status(
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it.")] = False,
) -> None:
    """Show neurons, devices, loaded models and what is being placed."""

    async def main() -> None:
        if watch:
            await _watch(registry)
            return
        if as_json:
            print_json(await _fleet(registry))
        else:
            out.print(*fleet_tables(await _led_fleet(registry)), sep="\n")

    run(main)


def models(registry: RegistryOption = DEFAULT_REGISTRY, *, as_json: JsonOption = False) -> None:
    """List every model that clients may ask for, and where it is."""

    async def main() -> None:
        async with operator(registry) as stub:
            answer = await unary(
                stub.ListModels(op.ListModelsRequest(), timeout=ANSWER_SECONDS),
                unavailable=Reason.REGISTRY_UNAVAILABLE,
            )
        if as_json:
            print_json(answer)
        else:
            out.print(models_table(answer.models))

    run(main)


async def _fleet(registry: str) -> op.GetFleetResponse:
    async with operator(registry) as stub:
        return await unary(
            stub.GetFleet(op.GetFleetRequest(), timeout=ANSWER_SECONDS),
            unavailable=Reason.REGISTRY_UNAVAILABLE,
        )


async def _led_fleet(registry: str) -> op.GetFleetResponse:
    """The fleet as the leader has it; a stand-by has none, and says who leads."""
    fleet = await _fleet(registry)
    if fleet.registry.role != "standby":
        return fleet
    if not fleet.registry.leader_address:
        raise FleetError(Reason.REGISTRY_UNAVAILABLE, "No registry leads yet.")
    return await _fleet(fleet.registry.leader_address)


async def _watch(registry: str) -> None:
    """Shows the fleet again and again; a registry that goes away is waited for."""
    tables: list[RenderableType] = []
    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        while True:
            try:
                tables = list(fleet_tables(await _led_fleet(registry)))
                shown = tables
            except FleetError as error:
                if error.reason is not Reason.REGISTRY_UNAVAILABLE or not tables:
                    raise
                shown = [Text(f"{error.message} This was its last answer:", style="red"), *tables]
            if out.is_terminal:
                live.update(Group(*shown), refresh=True)
            else:  # a pipe or a file gets one view after the other
                out.print(*shown, sep="\n")
            await asyncio.sleep(_REFRESH_SECONDS)
