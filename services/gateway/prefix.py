"""The beginning of a prompt, for sending a conversation back to the cache that knows it."""

from __future__ import annotations

import hashlib
from typing import Final

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation

_FIRST_CHARACTERS: Final = 2048


def prompt_prefix(request: generation.GenerateRequest) -> bytes:
    """A digest of what every turn of one conversation begins with.

    System turns and the first user turn: later turns change, these stay.
    """
    kind = request.WhichOneof("prompt")
    if kind == "chat":
        beginning = _chat_beginning(request.chat)
    elif kind == "text":
        beginning = request.text[:_FIRST_CHARACTERS]
    else:
        beginning = repr(request.token_ids.ids[:256])
    return hashlib.blake2b(beginning.encode("utf-8", "replace"), digest_size=16).digest()


def _chat_beginning(chat: conversation.Chat) -> str:
    pieces: list[str] = []
    for message in chat.messages:
        pieces += [part.text for part in message.parts]
        if message.role == conversation.ROLE_USER:
            break
    return "\x1e".join(pieces)[: _FIRST_CHARACTERS * 4]
