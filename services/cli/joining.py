"""How a new host gets its certificate: it believes a registry by the token's fingerprint alone.

1. The registry's certificate is taken as it is shown, and with it the authority is asked for.
2. The authority has to have the fingerprint of the token. Then a second connection checks that the
   registry's certificate is of that authority and a registry's; only now the secret is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import os
import pathlib
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from cortex.v1 import join_service_pb2 as pb
from cortex.v1 import join_service_pb2_grpc as join_grpc
from services.backplane.address import Address
from services.backplane.backoff import delays
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import unary
from services.backplane.rpc.channels import CHANNEL_OPTIONS
from services.backplane.security.certificate_request import key_fingerprint
from services.backplane.security.certificates import dns_names
from services.backplane.security.join_token import JoinToken, fingerprint_of
from services.backplane.security.key_files import (
    new_key,
    pem_of_key,
    request_for,
    write_whole,
)
from services.backplane.security.roles import Role, names_of, server_name
from services.backplane.timeouts import timeout

_CA, _CERTIFICATE, _KEY = "ca.pem", "host.pem", "host.key"
_ANSWER_SECONDS: Final = 10.0
# While others hold all places of the port for joining.
_BUSY_SECONDS: Final = 30.0
# While an operator has not approved.
_LONGEST_PAUSE_SECONDS: Final = 5.0
_PASSING: Final = frozenset({Reason.REGISTRY_UNAVAILABLE, Reason.NOT_LEADER})

Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """What the host needs from now on, in PEM.

    Attributes:
        neuron: its name in the fleet.
        registry_address: where it attaches.
    """

    neuron: str
    registry_address: str
    ca: bytes
    certificate: bytes
    key: bytes


async def join(
    address: Address,
    token: JoinToken,
    *,
    neuron: str = "",
    on_waiting: Callable[[str, str], None] = lambda _neuron, _key: None,
) -> Joined:
    """Gets this host its certificate; waits for its approval where the fleet asks for that.

    Args:
        address: of the registry's port for joining.
        token: whom to believe, and the secret.
        neuron: the name that the host expects; empty: the token's.
        on_waiting: told once, where it has to be approved, its name and its key's fingerprint.

    Raises:
        FleetError: the registry cannot be reached, is not the token's, or refuses.
    """
    shown = await _shown_certificate(address)
    async with _channel(address, shown) as stub:
        answer = await _patiently(
            lambda: stub.GetAuthority(pb.GetAuthorityRequest(), timeout=_ANSWER_SECONDS)
        )
    ca: bytes = answer.certificate
    _require_fingerprint(ca, token)
    key = new_key()
    request = pb.JoinRequest(
        secret=token.secret, certificate_request=request_for(key), neuron=neuron
    )
    async with _channel(address, ca) as stub:
        given = await _patiently(lambda: stub.Join(request, timeout=_ANSWER_SECONDS))
        if not given.certificate:
            on_waiting(given.neuron, key_fingerprint(key.public_key()))
            given = await _approved(stub, request)
    _require_fitting(given.certificate, ca, key, given.neuron)
    return Joined(
        neuron=given.neuron,
        registry_address=given.registry_address,
        ca=ca,
        certificate=given.certificate,
        key=pem_of_key(key),
    )


async def _approved(
    stub: join_grpc.JoinServiceAsyncStub, request: pb.JoinRequest
) -> pb.JoinResponse:
    """Asks until an operator has approved; the registry refuses when the time for that is over."""
    pauses = delays(cap=_LONGEST_PAUSE_SECONDS)
    while True:
        await asyncio.sleep(next(pauses))
        try:
            given = await _patiently(lambda: stub.Join(request, timeout=_ANSWER_SECONDS))
        except FleetError as error:
            if error.reason not in _PASSING:  # it may be away for a while
                raise
        else:
            if given.certificate:
                return given


def prepare(folder: pathlib.Path, *, replace: bool) -> None:
    """Makes the folder, before a token is used for files that cannot be written.

    Raises:
        OSError: it cannot be written, or there are files that are not to be replaced.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder}: cannot be written; --dir names another folder")
    for name in (_CA, _CERTIFICATE, _KEY):
        if (folder / name).exists() and not replace:
            raise FileExistsError(f"{folder / name} exists; --replace puts new ones in its place")


