"""`cortex config`: what may stand in the settings files."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from services.cli.settings_page import page
from services.cli.settings_schema import SettingsFile
from services.cli.settings_schema import schema as schema_of

app = typer.Typer(help="What may stand in the settings files.", no_args_is_help=True)


@app.command()
def schema(
    file: Annotated[SettingsFile, typer.Argument(help="Which file.")] = SettingsFile.CORTEX,
) -> None:
    """Print the JSON Schema of a settings file, for editors and checkers."""
    typer.echo(msgspec.json.format(msgspec.json.encode(schema_of(file)), indent=2))


@app.command()
def docs() -> None:
    """Print docs/configuration.md: every key with its type, default and meaning."""
    typer.echo(page(), nl=False)
