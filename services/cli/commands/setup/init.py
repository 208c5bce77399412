"""`cortex init`: the settings files of a new host."""

from __future__ import annotations

import getpass
import os
import pathlib
import shlex
import socket
import sys
import tomllib
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from services.backplane.address import Address
from services.backplane.security.exposure import is_loopback
from services.backplane.security.key_files import write_whole
from services.backplane.settings import DEFAULT_PATH, Document
from services.cli.settings_files.check import problems, services_of
from services.cli.settings_files.starter import CORTEX, NEURON, Answers, ClientKey, HostPart, files
from services.cli.terminal import complain, fail, out

_USAGE: Final = 2
_LISTENS: Final = {
    HostPart.ALL_IN_ONE: "127.0.0.1:31313",
    HostPart.GATEWAY: "127.0.0.1:31313",
    HostPart.REGISTRY: "127.0.0.1:31315",
    HostPart.NEURON: "127.0.0.1:13131",
}
_REGISTRY: Final = "127.0.0.1:31315"
_STARTS: Final = {
    HostPart.ALL_IN_ONE: (("serve", CORTEX), ("neuron", NEURON)),
    HostPart.GATEWAY: (("gateway", CORTEX),),
    HostPart.REGISTRY: (("registry", CORTEX),),
    HostPart.NEURON: (("neuron", NEURON),),
}


def init(
    part: Annotated[
        HostPart | None,
        typer.Argument(help="What this host is in the fleet; asked for, if not said."),
    ] = None,
    *,
    folder: Annotated[
        pathlib.Path | None,
        typer.Option("--dir", help="Where the files go.", show_default="/etc/cortex, or ~/.config"),
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="Where clients, or the fleet, come in.")
    ] = None,
    registry: Annotated[
        list[str] | None,
        typer.Option(
            "--registry", help="Of the fleet, for a gateway or a neuron; may be repeated."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the neuron.")] = None,
    models_dir: Annotated[
        str | None, typer.Option("--models-dir", help="Folder of the neuron's models.")
    ] = None,
    certificate: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--certificate",
            help="This host's, of `cortex pki` or `cortex join`; its key and ca.pem lie beside it.",
        ),
    ] = None,
    key_name: Annotated[
        str, typer.Option("--key-name", help="Whose key is made where clients need one.")
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: take what is usual.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that are there already.")
    ] = False,
) -> None:
    """Write commented settings files for what this host is in the fleet.

    Asks on a terminal for what no option says. Files that are there stay as they are.
    """
    asks = sys.stdin.isatty() and not yes
    if part is None:
        if not asks:
            complain(f"say what this host is: {', '.join(HostPart)}")
            raise typer.Exit(_USAGE)
        part = HostPart(
            _asked("What is this host?", HostPart.ALL_IN_ONE.value, choices=tuple(HostPart))
        )

    def told(value: str | None, question: str, usual: str) -> str:
        return value if value is not None else _asked(question, usual) if asks else usual

    is_neuron = part in {HostPart.ALL_IN_ONE, HostPart.NEURON}
    answers = Answers(
        part,
        folder=str((folder or _usual_folder()).absolute()),
        listen=told(listen, "Where does it listen? (0.0.0.0:PORT: everywhere)", _LISTENS[part]),
        registries=registry or [_address_of_registry(part, asks=asks)],
        neuron=told(name, "What is the neuron called?", socket.gethostname()) if is_neuron else "",
        models_dir=told(models_dir, "Where do models lie?", "~/.local/share/cortex/models")
        if is_neuron
        else "",
        **_credentials(certificate),
    )
    _write(answers, key_name=key_name, force=force)


def _asked(question: str, usual: str, choices: tuple[str, ...] = ()) -> str:
    import click

    kind = click.Choice(choices) if choices else None
    return str(typer.prompt(question, default=usual, type=kind))


def _usual_folder() -> pathlib.Path:
    system = DEFAULT_PATH.parent
    may = os.access(system if system.exists() else system.parent, os.W_OK)
    return system if may else pathlib.Path.home() / ".config" / "cortex"


def _address_of_registry(part: HostPart, *, asks: bool) -> str:
    if asks and part in {HostPart.GATEWAY, HostPart.NEURON}:
        return _asked("Where is the fleet's registry?", _REGISTRY)
    return _REGISTRY


def _credentials(certificate: pathlib.Path | None) -> Mapping[str, str]:
    if certificate is None:
        return {}
    whole = certificate.absolute()
    return {
        "ca": str(whole.with_name("ca.pem")),
        "certificate": str(whole),
        "key": str(whole.with_suffix(".key")),
    }


def _write(answers: Answers, *, key_name: str, force: bool) -> None:
    folder = pathlib.Path(answers.folder)
    if not answers.folder.isprintable():  # it stands in the files, and in what is told
        fail(f"--dir: {answers.folder}: has signs in it that cannot be printed")
    try:
        exposed = not is_loopback(Address.parse(answers.listen))
    except ValueError as error:
        fail(f"--listen: {error}")
    needs_key = answers.part in {HostPart.ALL_IN_ONE, HostPart.GATEWAY} and (
        exposed or bool(key_name)
    )
    key = ClientKey.new(key_name or _user()) if needs_key else None
    texts = files(answers, key)
    for name in texts:
        # a link to nothing is there too; a folder that may not be looked into fails below
        if not force and os.path.lexists(folder / name):
            fail(f"{folder / name} is there already; --force replaces it")
    _refuse_unusable(texts, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_whole(folder / name, text.encode(), mode=0o644)
    except OSError as error:
        fail(f"{folder}: cannot be written: {error.strerror}")
    for name in texts:
        out.print(f"written: {folder / name}", soft_wrap=True)
    if key is not None:
        out.print(f"key of {key.name}, told only here: {key.secret}", soft_wrap=True)
    for command, name in _STARTS[answers.part]:
        path = shlex.quote(str(folder / name))
        out.print(f"start it: cortex {command} --config {path}", soft_wrap=True)


def _user() -> str:
    """Who runs the command; in a container he may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user-{os.getuid()}"


def _refuse_unusable(texts: Mapping[str, str], folder: pathlib.Path) -> None:
    """Ends the command where a service would not start with what is about to be written."""
    for name in (CORTEX, NEURON):
        if name not in texts:
            continue
        tables = tomllib.loads(texts[name])
        services = services_of(Document(tables, name))
        # the catalogue is written beside it, and has nothing to be wrong
        tables.get("registry", {}).pop("models", None)
        for problem in problems(Document(tables, str(folder / name)), services):
            fail(problem)
