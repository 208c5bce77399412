"""Pictures in requests: decoded from base64 or `data:` URLs, never fetched."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.common.json_body import bad, unsupported

_MIME_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def from_url(url: str, path: str) -> conversation.Image:
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


def from_base64(data: str, mime_type: str, path: str) -> conversation.Image:
    """Decodes a picture in base64.

    Raises:
        FleetError: BAD_REQUEST for broken base64, nothing at all, or a type that is no picture.
    """
    kind = mime_type.strip().lower().replace("image/jpg", "image/jpeg")
    if kind not in _MIME_TYPES:
        raise bad(path, f"the media type must be one of {', '.join(sorted(_MIME_TYPES))}.")
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise bad(path, "the data is not valid base64.") from None
    if not decoded:
        raise bad(path, "the picture is empty.")
    return conversation.Image(data=decoded, mime_type=kind)
