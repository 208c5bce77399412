"""`cortex serve`, `gateway`, `registry`, `neuron` and `acp`: run one part of the fleet."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import typer

from services.backplane import lifecycle
from services.backplane.lifecycle import Shutdown
from services.backplane.logs import LogSettings, configure
from services.backplane.settings import Document, SettingsError, load
from services.cli.registry_client import fail

ConfigOption = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--config", "-c", envvar="CORTEX_CONFIG", help="Default: /etc/cortex/cortex.toml, if there."
    ),
]
Serve = Callable[[Document, Shutdown], Awaitable[int]]


def gateway(config: ConfigOption = None) -> None:
    """Run the gateway alone, against the registries in its settings."""
    from services.gateway.wire import serve

    _run("gateway", config, serve, use_uvloop=True)


def serve(config: ConfigOption = None) -> None:
    """Run the gateway, with a registry inside unless the settings name one elsewhere."""
    from services.gateway.wire import serve as serve_gateway

    document = _document(config)
    if document.tables.get("gateway", {}).get("registry"):
        _run("gateway", config, serve_gateway, use_uvloop=True)
        return

    async def both(document: Document, shutdown: Shutdown) -> int:
        from services.registry.wire import serve as serve_registry

        return await _together(document, shutdown, (serve_registry, serve_gateway))

    _run("gateway", config, both, use_uvloop=True)


async def _together(document: Document, shutdown: Shutdown, parts: Sequence[Any]) -> int:
    """Runs services in one process; the end of one is the end of all. Returns the worst code."""

    async def run(part: Any) -> int:
        try:
            code: int = await part(document, shutdown)
            return code
        finally:
            shutdown.request("a part ended")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(part)) for part in parts]
    return max(task.result() for task in tasks)


def acp(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="For the agent; `cortex acp -- --help` lists them.")
    ] = None,
) -> None:
    """Speak the Agent Client Protocol on standard input and output, for an editor."""
    from services.agent.__main__ import main as agent_main

    raise typer.Exit(agent_main(arguments or []))


def registry(config: ConfigOption = None) -> None:
    """Run the registry."""
    from services.registry.wire import serve

    _run("registry", config, serve)


def neuron(config: ConfigOption = None) -> None:
    """Run the daemon of a GPU host."""
    from services.neuron.wire import serve

    _run("neuron", config, serve)


def _run(name: str, config: pathlib.Path | None, serve: Any, *, use_uvloop: bool = False) -> None:
    document = _document(config)

    async def main(shutdown: Shutdown) -> int:
        configure(document.section("log", LogSettings), service=name)
        code: int = await serve(document, shutdown)
        return code

    raise typer.Exit(lifecycle.run(main, use_uvloop=use_uvloop))


def _document(config: pathlib.Path | None) -> Document:
    try:
        return load(config, os.environ)
    except SettingsError as error:
        fail(str(error))
        raise
