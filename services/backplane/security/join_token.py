"""What a new host is told so that it gets a certificate: whom to believe, and a secret.

`cortex-join.FINGERPRINT.SECRET`; the fingerprint is SHA-256 of the authority's certificate in DER.
A host shows the secret only to a server that this authority has signed for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import secrets
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

_FORM: Final = re.compile(r"cortex-join\.(?P<fingerprint>[0-9a-f]{64})\.(?P<secret>[\w-]{43})")
_SECRET_BYTES: Final = 32


@dataclasses.dataclass(frozen=True, slots=True)
class JoinToken:
    """A token that is good once.

    Attributes:
        fingerprint: of the fleet's authority, SHA-256 in hex.
        secret: what the registry knows the digest of.
    """

    fingerprint: str
    secret: str = dataclasses.field(repr=False)

    @classmethod
    def new(cls, authority: bytes) -> JoinToken:
        """A token of a fleet, by its authority's certificate in PEM."""
        return cls(fingerprint_of(authority), secrets.token_urlsafe(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Reads what `str` wrote.

        Raises:
            ValueError: it is none; the message does not repeat it.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise ValueError("this is no token as `cortex neurons token` prints it")
        return cls(found["fingerprint"], found["secret"])

    def __str__(self) -> str:
        return f"cortex-join.{self.fingerprint}.{self.secret}"


def digest_of(secret: str) -> str:
    """What is kept of a secret, which is too long to be guessed: SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate in PEM, in hex.

    Raises:
        ValueError: it is no certificate.
    """
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()
