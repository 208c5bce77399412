"""The body of a messages request, as clients write it.

Source: Anthropic API reference, messages/create, with the beta fields that Claude Code sends.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from services.gateway.dialects.common.json_body import BodyReader, FieldRules
from services.gateway.dialects.common.sampling import UNKNOWN_SAMPLERS, Probability, Temperature


class Citations(msgspec.Struct):
    """Whether the answer is to cite a document or search result."""

    enabled: bool | None = None


class Source(msgspec.Struct):
    """Where a picture or document lies; which field counts depends on `type`."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[Block] | None = None


class Block(msgspec.Struct):
    """One content block; which fields count depends on `type`."""

    type: str
    text: str | None = None
    source: Source | str | None = None
    title: str | None = None
    context: str | None = None
    # of documents and search results; those of a text are a list, and of no use to a model
    citations: Citations | list[Any] | None = None
    # tool_use, and of other servers' calls
    id: str | None = None
    name: str | None = None
    input: Any = None
    server_name: str | None = None
    # tool_result; `content` is also that of search results and of other servers' results
    tool_use_id: str | None = None
    content: Any = None
    is_error: bool | None = None
    # thinking
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    # tool_reference, tool_addition, tool_removal
    tool_name: str | None = None
    tool: Any = None


class InputMessage(msgspec.Struct):
    """One turn. `system` comes in mid-list from Claude Code."""

    role: str
    content: str | list[Block]


class ToolDefinition(msgspec.Struct):
    """A tool: one of the caller's own, or one that the API defines (`bash_20250124`)."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    strict: bool | None = None
    input_examples: list[Any] | None = None
    allowed_callers: list[str] | None = None
    # computer
    display_width_px: int | None = None
    display_height_px: int | None = None
    display_number: int | None = None
    enable_zoom: bool | None = None


class ToolChoice(msgspec.Struct):
    """How tools may be used."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct):
    """Whether and how much to think, and whether the thoughts are shown."""

    type: str
    budget_tokens: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    display: str | None = None


class OutputFormat(msgspec.Struct):
    """The shape of the answer."""

    type: str
    schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class OutputConfig(msgspec.Struct):
    """Effort and shape."""

    effort: str | None = None
    format: OutputFormat | None = None
    task_budget: Any = None


class PromptFields(msgspec.Struct, kw_only=True):
    """What counting and generating have in common."""

    model: str
    messages: list[InputMessage]
    system: str | list[Block] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    mcp_servers: list[Any] | None = None
    context_management: Any = None


class MessagesRequest(PromptFields, kw_only=True, forbid_unknown_fields=True):
    """The whole body of a messages request."""

    # 0 fills the cache and generates nothing.
    max_tokens: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    service_tier: str | None = None
    metadata: Any = None
    cache_control: Any = None
    container: Any = None


class CountRequest(PromptFields, kw_only=True, forbid_unknown_fields=True):
    """The whole body of a token count."""


def _unknown(name: str) -> str:
    return f"{name}: Extra inputs are not permitted"


# Betas come with header and field; what steers no token is passed over.
_IGNORED: Final = frozenset(
    {
        "anthropic_version", "betas", "billing_policy", "cache_control", "compaction",
        "diagnostics", "fallback_credit_token", "fallbacks", "inference_geo", "metadata",
        "safeguards", "speed", "thread", "user_profile_id", "workspace_id",
    }
)  # fmt: skip

# Known to the fleet, but not in this dialect: refused rather than dropped, beta or not.
_ELSEWHERE: Final[dict[str, tuple[Any, ...]]] = dict.fromkeys(
    (
        "min_p", "typical_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
        "logit_bias", "seed",
    ),
    (),
)  # fmt: skip

RULES: Final = FieldRules(
    ignored=_IGNORED, refused={**UNKNOWN_SAMPLERS, **_ELSEWHERE}, unknown=_unknown
)

MESSAGES: Final = BodyReader(MessagesRequest, RULES)
# Counting takes the generation's fields too: clients send the same body to both.
COUNT: Final = BodyReader(
    CountRequest,
    FieldRules(ignored=_IGNORED | frozenset(MessagesRequest.__struct_fields__), unknown=_unknown),
)
