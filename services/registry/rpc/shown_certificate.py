"""Which certificate a server shows; gRPC, which checks it, does not say."""

from __future__ import annotations

import asyncio
from typing import Final

from cryptography import x509

from services.backplane.address import Address
from services.backplane.errors import FleetError, Reason
from services.backplane.security.certificates import serial_of
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role, server_name
from services.backplane.timeouts import timeout

_SECONDS: Final = 5.0


async def shown_serial(address: str, credentials: FleetCredentials | None, *, neuron: str) -> str:
    """The serial number of a neuron's certificate, verified; empty where it speaks plain text.

    Args:
        address: `host:port` or `unix:path`.
        credentials: shown to it; None: plain text.
        neuron: whose certificate it has to be.

    Raises:
        FleetError: NEURON_LOST: nobody answers there, or somebody else.
    """
    target = Address.parse(address)
    if credentials is None or target.is_unix:
        return ""
    try:
        async with timeout(_SECONDS):
            _, writer = await asyncio.open_connection(
                target.host,
                target.port,
                ssl=credentials.for_socket(),
                server_hostname=server_name(Role.NEURON, neuron=neuron),
            )
    except OSError as error:  # TimeoutError and ssl.SSLError are OSErrors
        why = str(error) or "no answer"
        raise FleetError(Reason.NEURON_LOST, f"{neuron} cannot be reached: {why}.") from error
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return serial_of(x509.load_der_x509_certificate(shown))
