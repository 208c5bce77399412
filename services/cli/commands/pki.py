"""`cortex pki`: the certificates by which the parts of a fleet know each other."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Generator
from typing import Annotated

import typer

from services.backplane.security.authority import AuthorityError, create, revoke, show
from services.backplane.security.authority import issue as issue_certificate
from services.backplane.security.roles import Role
from services.cli.terminal import fail, out

app = typer.Typer(
    help="Make the certificates by which the parts of a fleet know each other.",
    no_args_is_help=True,
)

FolderOption = Annotated[
    pathlib.Path, typer.Option("--dir", envvar="CORTEX_PKI_DIR", help="Folder of the authority.")
]
_FOLDER = pathlib.Path("cortex-pki")


@contextlib.contextmanager
def _failing() -> Generator[None]:
    """Ends the command with one line where the authority cannot do its part."""
    try:
        yield
    except AuthorityError as error:
        fail(str(error))


@app.command()
def init(folder: FolderOption = _FOLDER) -> None:
    """Make an authority. Its key stays where you run this; no service needs it."""
    with _failing():
        facts = create(folder)
    out.print(
        f"{folder}/ca.pem goes to every host; {folder}/ca.key stays here.\n"
        f"SHA-256 {facts.fingerprint}",
    )


@app.command()
def issue(
    roles: Annotated[list[Role], typer.Argument(help="What the holder is; several may be named.")],
    *,
    neuron: Annotated[
        str, typer.Option(help="`neuron.name` of that host, for the role neuron.")
    ] = "",
    to: Annotated[
        pathlib.Path | None, typer.Option("--out", help="Writes OUT.pem and OUT.key.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is good.")] = 365,
    folder: FolderOption = _FOLDER,
) -> None:
    """Sign a certificate for a host or a person. Run again, it renews: services take it in."""
    if neuron and Role.NEURON not in roles:
        fail("--neuron names a neuron, but `neuron` is not among the roles")
    where = to or folder / (neuron or "+".join(role.value for role in roles))
    with _failing():
        issued = issue_certificate(folder, roles, neuron=neuron, out=where, days=days)
        facts = show(issued.certificate)
    out.print(
        f"{issued.certificate} and {issued.key}: {', '.join(facts.names)},"
        f" until {facts.until:%Y-%m-%d}, serial {facts.serial}",
        soft_wrap=True,
    )


@app.command("revoke")
def revoke_certificate(
    certificate: Annotated[str, typer.Argument(help="Its file, or its serial number in hex.")],
    folder: FolderOption = _FOLDER,
) -> None:
    """Put a certificate on the list that `[fleet] revoked` names on each host."""
    with _failing():
        serial = revoke(folder, certificate)
    out.print(f"{folder}/revoked now has {serial}", soft_wrap=True)


@app.command("show")
def show_certificate(path: pathlib.Path) -> None:
    """Say what a certificate is for, and until when."""
    with _failing():
        facts = show(path)
    out.print(
        f"names    {', '.join(facts.names) or 'none: an authority'}\nserial   {facts.serial}\n"
        f"until    {facts.until:%Y-%m-%d %H:%M} UTC\nSHA-256  {facts.fingerprint}",
        soft_wrap=True,
    )
