"""`cortex top`: what the fleet is doing now."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from cortex.v1 import operator_service_pb2 as op
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.protobuf_json import json_fields
from services.backplane.timeouts import timeout
from services.cli.commands.watching.keyboard import END_OF_INPUT, single_keys
from services.cli.commands.watching.overview import GatewayRates, overview, rates_of
from services.cli.options import DEFAULT_GATEWAY, GatewayOption, KeyOption
from services.cli.registry_client import DEFAULT_REGISTRY, JsonOption, RegistryOption, run
from services.cli.registry_client import fleet as fleet_now
from services.cli.sse import ChatFailedError, GatewayClient
from services.cli.terminal import complain, out

_LOOK_SECONDS: Final = 1.0
_ENDING_SECONDS: Final = 1.0
# The gateway's part comes late rather than hold the rest up.
_GATEWAY_SECONDS: Final = 5.0
_STEP_SECONDS: Final = 2.0
_PATH: Final = "/ui/events"
_AWAY: Final = frozenset({Reason.REGISTRY_UNAVAILABLE, Reason.NOT_LEADER})
_QUIT: Final = f"qQ{END_OF_INPUT}"


def top(
    registry: RegistryOption = DEFAULT_REGISTRY,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    api_key: KeyOption = "",
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what the fleet does now: requests, tokens per second, devices, models; q quits.

    Requests, streams and tokens per second are those of one gateway process, which where keys are
    asked for tells them to keys that may see the console.
    """

    async def main() -> None:
        views = _views(registry, GatewayClient(gateway, api_key=api_key))
        async with contextlib.aclosing(views):
            if once:
                _print(*await anext(views), as_json=as_json)
            elif as_json or not out.is_terminal:
                async for fleet, rates in views:
                    _print(fleet, rates, as_json=as_json)
            else:
                await _live(views)

    run(main)


async def _live(views: AsyncGenerator[tuple[op.GetFleetResponse, GatewayRates]]) -> None:
    """Shows one view after the other in place, until q is pressed."""
    quitting = asyncio.Event()

    def pressed(sign: str) -> None:
        if sign in _QUIT:
            quitting.set()

    async def show(update: Callable[[RenderableType], None]) -> None:
        async for fleet, rates in views:
            update(Group(*overview(fleet, rates), Text("q quits", style="dim")))

    with (
        single_keys(pressed),
        Live(console=out, auto_refresh=False, screen=True, vertical_overflow="crop") as live,
    ):
        showing = asyncio.create_task(show(lambda shown: live.update(shown, refresh=True)))
        leaving = asyncio.create_task(quitting.wait())
        try:
            await asyncio.wait({showing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            while not showing.done():  # a call whose answer comes just now swallows one
                showing.cancel()
                await asyncio.wait({showing}, timeout=_ENDING_SECONDS)
    if not showing.cancelled():
        showing.result()


async def _views(
    registry: str, gateway: GatewayClient
) -> AsyncGenerator[tuple[op.GetFleetResponse, GatewayRates]]:
    """Looks once a second; a registry that goes away after the first look is waited for.

    Raises:
        FleetError: it cannot be reached at first, or refuses.
    """
    fleet: op.GetFleetResponse | None = None
    while True:
        rates = await _rates(gateway)
        try:
            fleet = await fleet_now(registry)
        except FleetError as error:
            if error.reason not in _AWAY or fleet is None:
                raise
            rates = msgspec.structs.replace(rates, problem=f"{error.message} Its last answer:")
        yield fleet, rates
        await asyncio.sleep(_LOOK_SECONDS)


async def _rates(gateway: GatewayClient) -> GatewayRates:
    try:
        async with timeout(_GATEWAY_SECONDS):
            return rates_of(
                await asyncio.to_thread(gateway.first_event, _PATH, timeout=_STEP_SECONDS)
            )
    except TimeoutError:
        return GatewayRates(problem="it does not answer in time")
    except (OSError, ChatFailedError) as error:
        return GatewayRates(problem=str(error))


def _print(fleet: op.GetFleetResponse, rates: GatewayRates, *, as_json: bool) -> None:
    if as_json:
        told = {"fleet": json_fields(fleet), "gateway": msgspec.to_builtins(rates)}
        out.print(json.dumps(told), soft_wrap=True)
        return
    if rates.problem:
        complain(f"gateway: {rates.problem}")
    for part in overview(fleet, rates):
        out.print(part)
