"""What tests look at in a canonical conversation."""

from __future__ import annotations

from typing import Any

from cortex.v1 import conversation_pb2 as conversation

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


def parts(message: conversation.Message) -> list[tuple[str | None, Any]]:
    kinds = [part.WhichOneof("kind") for part in message.parts]
    return [
        (kind, getattr(part, kind)) for kind, part in zip(kinds, message.parts, strict=True) if kind
    ]
