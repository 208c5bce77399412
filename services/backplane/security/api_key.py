"""The text of a key of the registry's store: `ctx_ID_SECRETSUM`.

    ctx_[0-9a-z]{10}_[0-9A-Za-z]{38}

The id is public. The secret is 32 letters and digits by chance, 190 bits. The last six characters
are a checksum of all before them: scanners of secrets, and the gateway, tell a key from what only
looks like one without asking anybody.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from typing import Final

FORM: Final = re.compile(
    r"ctx_(?P<id>[0-9a-z]{10})_(?P<secret>[0-9A-Za-z]{32})(?P<sum>[0-9A-Za-z]{6})"
)
PREFIX: Final = "ctx_"
_LETTERS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LETTERS: Final = string.digits + string.ascii_lowercase
_ID_LENGTH: Final = 10
_SECRET_LENGTH: Final = 32
_SUM_LENGTH: Final = 6


def new_id() -> str:
    """A random id; the caller checks that no other key has it."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))


def new_key(key_id: str) -> str:
    """The whole text of a new key with this id."""
    chosen = "".join(secrets.choice(_LETTERS) for _ in range(_SECRET_LENGTH))
    text = f"{PREFIX}{key_id}_{chosen}"
    return text + _checksum(text)


def id_in(text: str) -> str | None:
    """The id of a key; None for what is no key of this form, or was mistyped."""
    found = FORM.fullmatch(text)
    if found is None or _checksum(text[:-_SUM_LENGTH]) != found["sum"]:
        return None
    return found["id"]


def digest_of(text: str) -> bytes:
    """SHA-256 of a key's text: what is kept of it."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _checksum(text: str) -> str:
    """CRC-32 in base 62, as GitHub's tokens have it."""
    number = zlib.crc32(text.encode())
    digits: list[str] = []
    for _ in range(_SUM_LENGTH):
        number, rest = divmod(number, len(_LETTERS))
        digits.append(_LETTERS[rest])
    return "".join(reversed(digits))
