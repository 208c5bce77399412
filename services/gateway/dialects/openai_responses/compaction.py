"""`/v1/responses/compact`: the model summarises a conversation.

The summary is returned as one opaque item; a later request sends it in place of what came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from typing_extensions import override

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body, signature, turns
from services.gateway.dialects.common.json_body import BodyReader, FieldRules, bad
from services.gateway.dialects.dialect import (
    BodyTable,
    Collected,
    DecodedRequest,
    Dialect,
    Head,
    Projector,
)
from services.gateway.dialects.openai_responses.decode import fill_chat
from services.gateway.dialects.openai_responses.encode import to_json
from services.gateway.dialects.openai_responses.fields import PromptFields
from services.gateway.dialects.openai_responses.resource import usage_object
from services.gateway.dialects.openai_responses.store.history import History

_ORDER: Final = (
    "Summarise this conversation so that it can go on from the summary alone: what was asked,"
    " what was decided and done, names and facts that matter, and what is still to do."
    " Answer with the summary and nothing else."
)
# Of the summary; a compaction that is no shorter than what it replaces helps nobody.
_MAX_TOKENS: Final = 1024


class CompactRequest(PromptFields, kw_only=True, forbid_unknown_fields=True):
    """The whole body."""

    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None


READER: Final = BodyReader(
    CompactRequest,
    FieldRules(
        ignored=frozenset(
            {
                "metadata", "user", "store", "service_tier", "safety_identifier", "include",
                "prompt_cache_options",
            }
        ),
        refused={},
    ),
)  # fmt: skip


class CompactionAnswer(msgspec.Struct):
    """The fields of the answer."""

    id: str
    object: str
    created_at: int
    output: list[dict[str, str]]
    usage: dict[str, Any]


class Compaction(Dialect):
    """OpenAI Responses, compaction. Never streamed."""

    name: str = "openai_responses_compact"
    reads: BodyTable | None = READER
    answers: type[Any] | None = CompactionAnswer
    content_type: bytes = b"application/json"

    def __init__(self, history: History) -> None:
        self._history = history

    @override
    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        wire: CompactRequest = READER.read(body)
        if not wire.model:
            raise bad("model", "must not be empty.")
        request = generation.GenerateRequest(request_id=head.request_id)
        chat = request.chat
        fill_chat(wire, chat, history=self._history, head=head)
        chat.ClearField("tools")
        chat.tool_choice.none.SetInParent()
        turns.write_turn(turns.Turn(conversation.ROLE_USER, [turns.Text(_ORDER)]), chat)
        request.stop.max_tokens = _MAX_TOKENS
        return DecodedRequest(model=wire.model, stream=False, requests=[request])

    @override
    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        """Not reached: `decode` never asks for a stream."""
        raise NotImplementedError

    @override
    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        """The compacted conversation: one item."""
        summary = choices[0].text().strip()
        item: dict[str, Any] = {
            "id": f"cmp_{head.request_id}",
            "type": "compaction",
            "encrypted_content": signature.sign(summary, carry=True),
        }
        return to_json(
            {
                "id": f"resp_{head.request_id}",
                "object": "response.compaction",
                "created_at": head.created_unix_seconds,
                "output": [item],
                "usage": usage_object(choices[0].finished.usage),
            }
        )

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return openai_body.envelope(error)
