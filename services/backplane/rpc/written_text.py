"""Lower bounds on the text of a request's prompt, whatever the model's template does with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation

# Their text every template writes out; of earlier answers some leave the reasoning away.
_ALWAYS_WRITTEN: Final = (conversation.ROLE_SYSTEM, conversation.ROLE_USER, conversation.ROLE_TOOL)
_ENDS: Final = 4096
_MOST_COUNTED: Final = 1 << 20


def most_counted(context_tokens: int) -> int:
    """How many tokens of a too long prompt are counted for its error message.

    Clients shorten a prompt by the count in the error, which is of no use for one far too long; and
    a tokeniser takes a second for a quarter of a million tokens.

    Clients shorten a prompt by the count in the error; one so much too long nobody can shorten.

    A tokeniser takes a second for a quarter of a million tokens.
    """
    return max(_MOST_COUNTED, 4 * context_tokens)


def written_characters(request: generation.GenerateRequest) -> int:
    """Lower bound on the characters of a request's prompt; 0 for a prompt of token ids."""
    if request.WhichOneof("prompt") == "chat":
        return chat_characters(request.chat)
    return len(request.text)


def chat_characters(chat: conversation.Chat) -> int:
    """Lower bound on the characters of a chat's prompt: its texts, trimmed as templates do."""
    return sum(map(_trimmed, _written(chat)))


def _trimmed(text: str) -> int:
    """Characters of a text without white space at its ends; a large one is not copied for it."""
    if len(text) <= 2 * _ENDS:
        return len(text.strip())
    head, tail = text[:_ENDS].lstrip(), text[-_ENDS:].rstrip()
    return len(text) - 2 * _ENDS + len(head) + len(tail) if head and tail else len(text.strip())


def _written(chat: conversation.Chat) -> Iterator[str]:
    for message in chat.messages:
        if message.role not in _ALWAYS_WRITTEN:
            continue
        for part in message.parts:
            yield part.text
            for each in part.tool_result.parts:
                yield each.text
