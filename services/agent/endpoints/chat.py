"""The OpenAI chat-completions dialect."""

import contextlib
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import openai
from typing_extensions import override

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    ResultsTurn,
    TextPart,
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

DIALECT = "openai-chat"
_STOPS = {"length": FinishReason.MAX_TOKENS, "content_filter": FinishReason.REFUSAL}


class ChatEndpoint(Endpoint):
    """Asks at `/chat/completions`; owns the client that it is given."""

    def __init__(self, *, name: str, client: openai.AsyncOpenAI) -> None:
        self._name = name
        self._client = client

    @override
    async def stream(self, ask: ModelRequest) -> AsyncGenerator[StreamEvent, None]:
        reading = ChatReader()
        with translated(self._name, openai) as exchange:
            stream = await self._client.chat.completions.create(**request(ask))
            exchange.is_answered = True
            async with stream:
                async for chunk in stream:
                    for event in reading.events(chunk):
                        yield event
        yield reading.finished(self._name)

    @override
    async def models(self) -> list[EndpointModel]:
        return await openai_models(self._client, self._name)

    @override
    async def close(self) -> None:
        await self._client.close()


class ChatReader:
    """Reads one stream; holds what it has said so far."""

    def __init__(self) -> None:
        self._stop: FinishReason | None = None
        self._usage: TokenUsage | None = None
        self._calls: dict[int, int] = {}  # the endpoint's index to ours, of the newest call
        self._ids: dict[int, str] = {}  # of our calls
        self._thinking = False

    def events(self, chunk: Any) -> Iterator[StreamEvent]:
        """Reads one chunk."""
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        for choice in chunk.choices or ():
            yield from self._delta(choice.delta)
            if choice.finish_reason:
                self._stop = _STOPS.get(choice.finish_reason, FinishReason.END)

    def _delta(self, delta: Any) -> Iterator[StreamEvent]:
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        if isinstance(thought, str) and thought:
            self._thinking = True
            yield ThoughtDelta(thought)
        if self._thinking and (delta.content or delta.tool_calls):
            self._thinking = False
            yield ThoughtSealed("", DIALECT)
        if delta.content or delta.refusal:
            yield TextDelta(delta.content or delta.refusal)
        for position, call in enumerate(delta.tool_calls or ()):
            yield from self._call(position if call.index is None else call.index, call)

    def _call(self, index: int, call: Any) -> Iterator[StreamEvent]:
        """Reads a piece of a call; a new id under an old index is a new call all the same."""
        function = call.function
        own = self._calls.get(index)
        is_new = own is None or (call.id and self._ids[own] and call.id != self._ids[own])
        if is_new and function and function.name:
            own = self._calls[index] = len(self._ids)
            self._ids[own] = call.id or ""
            yield CallStarted(own, call.id or "", function.name)
        if own is not None and function and function.arguments:
            yield CallDelta(own, function.arguments)

    def finished(self, name: str) -> Finished:
        """Returns the end; raises EndpointError if there was none."""
        if self._stop is None:
            raise EndpointError(f"{name} ended its answer without a finish reason", is_cut=True)
        return Finished(self._stop, self._usage)


def request(ask: ModelRequest) -> dict[str, Any]:
    """Encodes a request body."""
    body: dict[str, Any] = {
        "model": ask.model,
        "messages": [{"role": "system", "content": ask.system}, *_messages(ask.turns)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if ask.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in ask.tools
        ]
    if ask.max_tokens is not None:
        body["max_tokens"] = ask.max_tokens
    options = ask.options
    if options.effort:
        body["reasoning_effort"] = "xhigh" if options.effort == "max" else options.effort
    return body | sampling(options)


def _messages(turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
    joined = merged(turns)
    last_user = max((i for i, turn in enumerate(joined) if isinstance(turn, UserTurn)), default=0)
    for index, turn in enumerate(joined):
        if isinstance(turn, UserTurn):
            yield {"role": "user", "content": _content(turn)}
        elif isinstance(turn, AssistantTurn):
            yield _assistant(turn, keep_thoughts=index > last_user)
        else:
            for result in turn.results:
                yield {"role": "tool", "tool_call_id": result.call_id, "content": result.text}
            yield from _pictures(turn)


def _pictures(turn: ResultsTurn) -> Iterator[dict[str, Any]]:
    """Encodes what tools showed: in this dialect only a user's message can have pictures."""
    for result in turn.results:
        if result.pictures:
            said = TextPart(f"[pictures that {result.name} gave for {result.call_id}]")
            yield {"role": "user", "content": _content(UserTurn((said, *result.pictures)))}


def _content(turn: UserTurn) -> str | list[dict[str, Any]]:
    if not any(isinstance(part, ImagePart) for part in turn.parts):
        return "\n\n".join(part.text for part in turn.parts if not isinstance(part, ImagePart))
    return [
        {"type": "image_url", "image_url": {"url": f"data:{part.mime_type};base64,{part.data}"}}
        if isinstance(part, ImagePart)
        else {"type": "text", "text": part.text}
        for part in turn.parts
    ]


def _assistant(turn: AssistantTurn, *, keep_thoughts: bool) -> dict[str, Any]:
    """Encodes an answer; its reasoning goes back only inside the tool loop that it belongs to."""
    message: dict[str, Any] = {"role": "assistant", "content": turn.text}
    thoughts = "".join(each.text for each in turn.thoughts if each.sealed_by == DIALECT)
    if keep_thoughts and thoughts:
        message["reasoning_content"] = thoughts
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name or "unknown",
                    "arguments": json.dumps(call.arguments or {}, ensure_ascii=False),
                },
            }
            for call in turn.calls
        ]
    return message


def _usage(usage: Any) -> TokenUsage:
    cached = thought = 0
    with contextlib.suppress(AttributeError):
        cached = usage.prompt_tokens_details.cached_tokens or 0
    with contextlib.suppress(AttributeError):
        thought = usage.completion_tokens_details.reasoning_tokens or 0
    return TokenUsage(usage.prompt_tokens or 0, usage.completion_tokens or 0, cached, thought)
