"""`cortex serve`, `gateway`, `registry` and `acp`: run one part of the fleet."""

from __future__ import annotations

import os
from typing import Annotated

import structlog
import typer

from services.backplane.address import Address
from services.backplane.logs import LogSettings, configure
from services.backplane.process import lifecycle
from services.backplane.process.lifecycle import Shutdown
from services.backplane.settings import Document, SettingsError, load
from services.cli.options import ConfigOption, config_arguments
from services.cli.own_registry import is_this_machine, names_own_registry

log = structlog.get_logger()


def serve(config: ConfigOption = None) -> None:
    """Run the gateway, with a registry inside unless the settings name others only."""

    async def both(shutdown: Shutdown) -> int:
        document = load(config, os.environ)
        configure(document.section("log", LogSettings), service="gateway")
        if _has_registry_inside(document):
            return await _with_registry(document, shutdown)
        return await _gateway(document, shutdown)

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


def _has_registry_inside(document: Document) -> bool:
    """Whether `gateway.registry` is unset or names the registry of the same settings.

    Raises:
        SettingsError: the settings say where a registry listens on this machine, and where on this
            machine another one is reached.
    """
    from services.gateway.settings import GatewaySettings
    from services.registry.settings import RegistrySettings

    named = document.section("gateway", GatewaySettings).registry
    settings = document.section("registry", RegistrySettings)
    listen = Address.parse(settings.listen)
    if not (document.has("gateway.registry") and named):
        log.info("serve.registry_inside", listen=settings.listen, reason="none is named")
        return True
    if settings.address in named or names_own_registry(listen, named):
        log.info("serve.registry_inside", listen=settings.listen, reason="it is named", named=named)
        return True
    here = [text for text in named if is_this_machine(Address.parse(text).host)]
    if here and document.has("registry.listen"):
        raise SettingsError(
            f"{document.place('gateway.registry')} = {here[0]!r} contradicts"
            f" {document.place('registry.listen')} = {settings.listen!r}: one machine, two ports"
        )
    log.info("serve.registry_elsewhere", named=named, not_started=settings.listen)
    return False


async def _gateway(document: Document, shutdown: Shutdown) -> int:
    from services.gateway.__main__ import run
    from services.gateway.settings import GatewaySettings

    if document.section("gateway", GatewaySettings).workers > 1:
        raise SettingsError(
            f"{document.source}: gateway.workers: `cortex serve` runs one; use `cortex gateway`"
        )
    return await run(document, shutdown)


async def _with_registry(document: Document, shutdown: Shutdown) -> int:
    """Both in one process: the gateway ends first, then the registry that it watches."""
    from services.gateway import settings as gateway_settings
    from services.registry import wire

    gateway_settings.read(document)  # what is wrong with it is told before anything runs
    async with wire.running(document) as address:
        if not document.tables.get("gateway", {}).get("registry"):
            inside = [str(address.dialled_as("127.0.0.1"))]
            document = document.with_values({"gateway.registry": inside})
        return await _gateway(document, shutdown)
