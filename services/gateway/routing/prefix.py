"""What of a prompt has been read before: digests of its beginnings, made without any template.

A digest covers everything before it and who asks, so that equal digests mean equal beginnings of
prompts of one principal, and one principal's digests say nothing of another's prompts.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Final, Protocol

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation

DIGEST_BYTES: Final = 16
MOST_DIGESTS: Final = 64
"""Of one prompt: the first, and the last of its others."""
_END_BYTES: Final = 256 << 10
_BIG_BYTES: Final = 1 << 20
"""Of a message above this (pictures) only the length and both ends count: nobody waits for more."""
_BLOCK_CHARACTERS: Final = 4096
_BLOCK_IDS: Final = 1024
_BYTES_PER_ID: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Trail:
    """Digests of a prompt's beginnings.

    Attributes:
        turns: the shortest first; the last covers the whole prompt.
        head: of what comes before the first user turn: tools, template variables, system turns.
            Empty where there is none.
        size_bytes: of the whole prompt, as far as it is text.
        whose: who asks which model.
    """

    turns: list[bytes] = dataclasses.field(default_factory=list[bytes])
    head: bytes = b""
    size_bytes: int = 0
    whose: str = ""

    def marks(self) -> generation.PrefixMarks:
        """The digests that travel with the request, for the neuron to report that it holds them."""
        whole = self.turns[-1] if self.turns else b""
        return generation.PrefixMarks(head=self.head, whole=whole)


class _Running(Protocol):
    """A digest that is being made."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


NO_TRAIL: Final = Trail()
"""Of a request without a conversation."""


class TrailOfRequest:
    """The trail of a request, made when it is first needed and kept.

    Attributes:
        made: the trail; None before.
    """

    __slots__ = ("_request", "made")

    def __init__(self, request: generation.GenerateRequest) -> None:
        self._request = request
        self.made: Trail | None = None

    def __call__(self, model: str) -> Trail:
        """The trail for a model, by its own name; a request has one model."""
        if self.made is None:
            self.made = trail_of(self._request, model)
        return self.made


def trail_of(request: generation.GenerateRequest, model: str) -> Trail:
    """Digests of the beginnings by which a conversation is found again.

    1. Of a chat: each turn from the first user turn on. What comes before (tools, system turns)
       many conversations share: it is part of all digests, and its own is apart from theirs. The
       order of tools counts for nothing here.
    2. Of text and tokens, which have no turns: each whole block, and the whole. The first half has
       none, because many prompts may share it.

    Args:
        request: canonical, as a dialect's decoder has made it.
        model: the model's own name.
    """
    # SHA-256, for which processors have instructions: the digest that takes them least time.
    running = hashlib.sha256(usedforsecurity=False)
    whose = f"{len(request.principal)}:{request.principal}{model}\0"
    running.update(whose.encode())
    kind = request.WhichOneof("prompt")
    if kind == "chat":
        return _of_chat(request.chat, running, whose)
    blocks = list(_blocks(request, kind))
    turns: list[bytes] = []
    for number, block in enumerate(blocks, 1):
        running.update(block)
        if number * 2 > len(blocks) and (not turns or _is_told(number, of=len(blocks))):
            turns.append(running.digest()[:DIGEST_BYTES])
    ids = len(request.token_ids.ids) if kind == "token_ids" else 0
    size = ids * _BYTES_PER_ID or sum(map(len, blocks))
    return Trail(turns, size_bytes=size, whose=whose)


def _of_chat(chat: conversation.Chat, running: _Running, whose: str) -> Trail:
    running.update(chat.template_variables_json.encode())
    size = 0
    for tool in sorted(tool.SerializeToString() for tool in chat.tools):
        size += len(tool)
        running.update(b"%d:" % len(tool))
        running.update(tool)
    turns: list[bytes] = []
    head = b""
    is_begun = False
    for number, message in enumerate(chat.messages, 1):
        if not is_begun and message.role == conversation.ROLE_USER:
            is_begun = True
            head = running.digest()[:DIGEST_BYTES] if size else b""
        told = message.SerializeToString()  # without maps: equal messages are equal bytes
        running.update(b"%d;" % len(told))
        if len(told) > _BIG_BYTES:
            told = told[:_END_BYTES] + told[-_END_BYTES:]
        size += len(told)
        running.update(told)
        if is_begun and (not turns or _is_told(number, of=len(chat.messages))):
            turns.append(running.digest()[:DIGEST_BYTES])
    return Trail(turns or [running.digest()[:DIGEST_BYTES]], head, size, whose)


def _is_told(number: int, *, of: int) -> bool:
    """Whether a piece is one of the last; beside them only the first one has a digest."""
    return number > of - (MOST_DIGESTS - 1)


def _blocks(request: generation.GenerateRequest, kind: str | None) -> Iterator[bytes]:
    if kind == "text":
        text = request.text
        for start in range(0, len(text) or 1, _BLOCK_CHARACTERS):
            yield text[start : start + _BLOCK_CHARACTERS].encode("utf-8", "replace")
        return
    ids = request.token_ids.ids
    for start in range(0, len(ids) or 1, _BLOCK_IDS):
        yield repr(ids[start : start + _BLOCK_IDS]).encode()
