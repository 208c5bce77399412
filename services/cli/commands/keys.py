"""`cortex keys`: which clients may ask at the gateways, and for what."""

from __future__ import annotations

import contextvars
import dataclasses
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

import typer

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import key_service_pb2_grpc as key_grpc
from services.backplane import protobuf_time
from services.cli.key_admin.options import (
    DialectsOption,
    HighestOption,
    LimitsOption,
    ModelsOption,
    RoleOption,
    UsualOption,
    limits_of,
    scopes_of,
    seconds_of,
)
from services.cli.key_admin.over_http import ask_gateway
from services.cli.key_admin.tables import groups_table, key_table, keys_table
from services.cli.options import KeyOption
from services.cli.registry_client import DEFAULT_REGISTRY, JsonOption, RegistryOption, ask, run
from services.cli.terminal import err, out, print_json, show

app = typer.Typer(
    help="Make keys for clients, look at them, and take them back.", no_args_is_help=True
)
groups = typer.Typer(help="What keys have in common.", no_args_is_help=True)
app.add_typer(groups, name="groups")

_PAGE: Final = 1000
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Its id, or its name.")]


@dataclasses.dataclass(frozen=True, slots=True)
class _Gateway:
    """Where keys are made over HTTP; no URL: over gRPC, at the registry."""

    url: str
    api_key: str


# What `cortex keys` was told before the name of its command.
_OVER: Final[contextvars.ContextVar[_Gateway]] = contextvars.ContextVar("over")


@app.callback()
def over(
    gateway: Annotated[
        str,
        typer.Option(help="Ask this gateway over HTTP, with an admin key, not the registry."),
    ] = "",
    api_key: KeyOption = "",
) -> None:
    """Make keys for clients, look at them, and take them back."""
    _OVER.set(_Gateway(gateway, api_key))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="For people: whose it is, and what for.")],
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    principal: Annotated[
        str, typer.Option(help="Whom logs, limits and usage count; default: the name.")
    ] = "",
    group: Annotated[str, typer.Option(help="The group whose scopes hold too.")] = "",
    role: RoleOption = None,
    model: ModelsOption = None,
    dialect: DialectsOption = None,
    usual_class: UsualOption = "",
    highest_class: HighestOption = "",
    limit: LimitsOption = None,
    expires: Annotated[
        str, typer.Option(metavar="IN", help="From now, such as 90d or 12h; default: never.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, once: nobody can show it again."""
    request = pb.CreateKeyRequest(
        name=name,
        principal=principal,
        group=group,
        roles=role or (),
        scopes=scopes_of(model, dialect, usual_class, highest_class),
        limits=limits_of(limit),
    )
    if expires:
        request.expires_at.CopyFrom(protobuf_time.timestamp(time.time() + seconds_of(expires)))
    _print_secret(registry, "CreateKey", request, as_json=as_json)


@app.command(name="list")
def list_keys(
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Those too that were revoked or have expired.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the keys of the store. Those of a gateway's own file are not among them."""

    async def main() -> None:
        found = pb.ListKeysResponse()
        request = pb.ListKeysRequest(page_size=_PAGE, include_ended=everything)
        async for page in _pages(registry, "ListKeys", request):
            found.keys.extend(page.keys)
        if as_json:
            print_json(found)
        else:
            show(keys_table(found.keys))

    run(main)


@app.command(name="show")
def show_key(
    key: KeyArgument, registry: RegistryOption = DEFAULT_REGISTRY, *, as_json: JsonOption = False
) -> None:
    """Show one key; its secret is not kept anywhere."""

    async def main() -> None:
        answer = await _ask(registry, "GetKey", pb.GetKeyRequest(key=key))
        if as_json:
            print_json(answer.key)
        else:
            show(key_table(answer.key))

    run(main)


@app.command()
def rotate(
    key: KeyArgument,
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    overlap: Annotated[
        str, typer.Option(help="How long the old secret stays good; 0s: it ends at once.")
    ] = "24h",
    as_json: JsonOption = False,
) -> None:
    """Give a key another secret and print it, once."""
    request = pb.RotateKeyRequest(key=key, overlap=protobuf_time.duration(seconds_of(overlap)))
    _print_secret(registry, "RotateKey", request, as_json=as_json)


@app.command()
def revoke(
    key: KeyArgument, registry: RegistryOption = DEFAULT_REGISTRY, *, as_json: JsonOption = False
) -> None:
    """Take a key back for ever, and end what runs by it."""

    async def main() -> None:
        answer = await _ask(registry, "RevokeKey", pb.RevokeKeyRequest(key=key))
        if as_json:
            print_json(answer.key)
        else:
            out.print(f"{answer.key.name} ({answer.key.id}) is revoked.", soft_wrap=True)

    run(main)


@groups.command(name="set")
def set_group(
    name: Annotated[str, typer.Argument(help="The group's name.")],
    registry: RegistryOption = DEFAULT_REGISTRY,
    *,
    role: RoleOption = None,
    model: ModelsOption = None,
    dialect: DialectsOption = None,
    usual_class: UsualOption = "",
    highest_class: HighestOption = "",
    limit: LimitsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a group, or put another in its place: what is not said is not kept.

    Roles are those of people who come by a token of an identity provider; keys have their own.
    """
    group = pb.KeyGroup(
        name=name,
        roles=role or (),
        scopes=scopes_of(model, dialect, usual_class, highest_class),
        limits=limits_of(limit),
    )

    async def main() -> None:
        answer = await _ask(registry, "PutKeyGroup", pb.PutKeyGroupRequest(group=group))
        if as_json:
            print_json(answer.group)
        else:
            show(groups_table([answer.group]))

    run(main)


@groups.command(name="list")
def list_groups(
    registry: RegistryOption = DEFAULT_REGISTRY, *, as_json: JsonOption = False
) -> None:
    """List the groups."""

    async def main() -> None:
        found = pb.ListKeyGroupsResponse()
        request = pb.ListKeyGroupsRequest(page_size=_PAGE)
        async for page in _pages(registry, "ListKeyGroups", request):
            found.groups.extend(page.groups)
        if as_json:
            print_json(found)
        else:
            show(groups_table(found.groups))

    run(main)


@groups.command(name="delete")
def delete_group(
    name: Annotated[str, typer.Argument(help="The group's name.")],
    registry: RegistryOption = DEFAULT_REGISTRY,
) -> None:
    """Remove a group that no key is in."""

    async def main() -> None:
        await _ask(registry, "DeleteKeyGroup", pb.DeleteKeyGroupRequest(name=name))
        out.print(f"The group {name} is gone.", soft_wrap=True)

    run(main)


async def _ask(registry: str, method: str, request: Any) -> Any:
    by_http = _OVER.get()
    if by_http.url:
        return ask_gateway(by_http.url, by_http.api_key, method, request)
    return await ask(registry, method, request, service=key_grpc.KeyServiceStub)


async def _pages(registry: str, method: str, request: Any) -> AsyncGenerator[Any]:
    """Asks for one page behind the other."""
    while True:
        page = await _ask(registry, method, request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _print_secret(registry: str, method: str, request: Any, *, as_json: bool) -> None:
    """Prints the secret alone on standard output, so that a script can take it from there."""

    async def main() -> None:
        answer = await _ask(registry, method, request)
        if as_json:
            print_json(answer)
            return
        err.print(f"{answer.key.name}, id {answer.key.id}; shown once:", soft_wrap=True)
        out.print(answer.secret, soft_wrap=True)

    run(main)
