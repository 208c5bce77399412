"""What a certificate says: whose it is, and its serial number as lists of revoked ones have it."""

from __future__ import annotations

import functools
import re
from typing import Final

from cryptography import x509

from services.backplane.security.roles import Peer, peer_of

# RFC 5280 allows 20 octets.
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")


def dns_names(certificate: x509.Certificate | x509.CertificateSigningRequest) -> tuple[str, ...]:
    """The DNS names of a certificate, or of a request for one; none without that extension."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


def serial_of(certificate: x509.Certificate) -> str:
    """The certificate's serial number in hex, in lower case and without leading zeros."""
    return f"{certificate.serial_number:x}"


def read_serial(text: str) -> str:
    """A serial number as `serial_of` writes it, from what people and other tools write.

    Raises:
        ValueError: it is none.
    """
    word = text.strip().lower().removeprefix("serial=").strip()
    serial = word.removeprefix("0x").replace(":", "").lstrip("0")
    if not _SERIAL.fullmatch(serial):
        raise ValueError(f"{text!r} is no serial number in hex")
    return serial


@functools.lru_cache(maxsize=1024)
def peer_in(certificate: bytes) -> Peer:
    """Who a certificate in PEM says its holder is; whoever passes it on has verified it.

    Args:
        certificate: empty, as a caller without one shows it, says nothing.
    """
    if not certificate:
        return Peer(frozenset())
    read = x509.load_pem_x509_certificate(certificate)
    return peer_of(dns_names(read), serial_of(read))
