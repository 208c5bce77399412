"""How commands reach the registry, and how they fail: one sentence, exit code 1, no traceback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
import typer
from google.protobuf.message import Message

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as operator_grpc
from services.backplane.address import BadAddressError
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import unary
from services.backplane.rpc.channels import open_channel
from services.backplane.security import settings as security_settings
from services.backplane.security.credentials import FleetCredentials, credentials_of
from services.backplane.settings import DEFAULT_PATH, SettingsError, load
from services.cli.terminal import err, fail

DEFAULT_REGISTRY: Final = "127.0.0.1:31315"
# A registry answers from memory; longer than this it is not there.
ANSWER_SECONDS: Final = 10.0

RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry",
        envvar="CORTEX_REGISTRY_ADDRESS",
        help="Address of the fleet's registry, or of any of several: `a:31315,b:31315`.",
        show_default=DEFAULT_REGISTRY,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

Answer = TypeVar("Answer")
Operator: TypeAlias = "operator_grpc.OperatorServiceAsyncStub"


@contextlib.asynccontextmanager
async def operator(
    address: str,
    credentials: FleetCredentials | None = None,
    service: Callable[[Any], Any] = operator_grpc.OperatorServiceStub,
) -> AsyncGenerator[Any]:
    """The operator's RPCs of the registry at an address.

    Args:
        address: of the registry.
        credentials: the operator's; None: those of the settings, where they have any.
        service: the stub of the RPCs.
    """
    channel = open_channel(address, credentials or _credentials(os.environ))
    try:
        yield service(channel)
    finally:
        await channel.close()


def _credentials(environment: Mapping[str, str]) -> FleetCredentials | None:
    """An operator's certificate: `[fleet]` of $CORTEX_CONFIG or the usual file, or the environment.

    Raises:
        SettingsError: they cannot be used.
    """
    asked = environment.get("CORTEX_CONFIG")
    # people need not be able to read the services' file
    path = None if asked or os.access(DEFAULT_PATH, os.R_OK) else pathlib.Path(os.devnull)
    document = load(pathlib.Path(asked) if asked else path, environment)
    settings = security_settings.read(document)
    # which certificates are refused is the servers' business, and their file
    return credentials_of(msgspec.structs.replace(settings, revoked=""))


async def at_leader(
    registry: str,
    work: Callable[[Operator], Awaitable[Answer]],
    credentials: FleetCredentials | None = None,
    service: Callable[[Any], Any] = operator_grpc.OperatorServiceStub,
) -> Answer:
    """Does some work at the registry that leads: a stand-by refuses and says which one does.

    Args:
        registry: addresses, in the order in which they are tried.
        work: begins with an RPC, so that a refusal leaves nothing half done.
        credentials: as for `operator`.
        service: as for `operator`.

    Raises:
        FleetError: as the leader said it; as the last one said it where none leads.
    """
    waiting = [address.strip() for address in registry.split(",")]
    tried: set[str] = set()
    refused = FleetError(Reason.REGISTRY_UNAVAILABLE, "No registry was named.")
    while waiting:
        address = waiting.pop(0)
        if address in tried:
            continue
        tried.add(address)
        try:
            async with operator(address, credentials, service) as stub:
                return await work(stub)
        except FleetError as error:
            if error.reason not in {Reason.NOT_LEADER, Reason.REGISTRY_UNAVAILABLE}:
                raise
            refused = error
            leader = error.facts.get("leader_address")
            waiting[:0] = [leader] if leader else []
    raise refused


async def ask(
    registry: str,
    method: str,
    request: Message,
    credentials: FleetCredentials | None = None,
    service: Callable[[Any], Any] = operator_grpc.OperatorServiceStub,
) -> Any:
    """One answer of the registry that leads; for `credentials` and `service` see `operator`.

    Raises:
        FleetError: as it said it.
    """

    async def work(stub: Operator) -> Any:
        call = getattr(stub, method)(request, timeout=ANSWER_SECONDS)
        return await unary(call, unavailable=Reason.REGISTRY_UNAVAILABLE)

    return await at_leader(registry, work, credentials, service)


async def fleet(registry: str) -> op.GetFleetResponse:
    """The fleet as the leader has it; a stand-by has none, and says who leads.

    Raises:
        FleetError: as the registry said it; NOT_LEADER where none leads.
    """

    async def work(stub: Operator) -> op.GetFleetResponse:
        found = await unary(
            stub.GetFleet(op.GetFleetRequest(), timeout=ANSWER_SECONDS),
            unavailable=Reason.REGISTRY_UNAVAILABLE,
        )
        if found.registry.role == "standby":
            leader = found.registry.leader_address
            facts = {"leader_address": leader} if leader else {}
            raise FleetError(Reason.NOT_LEADER, "No registry leads yet.", facts=facts)
        return found

    return await at_leader(registry, work)


def run(main: Callable[[], Coroutine[Any, Any, None]], *, interrupted: str = "") -> None:
    """Runs a command; what goes wrong is one line on standard error and exit code 1.

    Args:
        main: the command.
        interrupted: what Ctrl-C left behind, in words.
    """
    try:
        asyncio.run(main())
    except FleetError as error:
        hint = ""
        if error.reason is Reason.REGISTRY_UNAVAILABLE:
            hint = " (is it running? `cortex up` starts a whole fleet on this machine)"
        fail(f"{error.message}{hint}")
    except (SettingsError, BadAddressError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        if interrupted:
            err.print(f"\n{interrupted}")
        raise typer.Exit(130) from None
