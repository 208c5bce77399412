"""What of a prompt has been read before: digests of its beginnings, made without any template.

A digest covers everything before it and who asks, so that equal digests mean equal beginnings of
prompts of one principal, and one principal's digests say nothing of another's prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, TypeAlias

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation

Trail: TypeAlias = list[bytes]
"""The digests of a prompt's beginnings, the shortest first; the last covers it all."""

DIGEST_BYTES: Final = 16
MOST_DIGESTS: Final = 64
"""Of one prompt: the first, and the last of its others."""
_END_BYTES: Final = 256 << 10
_BIG_BYTES: Final = 1 << 20
"""Of a message above this (pictures) only the length and both ends count: nobody waits for more."""
_BLOCK_CHARACTERS: Final = 4096
_BLOCK_IDS: Final = 1024


def trail_of(request: generation.GenerateRequest, model: str) -> Trail:
    """Digests of the beginnings by which a conversation is found again.

    1. Of a chat: each turn from the first user turn on. What comes before (tools, system turns)
       many conversations share: it is part of all digests and has none of its own. The order of
       tools counts for nothing here.
    2. Of text and tokens, which have no turns: each whole block, and the whole. The first half has
       none, because many prompts may share it.

    Args:
        request: canonical, as a dialect's decoder has made it.
        model: the model's own name.
    """
    running = hashlib.blake2b(digest_size=DIGEST_BYTES)
    running.update(f"{len(request.principal)}:{request.principal}{model}\0".encode())
    kind = request.WhichOneof("prompt")
    if kind == "chat":
        return _of_chat(request.chat, running)
    blocks = list(_blocks(request, kind))
    trail: Trail = []
    for number, block in enumerate(blocks, 1):
        running.update(block)
        if number * 2 > len(blocks):
            trail.append(running.digest())
    return _bounded(trail)


def _of_chat(chat: conversation.Chat, running: hashlib.blake2b) -> Trail:
    running.update(chat.template_variables_json.encode())
    for tool in sorted(tool.SerializeToString() for tool in chat.tools):
        running.update(b"%d:" % len(tool))
        running.update(tool)
    trail: Trail = []
    is_begun = False
    for message in chat.messages:
        told = message.SerializeToString()  # without maps: equal messages are equal bytes
        running.update(b"%d;" % len(told))
        if len(told) > _BIG_BYTES:
            told = told[:_END_BYTES] + told[-_END_BYTES:]
        running.update(told)
        is_begun = is_begun or message.role == conversation.ROLE_USER
        if is_begun:
            trail.append(running.digest())
    return _bounded(trail or [running.digest()])


def _bounded(trail: Trail) -> Trail:
    return trail if len(trail) <= MOST_DIGESTS else [trail[0], *trail[1 - MOST_DIGESTS :]]


def _blocks(request: generation.GenerateRequest, kind: str | None) -> Iterator[bytes]:
    if kind == "text":
        text = request.text
        for start in range(0, len(text) or 1, _BLOCK_CHARACTERS):
            yield text[start : start + _BLOCK_CHARACTERS].encode("utf-8", "replace")
        return
    ids = request.token_ids.ids
    for start in range(0, len(ids) or 1, _BLOCK_IDS):
        yield repr(ids[start : start + _BLOCK_IDS]).encode()
