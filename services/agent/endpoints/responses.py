"""The OpenAI Responses dialect, without server-side state: the whole history each time."""

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import openai
from typing_extensions import override

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    TextPart,
    ToolResult,
    Turn,
    UserTurn,
)
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
from services.agent.endpoints.listing import openai_models
from services.agent.endpoints.merging import merged, sampling

DIALECT = "openai-responses"
_THOUGHTS = {"response.reasoning_summary_text.delta", "response.reasoning_text.delta"}
_TEXTS = {"response.output_text.delta", "response.refusal.delta"}


class ResponsesEndpoint(Endpoint):
    """Asks at `/responses`; owns the client that it is given."""

    def __init__(self, *, name: str, client: openai.AsyncOpenAI) -> None:
        self._name = name
        self._client = client

    @override
    async def stream(self, ask: ModelRequest) -> AsyncGenerator[StreamEvent, None]:
        reading = _ResponsesReader(self._name)
        with translated(self._name, openai) as exchange:
            stream = await self._client.responses.create(**request(ask))
            exchange.is_answered = True
            async with stream:
                async for event in stream:
                    for canonical in reading.events(event):
                        yield canonical
        yield reading.finished()

    @override
    async def models(self) -> list[EndpointModel]:
        return await openai_models(self._client, self._name)

    @override
    async def close(self) -> None:
        await self._client.close()


class _ResponsesReader:
    """Reads one stream. Events may lack indices; items always have an id."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: dict[str, int] = {}
        self._with_arguments: set[int] = set()
        self._finished: Finished | None = None
        self._refused = False

    def events(self, event: Any) -> Iterator[StreamEvent]:
        kind = event.type
        if kind in _TEXTS:
            self._refused = self._refused or kind == "response.refusal.delta"
            yield TextDelta(event.delta)
        elif kind in _THOUGHTS:
            yield ThoughtDelta(event.delta)
        elif kind == "response.output_item.added" and event.item.type == "function_call":
            yield from self._started(event.item)
        elif kind == "response.function_call_arguments.delta":
            index = self._calls.get(event.item_id, len(self._calls) - 1)
            self._with_arguments.add(index)
            yield CallDelta(index, event.delta)
        elif kind == "response.output_item.done":
            yield from self._item_done(event.item)
        elif kind in {"response.completed", "response.incomplete"}:
            self._finished = self._finish(event.response)
        elif kind in {"response.failed", "error"}:
            raise self._failure(event)

    def _started(self, item: Any) -> Iterator[StreamEvent]:
        index = self._calls.setdefault(item.id or item.call_id, len(self._calls))
        yield CallStarted(index, item.call_id or "", item.name)

    def _item_done(self, item: Any) -> Iterator[StreamEvent]:
        if item.type == "function_call":
            key = item.id or item.call_id
            if key not in self._calls:
                yield from self._started(item)
            index = self._calls[key]
            if index not in self._with_arguments and item.arguments:
                self._with_arguments.add(index)
                yield CallDelta(index, item.arguments)
        elif item.type == "reasoning":
            seal = item.model_dump_json(exclude_none=True) if item.encrypted_content else ""
            yield ThoughtSealed(seal, DIALECT)

    def _finish(self, response: Any) -> Finished:
        reason = getattr(response.incomplete_details, "reason", None)
        stop = (
            FinishReason.REFUSAL
            if self._refused or reason == "content_filter"
            else FinishReason.END
        )
        if reason == "max_output_tokens":
            stop = FinishReason.MAX_TOKENS
        usage = response.usage
        if usage is None:
            return Finished(stop)
        cached = getattr(usage.input_tokens_details, "cached_tokens", 0) or 0
        thought = getattr(usage.output_tokens_details, "reasoning_tokens", 0) or 0
        return Finished(stop, TokenUsage(usage.input_tokens, usage.output_tokens, cached, thought))

    def _failure(self, event: Any) -> EndpointError:
        error = event.response.error if event.type == "response.failed" else event
        message = getattr(error, "message", None) or "no reason given"
        code = str(getattr(error, "code", None) or "").lower()
        return EndpointError(f"{self._name} broke off: {message}", code=code)

    def finished(self) -> Finished:
        if self._finished is None:
            raise EndpointError(
                f"{self._name} ended its answer without response.completed", is_cut=True
            )
        return self._finished


def request(ask: ModelRequest) -> dict[str, Any]:
    """Encodes a request body."""
    body: dict[str, Any] = {
        "model": ask.model,
        "instructions": ask.system,
        "input": list(_items(ask.turns)),
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "stream": True,
    }
    if ask.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": False,
            }
            for tool in ask.tools
        ]
    if ask.max_tokens is not None:
        body["max_output_tokens"] = ask.max_tokens
    options = ask.options
    if options.effort:
        body["reasoning"] = {"effort": "xhigh" if options.effort == "max" else options.effort}
    return body | sampling(options)


def _items(turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
    for turn in merged(turns):
        if isinstance(turn, UserTurn):
            yield {"type": "message", "role": "user", "content": list(_parts(turn))}
        elif isinstance(turn, AssistantTurn):
            yield from _assistant(turn)
        else:
            for result in turn.results:
                yield {
                    "type": "function_call_output",
                    "call_id": result.call_id,
                    "output": _output(result),
                }


def _output(result: ToolResult) -> str | list[dict[str, Any]]:
    if not result.pictures:
        return result.text
    return list(_parts(UserTurn((TextPart(result.text), *result.pictures))))


def _parts(turn: UserTurn) -> Iterator[dict[str, Any]]:
    for part in turn.parts:
        if isinstance(part, ImagePart):
            url = f"data:{part.mime_type};base64,{part.data}"
            yield {"type": "input_image", "image_url": url, "detail": "auto"}
        else:
            yield {"type": "input_text", "text": part.text}


def _assistant(turn: AssistantTurn) -> Iterator[dict[str, Any]]:
    for thought in turn.thoughts:
        if thought.sealed_by == DIALECT and thought.seal:
            yield json.loads(thought.seal)
    if turn.text:
        yield {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": turn.text, "annotations": []}],
        }
    for call in turn.calls:
        yield {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name or "unknown",
            "arguments": json.dumps(call.arguments or {}, ensure_ascii=False),
        }