def write(joined: Joined, folder: pathlib.Path) -> None:
    """Writes the files of a host that has joined, for its owner's eyes alone.

    Raises:
        OSError: they cannot be written.
    """
    for name, data in ((_CA, joined.ca), (_KEY, joined.key), (_CERTIFICATE, joined.certificate)):
        write_whole(folder / name, data, mode=0o600)


def settings_of(joined: Joined, folder: pathlib.Path) -> str:
    """The lines that the host's cortex.toml needs."""
    where = folder.resolve()
    return (
        f'[fleet]\nca = "{where / _CA}"\ncertificate = "{where / _CERTIFICATE}"\n'
        f'key = "{where / _KEY}"\nrenew = true\n\n'
        f'[neuron]\nname = "{joined.neuron}"\nregistry = ["{joined.registry_address}"]\n'
    )


async def _shown_certificate(address: Address) -> bytes:
    """What the server at an address shows: nothing is believed of it yet."""

    def shown() -> str:
        assert address.port is not None
        return ssl.get_server_certificate((address.host, address.port), timeout=_ANSWER_SECONDS)

    try:
        return (await asyncio.to_thread(shown)).encode()
    except (OSError, ValueError) as error:
        message = f"{address} cannot be reached: {error}"
        raise FleetError(Reason.REGISTRY_UNAVAILABLE, message) from error


@contextlib.asynccontextmanager
async def _channel(address: Address, root: bytes) -> AsyncGenerator[join_grpc.JoinServiceAsyncStub]:
    """JoinService of a registry whose certificate a root has signed, or is."""
    channel = grpc.aio.secure_channel(
        str(address),
        grpc.ssl_channel_credentials(root_certificates=root),
        options=[
            *CHANNEL_OPTIONS,
            ("grpc.ssl_target_name_override", server_name(Role.REGISTRY)),
        ],
    )
    async with channel:
        yield join_grpc.JoinServiceStub(channel)


async def _patiently(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """One answer; while others hold all places there, it is asked for again."""
    pauses = delays(cap=2.0)
    with contextlib.suppress(TimeoutError):
        async with timeout(_BUSY_SECONDS):
            while True:
                try:
                    return await unary(call(), unavailable=Reason.REGISTRY_UNAVAILABLE)
                except FleetError as error:
                    if error.reason is not Reason.QUEUE_FULL:
                        raise
                await asyncio.sleep(next(pauses))
    message = "Too many ask this registry for certificates; try again."
    raise FleetError(Reason.REGISTRY_UNAVAILABLE, message)


def _require_fingerprint(ca: bytes, token: JoinToken) -> None:
    try:
        found = fingerprint_of(ca)
    except ValueError as error:
        raise FleetError(Reason.FORBIDDEN, f"What answers there is no registry: {error}") from error
    if not hmac.compare_digest(found, token.fingerprint):
        message = (
            f"What answers there has another authority (SHA-256 {found}) than the token's fleet;"
            " it was told nothing."
        )
        raise FleetError(Reason.FORBIDDEN, message)


def _require_fitting(
    certificate: bytes, ca: bytes, key: ec.EllipticCurvePrivateKey, neuron: str
) -> None:
    """Checks what was given before it replaces anything."""
    try:
        read = x509.load_pem_x509_certificate(certificate)
        read.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    except (ValueError, TypeError, InvalidSignature) as error:
        message = f"The registry's answer is no certificate of its authority: {error}"
        raise FleetError(Reason.INTERNAL, message) from error
    if read.public_key() != key.public_key() or set(dns_names(read)) != set(
        names_of(Role.NEURON, neuron=neuron)
    ):
        raise FleetError(Reason.INTERNAL, "The registry's answer is another one's certificate.")
