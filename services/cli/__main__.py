"""The `cortex` command. Each command's module is light; services are imported when they are run."""

from __future__ import annotations

from typing import Annotated

import typer

from services import __version__
from services.backplane.logs import LogSettings, configure
from services.cli.commands import (
    bench,
    chat,
    config,
    conformance,
    doctor,
    fleet,
    neuron,
    placement,
    services,
    up,
)

app = typer.Typer(
    name="cortex",
    help="One address for all your GPUs: a serving fleet for open-weight language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True)
    ] = False,
) -> None:
    """One address for all your GPUs: a serving fleet for open-weight language models."""
    if version:
        typer.echo(f"cortex {__version__}")
        raise typer.Exit


_RUN = "Run the fleet"
_SEE = "See it and talk to it"
_OPERATE = "Operate it"
for panel, commands in (
    (
        _RUN,
        (up.up, services.serve, services.gateway, services.registry, services.acp),
    ),
    (
        _SEE,
        (
            fleet.status,
            fleet.models,
            chat.chat,
            bench.bench,
            doctor.doctor,
            conformance.conformance,
        ),
    ),
    (
        _OPERATE,
        (
            placement.load,
            placement.unload,
            placement.pin,
            placement.unpin,
            placement.cordon,
            placement.uncordon,
            placement.drain,
            placement.explain,
            placement.reload,
        ),
    ),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(neuron.app, name="neuron", rich_help_panel=_RUN)
app.add_typer(config.app, name="config", rich_help_panel=_OPERATE)


def main() -> None:
    """Entry point."""
    # before any service has settings: structlog's own would print values of variables
    configure(LogSettings(), service="cli")
    app()


if __name__ == "__main__":
    main()
