"""Signatures of thinking blocks: what lets a thought that was not shown come back.

Clients echo thinking blocks unread, signature included. Where the display is `omitted` the text is
empty and the signature carries the thought, compressed; the next turn's prompt is then the very one
that the cache holds. Where it is shown, the signature is a short digest.
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
    """A signature of the thought; it holds the thought itself where `carry` is set."""
    if not carry:
        return _DIGEST + hashlib.blake2b(thought.encode(), digest_size=16).hexdigest()
    return _MARK + base64.b64encode(zlib.compress(thought.encode())).decode()


def thought_in(signature: str) -> str | None:
    """The thought that a signature carries; None for a signature of somebody else's."""
    if not signature.startswith(_MARK):
        return None
    try:
        packed = base64.b64decode(signature.removeprefix(_MARK), validate=True)
        unpacker = zlib.decompressobj()
        return unpacker.decompress(packed, _LONGEST).decode()
    except (binascii.Error, zlib.error, ValueError):
        return None
