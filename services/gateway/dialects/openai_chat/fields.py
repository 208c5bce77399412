"""The body of a chat completion request, as clients write it.

Source: OpenAI API reference, chat/create; vLLM's and llama.cpp's extra fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from services.gateway.dialects.common.json_body import BodyReader, FieldRules
from services.gateway.dialects.common.sampling import UNKNOWN_SAMPLERS, Count, SamplingFields

MAX_CHOICES: Final = 128


class ImageUrl(msgspec.Struct):
    """Where a picture lies."""

    url: str
    detail: str | None = None


class ContentPart(msgspec.Struct):
    """One piece of a message's content; which field counts depends on `type`."""

    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None
    refusal: str | None = None
    thinking: str | None = None


class CalledFunction(msgspec.Struct):
    """Name and arguments of a call in the history. Some clients send arguments as an object."""

    name: str = ""
    arguments: str | dict[str, Any] | None = None


class CalledTool(msgspec.Struct):
    """A call in the history."""

    function: CalledFunction
    id: str | None = None
    type: str | None = None


class ChatMessage(msgspec.Struct):
    """One message; which fields count depends on `role`."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    prefix: bool | None = None


class Function(msgspec.Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    strict: bool | None = None


class ToolDefinition(msgspec.Struct):
    """A tool; only functions can be called here."""

    type: str = "function"
    function: Function | None = None


class NamedFunction(msgspec.Struct):
    """A function chosen by name."""

    name: str


class AllowedTools(msgspec.Struct):
    """A choice among some of the tools."""

    mode: str
    tools: list[ToolReference]


class ToolReference(msgspec.Struct):
    """One of the tools, by name."""

    type: str = "function"
    function: NamedFunction | None = None


class ChosenTool(msgspec.Struct):
    """`tool_choice` as an object."""

    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(msgspec.Struct):
    """`response_format.json_schema`."""

    name: str = ""
    schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct):
    """`response_format`; some servers take the schema one level up."""

    type: str
    json_schema: JsonSchema | None = None
    schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class StructuredOutputs(msgspec.Struct):
    """vLLM's constraint."""

    json: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class StreamOptions(msgspec.Struct):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class ReasoningWishes(msgspec.Struct):
    """OpenRouter's `reasoning`."""

    effort: str | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    enabled: bool | None = None


class Thinking(msgspec.Struct):
    """`thinking` as DeepSeek, GLM and Kimi take it."""

    type: str
    budget_tokens: Annotated[int, Meta(ge=0)] | None = None


class ChatRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """The whole body."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stop: str | list[str] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: str | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: str | NamedFunction | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    reasoning: ReasoningWishes | None = None
    thinking: Thinking | None = None
    enable_thinking: bool | None = None
    thinking_budget: Annotated[int, Meta(ge=0)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    guided_json: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    guided_regex: str | None = None
    guided_grammar: str | None = None
    guided_choice: list[str] | None = None
    structured_outputs: StructuredOutputs | None = None
    service_tier: str | None = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None


RULES: Final = FieldRules(
    ignored=frozenset(
        {
            # The real API's own.
            "metadata", "moderation", "prediction", "prompt_cache_key", "prompt_cache_options",
            "prompt_cache_retention", "safety_identifier", "store", "user", "verbosity",
            # Other servers' fields that change no token.
            "add_generation_prompt", "add_special_tokens", "cache_prompt", "cache_salt", "chat_id",
            "conversation_id", "custom_llm_provider",
            "echo", "id_slot", "include_reasoning", "keep_alive", "kv_transfer_params",
            "preserve_thinking", "parse_tool_calls",
            "priority", "provider", "reasoning_format", "reasoning_split",
            "request_id", "return_progress", "return_token_ids", "return_tokens",
            "return_tokens_as_token_ids", "rid",
            "separate_reasoning", "session_id", "skip_special_tokens", "slot_id",
            "spaces_between_special_tokens", "stream_reasoning", "tags", "timings_per_token",
            "transforms", "ttl", "usage",
        }
    ),
    refused=UNKNOWN_SAMPLERS,
)  # fmt: skip

READER: Final = BodyReader(ChatRequest, RULES)
