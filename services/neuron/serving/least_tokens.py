"""Refuses a text that is too long for certain, by its length alone, before it is tokenised.

Writing a prompt of megabytes and sending it to a worker takes each process some tenths of a second.
"""

from __future__ import annotations

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import context_too_long
from services.backplane.rpc.written_text import chat_characters
from services.neuron.engine_api.model import ModelInfo


def refuse_endless_chat(info: ModelInfo, chat: conversation.Chat, most_tokens: int) -> None:
    """Refuses a chat whose texts have more than `most_tokens` whatever the template does.

    Raises:
        FleetError: CONTEXT_TOO_LONG.
    """
    _refuse(info, chat_characters(chat), most_tokens)


def refuse_endless_text(info: ModelInfo, text: str, most_tokens: int) -> None:
    """Refuses a text that has more than `most_tokens`.

    Raises:
        FleetError: CONTEXT_TOO_LONG.
    """
    _refuse(info, len(text), most_tokens)


def _refuse(info: ModelInfo, characters: int, most_tokens: int) -> None:
    if not info.longest_token:  # nothing is certain
        return
    # a character is at least one byte
    least = characters // info.longest_token
    if least > most_tokens:
        raise context_too_long(
            prompt_tokens=least, max_tokens=info.max_context_tokens, is_minimum=True
        )
