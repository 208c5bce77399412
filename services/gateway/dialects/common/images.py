"""Pictures in requests: decoded from base64 or `data:` URLs, never fetched."""

from __future__ import annotations

import binascii
from typing import Final

from services.gateway.dialects.common.json_body import bad, unsupported
from services.gateway.dialects.common.slices import rest
from services.gateway.dialects.common.turns import Picture

_SIGNATURES: Final = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
_MIME_TYPES: Final = frozenset(kind for _, kind in _SIGNATURES)
# Whole groups of four.
_HEAD_CHARACTERS: Final = 64


def from_url(url: str, path: str) -> Picture:
    """Decodes a `data:` URL (RFC 2397).

    Raises:
        FleetError: UNSUPPORTED_FIELD for a URL that would have to be fetched, BAD_REQUEST for a
            broken one.
    """
    if not url[:5].lower() == "data:":
        raise unsupported(
            path, "pictures are not fetched from URLs; send a base64 data: URL instead."
        )
    head, comma, data = url[5:].partition(",")
    mime_type, *parameters = head.split(";")
    if not comma or "base64" not in parameters:
        raise bad(path, "Expected data:<media type>;base64,<data>.")
    return from_base64(data, mime_type, path)


def from_base64(data: str, mime_type: str, path: str) -> Picture:
    """Decodes a picture in base64.

    Raises:
        FleetError: BAD_REQUEST for broken base64, nothing at all, or what is no picture.
    """
    kind = mime_type.strip().lower().replace("image/jpg", "image/jpeg")
    if kind not in _MIME_TYPES:
        raise bad(path, f"the media type must be one of {', '.join(sorted(_MIME_TYPES))}.")
    if not data:
        raise bad(path, "the picture is empty.")
    if not kind_of(_bytes_of(data[:_HEAD_CHARACTERS], path)):  # before megabytes are decoded
        raise bad(path, f"the data is none of {', '.join(sorted(_MIME_TYPES))}.")
    decoded = _bytes_of(data, path)
    rest()
    return Picture(decoded, kind)


def kind_of(head: bytes) -> str:
    """The media type of a picture by its first bytes; empty where it is none of the four."""
    return next((kind for start, kind in _SIGNATURES if head.startswith(start)), "")


def _bytes_of(data: str, path: str) -> bytes:
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except ValueError:  # `binascii.Error` is one
        raise bad(path, "the data is not valid base64.") from None
