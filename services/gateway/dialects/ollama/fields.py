"""Bodies of the Ollama API, as clients write them. Unknown fields are passed over, as there.

Source: Ollama's api.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from services.gateway.dialects.common.json_body import BodyReader, FieldRules, unsupported
from services.gateway.dialects.common.sampling import UNKNOWN_SAMPLERS


class CalledFunction(msgspec.Struct):
    """Name and arguments of a call in the history."""

    name: str
    arguments: Any = None


class CalledTool(msgspec.Struct):
    """A call in the history."""

    function: CalledFunction
    id: str | None = None


class ChatMessage(msgspec.Struct):
    """One turn."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[CalledTool] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Function(msgspec.Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class ToolDefinition(msgspec.Struct):
    """A tool."""

    function: Function
    type: str | None = None


class Options(msgspec.Struct):
    """`options`: how to sample. Those about hardware are the fleet's own business."""

    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0)] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    # negative: up to the window
    num_predict: Annotated[int, Meta(le=2**32 - 1)] | None = None


class RunFields(msgspec.Struct, kw_only=True):
    """What chat and generate have in common."""

    model: str
    stream: bool | None = None
    format: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class ChatRequest(RunFields, kw_only=True):
    """The body of /api/chat."""

    messages: list[ChatMessage] | None = None
    tools: list[ToolDefinition] | None = None


class GenerateRequest(RunFields, kw_only=True):
    """The body of /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    images: list[str] | None = None
    raw: bool | None = None
    context: Any = None


class EmbedRequest(msgspec.Struct, kw_only=True):
    """The body of /api/embed, and with `prompt` that of the older /api/embeddings."""

    model: str
    input: str | list[Any] | None = None
    prompt: str | None = None
    truncate: bool | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**32 - 1)] | None = None


class NameRequest(msgspec.Struct, kw_only=True):
    """The body of what only names a model."""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None

    def asked(self) -> str:
        """The model's name under either of its keys."""
        return self.model or self.name or ""


_NO_RULES: Final = FieldRules(ignored=frozenset())
CHAT: Final = BodyReader(ChatRequest, _NO_RULES)
GENERATE: Final = BodyReader(GenerateRequest, _NO_RULES)
EMBED: Final = BodyReader(EmbedRequest, _NO_RULES)
NAME: Final = BodyReader(NameRequest, _NO_RULES)


def refuse_unknown_samplers(options: dict[str, Any]) -> None:
    """Refuses sampling options that are on and that no engine here has.

    Raises:
        FleetError: UNSUPPORTED_FIELD.
    """
    for name, value in options.items():
        if name in UNKNOWN_SAMPLERS and name != "repeat_last_n":
            off = UNKNOWN_SAMPLERS[name]
            companion = name.startswith("mirostat_") and not options.get("mirostat")
            if value is not None and value not in off and not companion:
                raise unsupported(
                    f"options.{name}", "no engine of this fleet has this sampling field."
                )
