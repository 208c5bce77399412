"""`cortex config`: what may stand in the settings files, what is in force, what is wrong."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec
import typer

from services.backplane.process.lifecycle import EX_CONFIG
from services.backplane.settings import Document, SettingsError, load
from services.cli.local_fleet import default_data_dir
from services.cli.options import ConfigOption
from services.cli.settings_files.check import (
    problem_of_agent,
    problem_of_catalogue,
    problems,
    services_of,
)
from services.cli.settings_files.effective import NONE, Effective, in_force
from services.cli.settings_files.page import page
from services.cli.settings_files.schema import schema as schema_of
from services.cli.settings_files.sections import Service, SettingsFile, read_sections
from services.cli.settings_files.values import toml
from services.cli.terminal import complain, out
from services.cli.up_settings import UpSettings, choose

_NUMBER: Final = re.compile(r"\[\d+\]")

app = typer.Typer(
    help="What may stand in the settings files, what is in force, what is wrong.",
    no_args_is_help=True,
)


@app.command()
def check(
    config: ConfigOption = None,
    *,
    service: Annotated[
        list[Service] | None,
        typer.Option("--for", help="That is to start with it.", show_default="those it names"),
    ] = None,
    models: Annotated[
        pathlib.Path | None, typer.Option("--models", help="Check this models.toml instead.")
    ] = None,
    agent: Annotated[
        pathlib.Path | None,
        typer.Option("--agent", help="Check this config.toml of `cortex acp` instead."),
    ] = None,
) -> None:
    """Say what is wrong with settings, without starting anything; exit code 78 where something is.

    Environment, certificates and the catalogue that the settings name are looked at too.
    """
    if models or agent:
        found = [problem_of_catalogue(models)] if models else []
        found += [problem_of_agent(agent, os.environ)] if agent else []
        _tell(filter(None, found), ", ".join(str(each) for each in (models, agent) if each))
        return
    document = _load(config)
    services = service or services_of(document)
    words = f"{document.source}, for {', '.join(sorted(services))}"
    _tell(problems(document, services), words)


@app.command()
def show(
    section: Annotated[
        list[str] | None, typer.Argument(help="Only these, such as `gateway` or `neuron.workers`.")
    ] = None,
    *,
    config: ConfigOption = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what is not by default.")
    ] = False,
    up: Annotated[bool, typer.Option("--up", help="With what `cortex up` adds.")] = False,
    host: Annotated[str | None, typer.Option("--host", help="As for `cortex up`.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="As for `cortex up`.")] = None,
    data_dir: Annotated[
        pathlib.Path | None, typer.Option("--data-dir", help="As for `cortex up`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Print the settings that are in force, and where each comes from, as TOML.

    Keys and passwords are hidden.
    """
    document = _load(config)
    chosen: Mapping[str, str] = NONE
    try:
        if up or host or data_dir or port is not None:
            for _ in read_sections(document):  # they are built upon, and so have to be whole
                pass
            folder = data_dir or default_data_dir(os.environ)
            made_up = choose(document, folder, host=host, port=port)
            document, chosen = made_up.document, _places(made_up, host, port)
        found = [
            each
            for each in in_force(document, chosen)
            if _is_in(each.section, section or []) and not (changed and each.origin == "default")
        ]
    except (SettingsError, ValueError) as error:
        complain(str(error))
        raise typer.Exit(EX_CONFIG) from error
    if as_json:
        entries = {f"{e.section}.{e.key}": {"value": e.value, "from": e.origin} for e in found}
        out.print_json(json.dumps(entries))
        return
    for line in _lines(found):
        typer.echo(line)


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


def _load(config: pathlib.Path | None) -> Document:
    try:
        return load(config, os.environ)
    except SettingsError as error:
        complain(str(error))
        raise typer.Exit(EX_CONFIG) from error


def _tell(found: Iterable[str], what: str) -> None:
    """Ends the command with what is wrong, a line each, or says that nothing is."""
    wrong = list(found)
    for each in wrong:
        complain(each)
    if wrong:
        raise typer.Exit(EX_CONFIG)
    out.print(f"fine: {what}", soft_wrap=True)


def _places(settings: UpSettings, host: str | None, port: int | None) -> Mapping[str, str]:
    """Where each setting is from that `cortex up` adds."""
    options = [f"--host {host}"] if host else []
    options += [] if port is None else [f"--port {port}"]
    places = dict.fromkeys(settings.chosen, "cortex up")
    if options and "gateway.listen" in places:
        places["gateway.listen"] = " ".join(options)
    return places


def _is_in(section: str, wanted: Iterable[str]) -> bool:
    names = list(wanted)
    return not names or any(
        section == name or section.startswith((f"{name}.", f"{name}[")) for name in names
    )


def _lines(found: Iterable[Effective]) -> Iterable[str]:
    """TOML, with where a value is from behind it; what is unset is a comment."""
    section = ""
    for each in found:
        if each.section != section:
            if section:
                yield ""
            section = each.section
            array = section.endswith("]")
            name = _NUMBER.sub("", section)  # of the entry just begun
            yield f"[[{name}]]" if array else f"[{name}]"
        if each.value is None:
            yield f"# {each.key} is unset"
        else:
            yield f"{each.key} = {toml(each.value, each.node)}  # {each.origin}"
