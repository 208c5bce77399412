"""What a host asks the authority to sign: PKCS #10, read with suspicion."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# Those of TLS 1.2 and 1.3 that are not weak: with a key of another one nobody could connect.
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
# What the library raises for a request that it cannot read.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class BadRequestError(Exception):
    """A request for a certificate that is not granted; the message says why."""


def key_of(request: bytes, names: Collection[str]) -> ec.EllipticCurvePublicKey:
    """The key that a request is for.

    Args:
        request: PKCS #10 in PEM.
        names: the holder's; the request may ask for these and no others.

    Raises:
        BadRequestError: it is no such request, its key is not good, or it asks for more.
    """
    try:
        read = x509.load_pem_x509_csr(request)
        is_signed = read.is_signature_valid
        public_key = read.public_key()
        asked = _names_asked_for(read)
    except _UNREADABLE as error:
        raise BadRequestError(f"it is no PKCS #10 request in PEM: {error}") from error
    if not is_signed:
        raise BadRequestError("it is not signed by the key that it is for")
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise BadRequestError("its key is none of an elliptic curve")
    if not isinstance(public_key.curve, _CURVES):
        raise BadRequestError(f"its key is of {public_key.curve.name}, not of P-256, -384 or -521")
    if surplus := sorted(set(asked) - set(names)):
        raise BadRequestError(f"it asks for {', '.join(surplus)}, which its holder is not")
    return public_key


def key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key in DER, in hex: what people compare to tell keys apart."""
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def _names_asked_for(request: x509.CertificateSigningRequest) -> list[str]:
    """All names of a request, addresses and others too."""
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        name.value if isinstance(name, x509.DNSName) else f"{type(name).__name__} {name.value}"
        for name in names
    ]
