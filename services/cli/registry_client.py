"""How commands reach the registry, and how they fail: one sentence, exit code 1, no traceback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Annotated, Any, Final

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console

from cortex.v1 import operator_service_pb2_grpc as operator_grpc
from services.backplane.address import BadAddressError
from services.backplane.channels import open_channel
from services.backplane.errors import FleetError, Reason
from services.backplane.settings import SettingsError

DEFAULT_REGISTRY: Final = "127.0.0.1:31315"
# A registry answers from memory; longer than this it is not there.
ANSWER_SECONDS: Final = 10.0

RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry",
        envvar="CORTEX_REGISTRY_ADDRESS",
        help="Address of the fleet's registry.",
        show_default=DEFAULT_REGISTRY,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

out = Console()
err = Console(stderr=True)


@contextlib.asynccontextmanager
async def operator(address: str) -> AsyncGenerator[operator_grpc.OperatorServiceAsyncStub]:
    """The operator's RPCs of the registry at an address."""
    channel = open_channel(address)
    try:
        yield operator_grpc.OperatorServiceStub(channel)
    finally:
        await channel.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a command; what goes wrong is one line on standard error and exit code 1."""
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
        raise typer.Exit(130) from None


def fail(message: str) -> None:
    """Ends the command with one line."""
    err.print(f"[red]cortex:[/] {message}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def print_json(message: Message) -> None:
    """A whole answer of the registry as JSON, with the contract's own field names."""
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    out.print_json(json.dumps(fields))
