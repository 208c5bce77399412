"""Opens the connection of a call to a neuron, in TLS where the fleet has certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, Protocol

from services.backplane.address import Address, BadAddressError
from services.backplane.process.faults import Faults
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role, server_name
from services.backplane.timeouts import timeout
from services.gateway.transports.grpc_call import BidiCall, CallSink
from services.gateway.transports.grpc_status import lost

CONNECT_SECONDS: Final = 2.0


class Connect(Protocol):
    """The signature of `open_call`, for those who are given it."""

    def __call__(
        self, address: str, path: str, sink: CallSink, faults: Faults, /
    ) -> Awaitable[BidiCall]:
        """Connects; see `open_call`."""
        ...


async def open_call(
    address: str,
    path: str,
    sink: CallSink,
    faults: Faults,
    *,
    credentials: FleetCredentials | None = None,
    neuron: str = "",
) -> BidiCall:
    """Connects and opens the call.

    Args:
        address: `host:port` or `unix:path`.
        path: `/package.Service/Method`.
        sink: hears what comes, from the connection's first byte on.
        faults: notes what cannot be read and is no breach of the protocol.
        credentials: shown to a neuron that shows its own; None: plain text. A Unix socket is
            always plain. The call ends when the neuron's certificate is revoked.
        neuron: whose certificate that has to be; empty for any neuron's.

    Raises:
        FleetError: NEURON_LOST: nobody answers there.
    """
    loop = asyncio.get_running_loop()
    try:
        target = Address.parse(address)
        async with timeout(CONNECT_SECONDS):
            if target.port is None:
                _, call = await loop.create_unix_connection(
                    lambda: BidiCall(path, "localhost", sink, faults), target.host
                )
            else:
                _, call = await loop.create_connection(
                    lambda: BidiCall(path, str(target), sink, faults, credentials),
                    target.host,
                    target.port,
                    ssl=credentials.for_socket() if credentials else None,
                    server_hostname=server_name(Role.NEURON, neuron=neuron)
                    if credentials
                    else None,
                )
    except (OSError, BadAddressError) as error:  # TimeoutError is an OSError
        why = str(error) or "no answer"
        raise lost(f"The neuron at {address} cannot be reached: {why}.") from error
    return call
