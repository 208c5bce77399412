"""The fleet's certificate authority: a folder with its key, and the certificates that it signs.

Certificates follow RFC 5280; what their names mean is in services/backplane/security/roles.py.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import pathlib
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.backplane.security.certificates import dns_names, read_serial, serial_of
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
    key = ec.generate_private_key(ec.SECP256R1())
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
        _write(folder / CA_KEY, _pem_of(key), mode=0o600)
        _write(folder / CA_CERTIFICATE, _pem(certificate), mode=0o644)
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
    authority, signing_key = _authority(folder)
    try:
        names = [name for role in roles for name in names_of(role, neuron=neuron)]
    except ValueError as error:
        raise AuthorityError(str(error)) from error
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    until = min(now + dt.timedelta(days=days), authority.not_valid_after_utc)
    label = neuron or "+".join(role.value for role in roles)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label[:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(until)
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
    issued = Issued(pathlib.Path(f"{out}.pem"), pathlib.Path(f"{out}.key"))
    try:
        _write(issued.key, _pem_of(key), mode=0o600)
        _write(issued.certificate, _pem(certificate), mode=0o644)
    except OSError as error:
        raise AuthorityError(f"{out}: cannot be written: {error.strerror}") from error
    return issued


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
        _write(path, "".join(f"{line}\n" for line in [*known, serial]).encode(), mode=0o644)
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


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: pathlib.Path, data: bytes, *, mode: int) -> None:
    """Writes a file as a whole, so that a service that reads it never finds half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
