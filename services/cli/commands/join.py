"""`cortex join`: get this host its certificate by a token."""

from __future__ import annotations

import pathlib
from typing import Annotated, Final

import typer

from services.backplane.address import Address, BadAddressError
from services.backplane.security.join_token import JoinToken
from services.cli.registry_client import run
from services.cli.terminal import err, fail, out

_PORT: Final = 31317
# Of a fingerprint, as an operator types it.
_SHOWN: Final = 16


def join(
    registry: Annotated[
        str, typer.Argument(help=f"Where the registry lets hosts join; port {_PORT} unless named.")
    ],
    *,
    token: Annotated[
        str,
        typer.Option(
            envvar="CORTEX_JOIN_TOKEN", help="What `cortex neurons token` printed; good once."
        ),
    ],
    neuron: Annotated[
        str, typer.Option(help="Join only as this neuron; else the token says which.")
    ] = "",
    folder: Annotated[pathlib.Path, typer.Option("--dir", help="Where the files go.")] = (
        pathlib.Path("/etc/cortex/pki")
    ),
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the files of an earlier certificate.")
    ] = False,
) -> None:
    """Get this host the certificate of a neuron. Its key is made here and never leaves."""
    from services.cli import joining

    try:
        read = JoinToken.parse(token)
        address = _address(registry)
        joining.prepare(folder, replace=replace)
    except (ValueError, OSError) as error:  # BadAddressError is a ValueError
        fail(str(error))

    async def main() -> None:
        joined = await joining.join(address, read, neuron=neuron, on_waiting=_tell)
        try:
            joining.write(joined, folder)
        except OSError as error:
            fail(f"{folder}: cannot be written: {error}")
        out.print(
            f"{joined.neuron} has joined; its files are in {folder}. Add to its cortex.toml:\n"
        )
        out.print(joining.settings_of(joined, folder), soft_wrap=True)

    run(main)


def _tell(neuron: str, key: str) -> None:
    err.print(
        f"This host waits to be {neuron}; its key is {key}. An operator lets it join:"
        f" cortex neurons approve {neuron} --key {key[:_SHOWN]}",
        soft_wrap=True,
    )


def _address(text: str) -> Address:
    try:
        address = Address.parse(text)
    except BadAddressError:
        address = Address.parse(f"{text}:{_PORT}")
    if address.is_unix:
        raise BadAddressError("hosts do not join over a Unix socket")
    return address
