"""The body of a responses request, as clients write it.

Input items stay plain JSON at first: they are stored as they came, and each is read tolerantly.
Source: OpenAI API reference, responses/create; the Open Responses specification.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from services.gateway.dialects.common.json_body import BodyReader, FieldRules
from services.gateway.dialects.common.sampling import UNKNOWN_SAMPLERS, Count, SamplingFields


class TextFormat(msgspec.Struct):
    """`text.format`."""

    type: str
    name: str | None = None
    schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    strict: bool | None = None
    description: str | None = None


class TextConfig(msgspec.Struct):
    """`text`."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningConfig(msgspec.Struct):
    """`reasoning`."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_obfuscation: bool | None = None


class PromptFields(SamplingFields, kw_only=True):
    """What counting and generating have in common."""

    model: str
    input: str | list[dict[str, Any]] | None = None
    instructions: str | list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    truncation: str | None = None
    conversation: Any = None


class ResponsesRequest(PromptFields, kw_only=True, forbid_unknown_fields=True):
    """The whole body."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    prompt: Any = None


class InputTokensRequest(PromptFields, kw_only=True, forbid_unknown_fields=True):
    """The whole body of a token count."""


class Part(msgspec.Struct):
    """One piece of an item's content; which field counts depends on `type`."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    file_data: str | None = None
    filename: str | None = None


class Item(msgspec.Struct):
    """One input item. A bare `{role, content}` is a message."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: Any = None
    name: str | None = None
    call_id: str | None = None
    arguments: Any = None
    input: Any = None
    action: Any = None
    operation: Any = None
    output: Any = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None


def _unknown(name: str) -> str:
    return f"Unknown parameter: '{name}'."


_IGNORED: Final = frozenset(
    {
        "access_programs", "background_options", "client_metadata", "context_management",
        "image", "moderation", "prompt_cache_options", "request_id", "keep_alive",
        "cache_prompt", "priority",
    }
)  # fmt: skip

READER: Final = BodyReader(
    ResponsesRequest, FieldRules(ignored=_IGNORED, refused=UNKNOWN_SAMPLERS, unknown=_unknown)
)
COUNT: Final = BodyReader(
    InputTokensRequest,
    FieldRules(
        ignored=_IGNORED | {"personality"} | frozenset(ResponsesRequest.__struct_fields__),
        unknown=_unknown,
    ),
)
