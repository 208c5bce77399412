"""`cortex serve`, `gateway`, `registry`, `neuron` and `acp`: run one part of the fleet."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Awaitable, Callable
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
