"""The Anthropic messages dialect."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import anthropic
from typing_extensions import override

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    ResultsTurn,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.core.model_options import ModelOptions
from services.agent.endpoints.endpoint import (
    CallDelta,
    CallStarted,
    Endpoint,
    EndpointError,
    EndpointModel,
    Finished,
    FinishReason,
    ModelRequest,
    StreamEvent,
    TextDelta,
    ThoughtDelta,
    ThoughtSealed,
    TokenUsage,
)
from services.agent.endpoints.failures import translated
from services.agent.endpoints.listing import model_info
from services.agent.endpoints.merging import merged, sampling

DIALECT = "anthropic-messages"
_DEFAULT_MAX_TOKENS = 8192  # the dialect demands a number
_STOPS = {
    "max_tokens": FinishReason.MAX_TOKENS,
    "model_context_window_exceeded": FinishReason.MAX_TOKENS,
    "refusal": FinishReason.REFUSAL,
}


class MessagesEndpoint(Endpoint):
    """Asks at `/v1/messages`; owns the client that it is given."""

    def __init__(self, *, name: str, client: anthropic.AsyncAnthropic) -> None:
        self._name = name
        self._client = client

    @override
    async def stream(self, ask: ModelRequest) -> AsyncGenerator[StreamEvent, None]:
        reading = _MessagesReader()
        with translated(self._name, anthropic) as exchange:
            stream = await self._client.messages.create(**request(ask))
            exchange.is_answered = True
            async with stream:
                async for event in stream:
                    for canonical in reading.events(event):
                        yield canonical
        yield reading.finished(self._name)

    @override
    async def models(self) -> list[EndpointModel]:
        with translated(self._name, anthropic):
            page = await self._client.models.list(limit=1000)
            return [model_info(model.id, model.model_extra) for model in page.data]

    @override
    async def close(self) -> None:
        await self._client.close()


class _MessagesReader:
    """Reads one stream; holds what it has said so far."""

    def __init__(self) -> None:
        self._stop: FinishReason | None = None
        self._usage = TokenUsage()
        self._thoughts: dict[int, str] = {}  # block index → signature so far
        self._calls: set[int] = set()

    def events(self, event: Any) -> Iterator[StreamEvent]:
        kind = event.type
        if kind == "message_start":
            self._usage = _usage(event.message.usage, self._usage)
        elif kind == "content_block_start":
            yield from self._block(event.index, event.content_block)
        elif kind == "content_block_delta":
            yield from self._delta(event.index, event.delta)
        elif kind == "content_block_stop" and event.index in self._thoughts:
            yield ThoughtSealed(self._thoughts.pop(event.index), DIALECT)
        elif kind == "message_delta":
            self._usage = _usage(event.usage, self._usage)
            if event.delta.stop_reason:
                self._stop = _STOPS.get(event.delta.stop_reason, FinishReason.END)

    def _block(self, index: int, block: Any) -> Iterator[StreamEvent]:
        if block.type == "tool_use":
            self._calls.add(index)
            yield CallStarted(index, block.id, block.name)
        elif block.type == "thinking":
            self._thoughts[index] = block.signature or ""
            if block.thinking:
                yield ThoughtDelta(block.thinking)
        elif block.type == "text" and block.text:
            yield TextDelta(block.text)

    def _delta(self, index: int, delta: Any) -> Iterator[StreamEvent]:
        if delta.type == "text_delta":
            yield TextDelta(delta.text)
        elif delta.type == "thinking_delta":
            self._thoughts.setdefault(index, "")
            yield ThoughtDelta(delta.thinking)
        elif delta.type == "signature_delta":
            self._thoughts[index] = self._thoughts.get(index, "") + delta.signature
        elif delta.type == "input_json_delta" and index in self._calls and delta.partial_json:
            yield CallDelta(index, delta.partial_json)

    def finished(self, name: str) -> Finished:
        if self._stop is None:
            raise EndpointError(f"{name} ended its answer without a stop reason", is_cut=True)
        return Finished(self._stop, self._usage)


def request(ask: ModelRequest) -> dict[str, Any]:
    """Encodes a request body."""
    body: dict[str, Any] = {
        "model": ask.model,
        "max_tokens": ask.max_tokens or _DEFAULT_MAX_TOKENS,
        "system": ask.system,
        "messages": _messages(ask.turns),
        "stream": True,
    }
    if ask.tools:
        body["tools"] = [
            {"name": each.name, "description": each.description, "input_schema": each.parameters}
            for each in ask.tools
        ]
    if more := _more(ask.options):
        body["extra_body"] = more
    return body


def _more(options: ModelOptions) -> dict[str, Any]:
    """Returns the fields that the client takes in no other way."""
    if options.effort == "none":
        return {"thinking": {"type": "disabled"}} | sampling(options)
    if options.effort:
        effort = {"effort": options.effort}
        return {"thinking": {"type": "adaptive"}, "output_config": effort} | sampling(options)
    return sampling(options)


def _messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Encodes turns; results open the user message that may go on with the next prompt."""
    messages: list[dict[str, Any]] = []
    for turn in merged(turns):
        role = "assistant" if isinstance(turn, AssistantTurn) else "user"
        blocks = list(_blocks(turn))
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": role, "content": blocks})
    return messages


def _blocks(turn: Turn) -> Iterator[dict[str, Any]]:
    if isinstance(turn, UserTurn):
        for part in turn.parts:
            if isinstance(part, ImagePart):
                yield _picture(part)
            else:
                yield {"type": "text", "text": part.text}
    elif isinstance(turn, ResultsTurn):
        for result in turn.results:
            yield {
                "type": "tool_result",
                "tool_use_id": result.call_id,
                "content": _result(result),
                "is_error": result.is_error,
            }
    else:
        yield from _assistant(turn)


def _result(result: ToolResult) -> str | list[dict[str, Any]]:
    if not result.pictures:
        return result.text
    text = [{"type": "text", "text": result.text}] if result.text else []
    return [*text, *map(_picture, result.pictures)]


def _picture(part: ImagePart) -> dict[str, Any]:
    source = {"type": "base64", "media_type": part.mime_type, "data": part.data}
    return {"type": "image", "source": source}


def _assistant(turn: AssistantTurn) -> Iterator[dict[str, Any]]:
    for thought in turn.thoughts:
        if thought.sealed_by == DIALECT and thought.seal:
            yield {"type": "thinking", "thinking": thought.text, "signature": thought.seal}
    if turn.text.strip():
        yield {"type": "text", "text": turn.text}
    for call in turn.calls:
        yield {
            "type": "tool_use",
            "id": call.id,
            "name": call.name or "unknown",
            "input": call.arguments or {},
        }


def _usage(usage: Any, before: TokenUsage) -> TokenUsage:
    """Reads cumulative counts; message_delta may repeat only some of message_start's."""
    if usage is None:
        return before
    cached = getattr(usage, "cache_read_input_tokens", None) or 0
    written = getattr(usage, "cache_creation_input_tokens", None) or 0
    fresh = getattr(usage, "input_tokens", None) or 0
    total_input = fresh + cached + written
    return TokenUsage(
        total_input or before.input_tokens,
        getattr(usage, "output_tokens", None) or before.output_tokens,
        cached or before.cached_tokens,
        before.thought_tokens,
    )
