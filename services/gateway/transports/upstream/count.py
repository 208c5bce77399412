"""Prompts to be counted by servers that can, each in its own way.

Source: Anthropic API reference, messages/count_tokens; vLLM's
`entrypoints/serve/tokenize/protocol.py`; llama.cpp's `tools/server/README.md`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.gateway.transports.upstream import encode
from services.gateway.transports.upstream.anthropic_form import count_body
from services.gateway.transports.upstream.chunks import bounded_count
from services.gateway.transports.upstream.errors import Words
from services.gateway.transports.upstream.settings import UpstreamSettings
from services.gateway.transports.upstream.sse import BrokenStreamError

MOST_BYTES: Final = 32 << 20
"""Of an answer: servers tell the tokens themselves too."""
_OF_CHATS: Final = (
    "messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
)  # fmt: skip

# Posts a body to a path beside the `/v1` of a server, and gives the body of its answer.
Post = Callable[[str, bytes], Awaitable[bytes]]


class _Answer(msgspec.Struct):
    count: int | None = None
    max_model_len: int | None = None
    tokens: list[Any] | None = None
    prompt: str | None = None
    input_tokens: int | None = None
    error: Any = None


_READER: Final = msgspec.json.Decoder(_Answer)


async def count(
    request: neuron.CountTokensRequest,
    upstream: UpstreamSettings,
    post: Post,
    *,
    model: str,
    words: Words,
) -> neuron.CountTokensResponse:
    """Counts a prompt there, with what the model's chat template adds.

    Args:
        request: the prompt.
        upstream: which way it counts.
        post: asks it.
        model: as it calls it.
        words: words errors.

    Raises:
        FleetError: it fails; UNSUPPORTED_FIELD: what cannot be asked; NOT_SUPPORTED: pictures, or a
            prompt that is no chat.
        BrokenStreamError: what it says is no count.
    """
    if upstream.counts == "anthropic":
        told = await _by_messages(request, post, model, words)
        found = told.input_tokens
    elif upstream.counts == "vllm":
        fields = _fields(request, upstream, model, words)
        fields["model"] = msgspec.Raw(msgspec.json.encode(model))
        told = _read(await post("/tokenize", msgspec.json.encode(fields)), words)
        found = told.count
    else:
        told = await _by_template(request, upstream, post, model=model, words=words)
        found = None if told.tokens is None else len(told.tokens)
    if found is None:
        raise BrokenStreamError("it tells no count of tokens")
    return neuron.CountTokensResponse(
        tokens=bounded_count(found), max_context_tokens=bounded_count(told.max_model_len)
    )


async def _by_messages(
    request: neuron.CountTokensRequest, post: Post, model: str, words: Words
) -> _Answer:
    if not request.HasField("chat"):
        told = f"{words.who} counts chats alone."
        raise FleetError(Reason.NOT_SUPPORTED, told, field="model")
    body = count_body(request.chat, model=model)
    return _read(await post("/v1/messages/count_tokens", body), words)


async def _by_template(
    request: neuron.CountTokensRequest,
    upstream: UpstreamSettings,
    post: Post,
    *,
    model: str,
    words: Words,
) -> _Answer:
    prompt: str | None = request.text
    if request.HasField("chat"):
        fields = _fields(request, upstream, model, words)
        prompt = _read(await post("/apply-template", msgspec.json.encode(fields)), words).prompt
    if prompt is None:
        raise BrokenStreamError("it tells no prompt")
    text = {"content": prompt, "add_special": True, "parse_special": True}
    return _read(await post("/tokenize", msgspec.json.encode(text)), words)


def _fields(
    request: neuron.CountTokensRequest, upstream: UpstreamSettings, model: str, words: Words
) -> dict[str, msgspec.Raw]:
    if not request.HasField("chat"):
        return {"prompt": msgspec.Raw(msgspec.json.encode(request.text))}
    _require_text(request, words)
    return _chat(request, upstream, model)


def _chat(
    request: neuron.CountTokensRequest, upstream: UpstreamSettings, model: str
) -> dict[str, msgspec.Raw]:
    asked = generation.GenerateRequest(chat=request.chat)
    body = encode.encode(asked, upstream, model=model, prompt_tokens=0).body
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return {name: fields[name] for name in _OF_CHATS if name in fields}


def _require_text(request: neuron.CountTokensRequest, words: Words) -> None:
    for message in request.chat.messages:
        for outer in message.parts:
            for part in (*outer.tool_result.parts, outer):
                if part.HasField("image"):
                    told = f"{words.who} counts no pictures."
                    raise FleetError(Reason.NOT_SUPPORTED, told, field="messages")


def _read(body: bytes, words: Words) -> _Answer:
    try:
        answer = _READER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenStreamError(f"its answer cannot be read ({error})") from error
    if answer.error is not None:
        raise words.told(answer.error)
    return answer
