"""Signatures of thinking blocks, which may carry reasoning that the client is not shown.

Clients send thinking blocks back unread, with their signatures. Where the text is not shown
(`display: omitted`), the signature carries it, compressed, so that the next turn's prompt is the
one that is in the cache. Where it is shown, the signature is a short digest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from typing import Final

_MARK: Final = "cortex1."
_DIGEST: Final = "cortex1d."
_LONGEST: Final = 1 << 22


def sign(thought: str, *, carry: bool) -> str:
    """Signs reasoning; with `carry` the signature contains the text itself, compressed."""
    if not carry:
        return _DIGEST + hashlib.blake2b(thought.encode(), digest_size=16).hexdigest()
    return _MARK + base64.b64encode(zlib.compress(thought.encode())).decode()


def thought_in(signature: str) -> str | None:
    """The reasoning that a signature carries; None where it carries none of ours."""
    if not signature.startswith(_MARK):
        return None
    try:
        packed = base64.b64decode(signature.removeprefix(_MARK), validate=True)
        unpacker = zlib.decompressobj()
        return unpacker.decompress(packed, _LONGEST).decode()
    except (binascii.Error, zlib.error, ValueError):
        return None
