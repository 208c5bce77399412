"""The fleet's certificate authority: a folder with its key, and the certificates that it signs.

Certificates follow RFC 5280; what their names mean is in services/backplane/security/roles.py.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.backplane.security.certificate_request import key_of
from services.backplane.security.certificates import dns_names, read_serial, serial_of
from services.backplane.security.key_files import new_key, pem_of_key, write_whole
from services.backplane.security.roles import Role, names_of

CA_CERTIFICATE: Final = "ca.pem"
CA_KEY: Final = "ca.key"
REVOKED: Final = "revoked"
_CA_YEARS: Final = 10
# A clock that is behind must not make a new certificate unusable.
_LEEWAY: Final = dt.timedelta(minutes=5)


class AuthorityError(Exception):
    """Something about the folder or a certificate cannot be done; the message is for people."""


@dataclasses.dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, in PEM."""

    certificate: pathlib.Path
    key: pathlib.Path


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says.

    Attributes:
        serial: in hex.
        fingerprint: SHA-256 in hex.
    """

    names: tuple[str, ...]
    serial: str
    until: dt.datetime
    fingerprint: str


def create(folder: pathlib.Path) -> CertificateFacts:
    """Makes an authority in a folder that has none.

    Raises:
        AuthorityError: there is one already, or the folder cannot be written.
    """
    if (folder / CA_KEY).exists():
        raise AuthorityError(f"{folder / CA_KEY} exists: an authority is never replaced in silence")
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cortex fleet")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(now + dt.timedelta(days=365 * _CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(folder / CA_KEY, pem_of_key(key), mode=0o600)
        write_whole(folder / CA_CERTIFICATE, _pem(certificate), mode=0o644)
    except OSError as error:
        raise AuthorityError(f"{folder}: cannot be written: {error.strerror}") from error
    return _facts(certificate)


def issue(
    folder: pathlib.Path,
    roles: Sequence[Role],
    *,
    neuron: str = "",
    out: pathlib.Path,
    days: int,
) -> Issued:
    """Signs a new key for a host or a person. Files that are there are replaced as wholes.

    Args:
        folder: of the authority.
        roles: what the holder is.
        neuron: the neuron's name, where one of them is a neuron's.
        out: the files are OUT.pem and OUT.key.
        days: how long it is good.

    Raises:
        AuthorityError: there is no authority, the name cannot be used, or a file not written.
    """
    names = _names(roles, neuron)
    key = new_key()
    certificate = _signed(folder, key.public_key(), names, dt.timedelta(days=days))
    issued = Issued(pathlib.Path(f"{out}.pem"), pathlib.Path(f"{out}.key"))
    try:
        write_whole(issued.key, pem_of_key(key), mode=0o600)
        write_whole(issued.certificate, _pem(certificate), mode=0o644)
    except OSError as error:
        raise AuthorityError(f"{out}: cannot be written: {error.strerror}") from error
    return issued


def sign(
    folder: pathlib.Path, request: bytes, roles: Sequence[Role], *, neuron: str = "", seconds: float
) -> bytes:
    """Signs the key of a host that keeps it to itself; returns the certificate in PEM.

    Args:
        folder: of the authority.
        request: PKCS #10 in PEM; any names in it have to be the holder's.
        roles: what the holder is.
        neuron: the neuron's name, where one of them is a neuron's.
        seconds: how long it is good.

    Raises:
        BadRequestError: it is no such request, or asks for something else.
        AuthorityError: there is no authority, or the name cannot be used.
    """
    names = _names(roles, neuron)
    public_key = key_of(request, names)
    certificate = _signed(folder, public_key, names, dt.timedelta(seconds=seconds))
    return _pem(certificate)


def certificate_of(folder: pathlib.Path) -> bytes:
    """The authority's own certificate in PEM, if its key is there too.

    Raises:
        AuthorityError: the folder holds no authority.
    """
    return _pem(_authority(folder)[0])


def revoke(folder: pathlib.Path, certificate: str) -> str:
    """Puts a certificate on the authority's list; returns its serial number.

    Args:
        folder: of the authority.
        certificate: a file, or a serial number in hex.

    Raises:
        AuthorityError: it is neither.
    """
    if pathlib.Path(certificate).is_file():
        serial = show(pathlib.Path(certificate)).serial
    else:
        try:
            serial = read_serial(certificate)
        except ValueError as error:
            message = f"{certificate!r} is neither a file nor a serial number in hex"
            raise AuthorityError(message) from error
    path = folder / REVOKED
    known = path.read_text().splitlines() if path.exists() else []
    if serial not in known:
        write_whole(path, "".join(f"{line}\n" for line in [*known, serial]).encode(), mode=0o644)
    return serial


def show(path: pathlib.Path) -> CertificateFacts:
    """What a certificate in PEM says.

    Raises:
        AuthorityError: it cannot be read.
    """
    try:
        return _facts(x509.load_pem_x509_certificate(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise AuthorityError(f"{path}: cannot be read: {error}") from error


def _names(roles: Sequence[Role], neuron: str) -> list[str]:
    try:
        return [name for role in roles for name in names_of(role, neuron=neuron)]
    except ValueError as error:
        raise AuthorityError(str(error)) from error


def _signed(
    folder: pathlib.Path,
    public_key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    life: dt.timedelta,
) -> x509.Certificate:
    authority, signing_key = _authority(folder)
    now = dt.datetime.now(dt.UTC)
    # for people, in lists
    label = "+".join(name.partition(".")[0] for name in names if name != Role.NEURON.server_name)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label[:64])]))
        .issuer_name(authority.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(min(now + life, authority.not_valid_after_utc))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
        .sign(signing_key, hashes.SHA256())
    )


def _authority(folder: pathlib.Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / CA_CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise AuthorityError(
            f"{folder} holds no authority ({error}); `cortex pki init` makes one"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{folder / CA_KEY} is no key of an elliptic curve")
    return certificate, key


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    return CertificateFacts(
        names=dns_names(certificate),
        serial=serial_of(certificate),
        until=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
