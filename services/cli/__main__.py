"""The `cortex` command. Each command's module is light; services are imported when they are run."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from typing import Annotated, Final, NoReturn

import typer

from services import __version__
from services.backplane.logs import LogSettings, configure
from services.backplane.process.lifecycle import EX_SOFTWARE, EX_UNAVAILABLE
from services.backplane.settings import COMMAND_VARIABLES, PREFIX
from services.backplane.tracebacks import describe
from services.cli.commands import (
    bench,
    chat,
    conformance,
    doctor,
    fleet,
    join,
    keys,
    neuron,
    neurons,
    pki,
    placement,
    reload,
    services,
    storage,
    up,
)
from services.cli.commands.setup import config, init
from services.cli.commands.watching import events, logs, top
from services.cli.terminal import complain

app = typer.Typer(
    name="cortex",
    help="One address for all your GPUs: a serving fleet for open-weight language models.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# What an extra brings, for those who run a part without it.
_EXTRAS: Final = {
    "gateway": (
        "jwt",
        "starlette",
        "hypercorn",
        "hpack",
        "httptools",
        "uvloop",
        "wsproto",
        "h2",
        "h11",
    ),
    "llamacpp": ("jinja2", "llguidance", "numpy", "psutil", "pynvml", "xllamacpp", "gguf"),
    "agent": ("acp", "anthropic", "httpx2", "mcp", "openai", "pydantic"),
    "postgres": ("psycopg",),
    "hf": ("huggingface_hub",),
}
_HINTS: Final = {"llamacpp": ", or [exllamav2] on a GPU host"}
# `CORTEX_REGISTRY_ADRESS` is like the right one; `CORTEX_GATEWAY_PORT`, which Kubernetes sets for
# a service of that name, is not.
_LIKENESS: Final = 0.9


def _print_version(version: bool) -> None:
    if version:
        typer.echo(f"cortex {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[  # noqa: ARG001 - its callback has it
        bool,
        typer.Option(
            "--version",
            help="Print the version and end.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """One address for all your GPUs: a serving fleet for open-weight language models."""
    _warn_of_mistyped(os.environ)


def _warn_of_mistyped(environment: Mapping[str, str]) -> None:
    """Names variables that are nearly one that a command reads."""
    for variable in sorted(environment.keys() - COMMAND_VARIABLES):
        if variable.startswith(PREFIX) and "__" not in variable:
            near = difflib.get_close_matches(variable, COMMAND_VARIABLES, 1, _LIKENESS)
            if near:
                complain(f"{variable} is not read; {near[0]} is")


_RUN = "Run the fleet"
_SEE = "See it and talk to it"
_OPERATE = "Operate it"
for panel, commands in (
    (
        _RUN,
        (
            up.up,
            init.init,
            services.serve,
            services.gateway,
            services.registry,
            services.acp,
            join.join,
        ),
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
            fleet.usage,
            logs.logs,
            events.events,
            top.top,
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
            reload.reload,
            storage.pull,
        ),
    ),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command("rm", rich_help_panel=_OPERATE)(storage.remove)
app.add_typer(neuron.app, name="neuron", rich_help_panel=_RUN)
app.add_typer(neurons.app, name="neurons", rich_help_panel=_OPERATE)
app.add_typer(keys.app, name="keys", rich_help_panel=_OPERATE)
app.add_typer(pki.app, name="pki", rich_help_panel=_OPERATE)
app.add_typer(config.app, name="config", rich_help_panel=_OPERATE)


def main() -> None:
    """Entry point."""
    # before any service has settings: structlog's own would print values of variables
    configure(LogSettings(), service="cli")
    try:
        app()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((name for name, packages in _EXTRAS.items() if package in packages), None)
        if extra is None:
            _end_of(error)
        hint = _HINTS.get(extra, "")
        complain(f"{package} is not installed here: pip install 'cortex-fleet[{extra}]'{hint}")
        sys.exit(EX_UNAVAILABLE)
    except Exception as error:  # noqa: BLE001 - what it says may be a key, a prompt or an answer
        _end_of(error)


def _end_of(error: Exception) -> NoReturn:
    complain(f"this is a mistake of ours; please report it with what is below\n{describe(error)}")
    sys.exit(EX_SOFTWARE)


if __name__ == "__main__":
    main()
