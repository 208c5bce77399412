"""`cortex reload`: the catalogue, or a gateway's settings, read again."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import typer

from cortex.v1 import operator_service_pb2 as op
from services.cli.options import DEFAULT_GATEWAY, GatewayOption, KeyOption
from services.cli.registry_client import DEFAULT_REGISTRY, JsonOption, RegistryOption, ask, run
from services.cli.sse import GatewayClient, words_of
from services.cli.terminal import fail, out, print_json

_OK: Final = 200


class ReloadTarget(enum.Enum):
    """What can be read again."""

    CATALOGUE = "catalogue"
    GATEWAY = "gateway"


def reload(
    what: Annotated[
        ReloadTarget, typer.Argument(help="models.toml, or a gateway's settings.")
    ] = ReloadTarget.CATALOGUE,
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Read the catalogue again, or a gateway's settings; an error changes nothing.

    For a gateway the key has to be an admin's.
    """
    if what is ReloadTarget.GATEWAY:
        _reload_gateway(GatewayClient(gateway, api_key=api_key), as_json=as_json)
        return

    async def main() -> None:
        answer = await ask(registry, "ReloadCatalogue", op.ReloadCatalogueRequest())
        if as_json:
            print_json(answer)
            return
        for word, names in (
            ("added", answer.added),
            ("removed", answer.removed),
            ("changed", answer.changed),
        ):
            out.print(f"{word}: {', '.join(names) or 'nothing'}")

    run(main)


def _reload_gateway(client: GatewayClient, *, as_json: bool) -> None:
    try:
        status, told = client.ask("POST", "/admin/reload", b"{}")
    except OSError as error:
        fail(f"{error} (is the gateway running?)")
    if status != _OK:
        fail(words_of(told, status))
    if as_json:
        out.print_json(data=told)
        return
    for word, names in told.items():
        out.print(f"{word.replace('_', ' ')}: {', '.join(names) or 'nothing'}")
