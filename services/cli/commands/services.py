"""`cortex serve`, `gateway`, `registry` and `acp`: run one part of the fleet."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from services.backplane import lifecycle
from services.backplane.lifecycle import Shutdown
from services.backplane.logs import LogSettings, configure
from services.backplane.settings import Document, SettingsError, load
from services.cli.options import ConfigOption, config_arguments


def serve(config: ConfigOption = None) -> None:
    """Run the gateway, with a registry inside unless the settings name one elsewhere."""

    async def both(shutdown: Shutdown) -> int:
        document = load(config, os.environ)
        configure(document.section("log", LogSettings), service="gateway")
        if document.tables.get("gateway", {}).get("registry"):
            return await _gateway(document, shutdown)
        return await _with_registry(document, shutdown)

    from services.gateway.server import new_event_loop

    raise typer.Exit(lifecycle.run(both, loop_factory=new_event_loop))


def gateway(config: ConfigOption = None) -> None:
    """Run the gateway alone, against the registries in its settings."""
    from services.gateway.__main__ import main

    raise typer.Exit(main(config_arguments(config)))


def registry(config: ConfigOption = None) -> None:
    """Run the registry."""
    from services.registry.__main__ import main

    raise typer.Exit(main(config_arguments(config)))


def acp(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="For the agent; `cortex acp -- --help` lists them.")
    ] = None,
) -> None:
    """Speak the Agent Client Protocol on standard input and output, for an editor."""
    from services.agent.__main__ import main

    raise typer.Exit(main(arguments or []))


async def _gateway(document: Document, shutdown: Shutdown) -> int:
    from services.gateway import process
    from services.gateway.settings import GatewaySettings

    if document.section("gateway", GatewaySettings).workers > 1:
        raise SettingsError(
            f"{document.source}: gateway.workers: `cortex serve` runs one; use `cortex gateway`"
        )
    return await process.run(document, shutdown)


async def _with_registry(document: Document, shutdown: Shutdown) -> int:
    """Both in one process: the gateway ends first, then the registry that it watches."""
    from services.registry import wire

    async with wire.running(document) as address:
        inside = {"registry": [str(address.dialled_as("127.0.0.1"))]}
        return await _gateway(document.with_values("gateway", inside), shutdown)
