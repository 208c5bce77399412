"""`cortex neuron`: run the daemon of a GPU host, or get the host ready for it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from services.cli.options import ConfigOption, config_arguments

app = typer.Typer(help="Run the daemon of a GPU host, or get the host ready for it.")


class BuiltEngine(StrEnum):
    """The engines whose libraries are compiled on this machine."""

    EXLLAMAV2 = "exllamav2"


@app.callback(invoke_without_command=True)
def neuron(context: typer.Context, config: ConfigOption = None) -> None:
    """Run the daemon of a GPU host, or get the host ready for it."""
    if context.invoked_subcommand is not None:
        return
    from services.neuron.__main__ import main

    raise typer.Exit(main(config_arguments(config)))


@app.command("build-engine")
def build_engine(
    engine: BuiltEngine,
    *,
    jobs: Annotated[int | None, typer.Option(help="Compilers at a time.")] = None,
    limit_minutes: Annotated[float, typer.Option(help="Most minutes that it may take.")] = 60.0,
) -> None:
    """Compile an engine's extension, once per version of torch, CUDA, Python and kind of GPU."""
    assert engine is BuiltEngine.EXLLAMAV2
    from services.neuron.engines.exllamav2.library.build_command import main

    jobs_arguments = [] if jobs is None else ["--jobs", str(jobs)]
    raise typer.Exit(main(["--limit-minutes", str(limit_minutes), *jobs_arguments]))
