"""Has the registry renew this neuron's certificate in time, for the same key.

The key stays as it is, so that one file is replaced, as a whole: two could not be replaced at once,
and a neuron whose host fails between them would not start again.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import pathlib
from collections.abc import Sequence
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cortex.v1 import registry_service_pb2 as registry
from cortex.v1.registry_service_pb2_grpc import RegistryServiceStub
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import unary
from services.backplane.rpc.channels import open_channel
from services.backplane.security.certificates import dns_names
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.key_files import request_for, write_whole
from services.backplane.security.settings import FleetSettings

_ANSWER_SECONDS: Final = 10.0
# Between looks: a tenth of what is left, so that a registry that is away is asked in time again.
_SHARE: Final = 0.1
_SHORTEST_SECONDS, _LONGEST_SECONDS = 1.0, 3600.0

log = structlog.get_logger()


async def keep_renewed(
    credentials: FleetCredentials, registries: Sequence[str], faults: Faults
) -> None:
    """Renews the certificate for ever, each time when a third of its time is left.

    Args:
        credentials: take the new certificate in by its file.
        registries: host:port, in order of preference.
        faults: notes what nobody foresaw.
    """
    while True:
        left = await _renew_if_due(credentials, registries, faults)
        await asyncio.sleep(min(max(left * _SHARE, _SHORTEST_SECONDS), _LONGEST_SECONDS))


async def _renew_if_due(
    credentials: FleetCredentials, registries: Sequence[str], faults: Faults
) -> float:
    """Returns how many seconds are left of the certificate that it looked at."""
    own = credentials.own
    life = own.not_valid_after_utc - own.not_valid_before_utc
    left = own.not_valid_after_utc - dt.datetime.now(dt.UTC)
    if left < life / 3:
        path = credentials.settings.certificate
        try:
            await _renew(credentials, own, registries)
        except (FleetError, OSError, ValueError) as error:
            why = error.message if isinstance(error, FleetError) else str(error)
            log.warning("certificate.not_renewed", path=path, detail=why)
        except Exception as error:  # noqa: BLE001 - it is noted, and the next look begins anew
            faults.note("renewal", error)
        else:
            log.info("certificate.renewed", path=path)
    return left.total_seconds()


async def _renew(
    credentials: FleetCredentials, own: x509.Certificate, registries: Sequence[str]
) -> None:
    """Replaces the file of the certificate.

    Raises:
        FleetError: no registry gives one.
        ValueError: key or answer is not what it should be.
        OSError: the file cannot be written.
    """
    request = await asyncio.to_thread(_request, credentials.settings)
    fresh = await _asked_for(credentials, request, registries)
    await asyncio.to_thread(_take, credentials.settings, own, fresh)


def _request(settings: FleetSettings) -> bytes:
    key = serialization.load_pem_private_key(pathlib.Path(settings.key).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{settings.key} is no key of an elliptic curve")  # noqa: TRY004
    return request_for(key)


def _take(settings: FleetSettings, own: x509.Certificate, fresh: bytes) -> None:
    read = x509.load_pem_x509_certificate(fresh)
    if read.public_key() != own.public_key() or set(dns_names(read)) != set(dns_names(own)):
        raise ValueError("the registry's answer is another one's certificate")
    path = pathlib.Path(settings.certificate)
    write_whole(path, fresh, mode=path.stat().st_mode & 0o777)


async def _asked_for(
    credentials: FleetCredentials, request: bytes, registries: Sequence[str]
) -> bytes:
    """The answer of the registry that leads; a stand-by says which one does."""
    asked = registry.RenewCertificateRequest(certificate_request=request)
    waiting, tried = list(registries), set[str]()
    refused = FleetError(Reason.REGISTRY_UNAVAILABLE, "No registry was named.")
    while waiting:
        address = waiting.pop(0)
        if address in tried:
            continue
        tried.add(address)
        try:
            async with open_channel(address, credentials) as channel:
                call = RegistryServiceStub(channel).RenewCertificate(asked, timeout=_ANSWER_SECONDS)
                answer = await unary(call, unavailable=Reason.REGISTRY_UNAVAILABLE)
                return bytes(answer.certificate)
        except FleetError as error:
            refused = error
            if leader := error.facts.get("leader_address"):
                waiting.insert(0, leader)
    raise refused
