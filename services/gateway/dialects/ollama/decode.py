"""Ollama's chat and generate bodies into canonical requests."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.common import images, sampling, tools, turns
from services.gateway.dialects.common.json_body import (
    bad,
    convert,
    encode_text,
    unsupported,
)
from services.gateway.dialects.common.json_schema import schema_text
from services.gateway.dialects.dialect import DecodedRequest, Head
from services.gateway.dialects.ollama.fields import (
    CHAT,
    GENERATE,
    ChatMessage,
    ChatRequest,
    GenerateRequest,
    Options,
    RunFields,
    refuse_unknown_samplers,
)
from services.gateway.dialects.openai_chat import wishes

_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
# "For ever", for policies that count in seconds.
_EVER_SECONDS: Final = 10 * 365 * 86400.0
_LATEST: Final = ":latest"


@dataclasses.dataclass(frozen=True, slots=True)
class OllamaDetail:
    """What the encoder needs again.

    Attributes:
        model: as the client spelled it, tag and all.
        chats: the answer is a `message` (chat), not a `response` (generate).
        only_loads: the prompt was empty: the model is only to be loaded or unloaded.
        logprobs: log probabilities were asked for.
    """

    model: str
    chats: bool
    only_loads: bool = False
    logprobs: bool = False


def model_name(asked: str) -> str:
    """The fleet's name of a model: without the tag `:latest`, which Ollama's clients add."""
    return asked.removesuffix(_LATEST)


def decode_chat(body: bytes, head: Head) -> DecodedRequest:
    """Reads /api/chat.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
    """
    wire: ChatRequest = CHAT.read(body)
    offered = [
        tools.tool(
            one.function.name,
            path=f"tools.{index}.function",
            description=one.function.description,
            schema=schema_text(one.function.parameters, f"tools.{index}.function.parameters"),
        )
        for index, one in enumerate(wire.tools or ())
    ]
    request = _empty_chat()
    request.chat.tools.extend(tools.distinct(offered))
    turns.write(_turns(wire.messages or ()), request.chat)
    return _decoded(wire, head, request, chats=True)


def decode_generate(body: bytes, head: Head) -> DecodedRequest:
    """Reads /api/generate.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
    """
    wire: GenerateRequest = GENERATE.read(body)
    if wire.suffix:
        raise unsupported("suffix", "text cannot be inserted before a suffix here.")
    if wire.template:
        raise unsupported("template", "the model's own chat template is used; set raw instead.")
    if wire.context:
        raise unsupported("context", "send the conversation to /api/chat instead.")
    if wire.raw and wire.prompt:
        return _decoded(wire, head, generation.GenerateRequest(text=wire.prompt), chats=False)
    request = _empty_chat()
    if wire.prompt or wire.images:
        found: list[turns.Turn] = []
        if wire.system:
            found.append(turns.Turn(conversation.ROLE_SYSTEM, [turns.Text(wire.system)]))
        parts = [turns.Text(wire.prompt or ""), *_images(wire.images or (), "images")]
        turns.write([*found, turns.Turn(conversation.ROLE_USER, parts)], request.chat)
    return _decoded(wire, head, request, chats=False)


def _empty_chat() -> generation.GenerateRequest:
    request = generation.GenerateRequest()
    request.chat.SetInParent()
    return request


def _decoded(
    wire: RunFields, head: Head, request: generation.GenerateRequest, *, chats: bool
) -> DecodedRequest:
    if not wire.model:
        raise bad("model", "must not be empty.")
    only_loads = request.WhichOneof("prompt") == "chat" and not request.chat.messages
    options = wire.options or {}
    refuse_unknown_samplers(options)
    read = convert(options, Options, "options")
    request.request_id = head.request_id
    request.sampling.CopyFrom(_sampling(read))
    request.stop.CopyFrom(_stop(read))
    if wire.logprobs:
        request.top_logprobs = wire.top_logprobs or 0
    constraint, reasoning = _constraint(wire), _reasoning(wire)
    if constraint is not None:
        request.constraint.CopyFrom(constraint)
    if reasoning is not None:
        request.reasoning.CopyFrom(reasoning)
    if only_loads:
        _only_load(request)
    return DecodedRequest(
        model=model_name(wire.model),
        stream=wire.stream is not False,
        requests=[request],
        detail=OllamaDetail(wire.model, chats, only_loads, bool(wire.logprobs)),
        keep_alive_seconds=keep_alive(wire.keep_alive),
        constraint_field="" if constraint is None else "format",
    )


def _only_load(request: generation.GenerateRequest) -> None:
    """An empty request loads the model; one token is what tells that it answers."""
    turns.write_turn(turns.Turn(conversation.ROLE_USER, [turns.Text(" ")]), request.chat)
    request.stop.max_tokens = 1


def _turns(messages: Sequence[ChatMessage]) -> Iterator[turns.Turn]:
    names: dict[str, str] = {}
    # ids are an addition of late; without them results answer calls in order
    waiting: list[str] = []
    for index, one in enumerate(messages):
        path = f"messages.{index}"
        match one.role:
            case "system" | "user":
                role = conversation.ROLE_USER if one.role == "user" else conversation.ROLE_SYSTEM
                yield turns.Turn(role, _parts(one, path))
            case "assistant":
                yield turns.Turn(conversation.ROLE_ASSISTANT, _assistant(one, path, names, waiting))
            case "tool":
                call_id = one.tool_call_id or (waiting.pop(0) if waiting else "")
                known = names if call_id in names else {call_id: one.tool_name or ""}
                yield turns.result(call_id, _parts(one, path), names=known)
            case _:
                raise bad(f"{path}.role", f"{one.role!r} is none of system, user, assistant, tool.")


def _assistant(
    one: ChatMessage, path: str, names: dict[str, str], waiting: list[str]
) -> list[turns.Part]:
    parts: list[turns.Part] = [turns.Reasoning(one.thinking)] if one.thinking else []
    parts += [part for part in _parts(one, path) if part != turns.Text("")]
    waiting.clear()
    for index, called in enumerate(one.tool_calls or ()):
        call_id = called.id or f"call_{path.removeprefix('messages.')}_{index}"
        names[call_id] = called.function.name
        waiting.append(call_id)
        found = called.function.arguments
        arguments = found if isinstance(found, str) else encode_text(found or {})
        parts.append(turns.Call(call_id, called.function.name, arguments))
    return parts


def _parts(one: ChatMessage, path: str) -> list[turns.Part]:
    return [turns.Text(one.content or ""), *_images(one.images or (), f"{path}.images")]


def _images(found: Sequence[str], path: str) -> Iterator[turns.Part]:
    for index, data in enumerate(found):
        where = f"{path}.{index}"
        if data[:5] == "data:":
            yield images.from_url(data, where)
        else:
            yield images.from_base64(data, _mime_type(data), where)


def _mime_type(data: str) -> str:
    """Told by the first bytes: this API sends no media type."""
    try:
        head = base64.b64decode(data[:16])
    except (binascii.Error, ValueError):
        return "image/png"  # the decoder complains of the base64 itself
    return images.kind_of(head) or "unknown"


def _sampling(read: Options) -> generation.Sampling:
    return generation.Sampling(
        temperature=read.temperature,
        top_p=read.top_p or None,
        top_k=read.top_k,
        min_p=read.min_p,
        typical_p=read.typical_p or None,
        repetition_penalty=read.repeat_penalty,
        frequency_penalty=read.frequency_penalty,
        presence_penalty=read.presence_penalty,
        seed=sampling.seed_of(read.seed),
    )


def _stop(read: Options) -> generation.StopRules:
    most = read.num_predict
    return generation.StopRules(
        # negative: no limit, or up to the window
        max_tokens=most if most is not None and most > 0 else None,
        stop_strings=sampling.stops_of(read.stop, "options.stop"),
    )


def _constraint(wire: RunFields) -> generation.OutputConstraint | None:
    data = bytes(wire.format).strip()
    if data in {b"", b"null", b'""'}:
        return None
    if data == b'"json"':
        return wishes.any_object()
    if not data.startswith(b"{"):
        raise bad("format", 'Expected "json" or a JSON schema.')
    return generation.OutputConstraint(json_schema=schema_text(msgspec.Raw(data), "format"))


def _reasoning(wire: RunFields) -> generation.Reasoning | None:
    if wire.think is None:
        return None
    if isinstance(wire.think, bool):
        return generation.Reasoning(enabled=wire.think)
    return generation.Reasoning(enabled=True, effort=wishes.effort_of(wire.think, "think"))


def keep_alive(found: float | str | None) -> float | None:
    """How long a model stays, in seconds. Negative means for ever; None leaves it to the fleet.

    Raises:
        FleetError: BAD_REQUEST for what is neither a number nor a duration (`5m`, `1h30m`).
    """
    if found is None:
        return None
    if isinstance(found, str):
        text = found.strip()
        sign = -1.0 if text.startswith("-") else 1.0
        text = text.removeprefix("-")
        if text.isdecimal():
            seconds = sign * float(text)
        elif text and not _DURATION.sub("", text):
            pieces = _DURATION.findall(text)
            seconds = sign * sum(float(count) * _SECONDS[unit] for count, unit in pieces)
        else:
            raise bad("keep_alive", f"{found!r} is no duration.")
    else:
        seconds = float(found)
    return _EVER_SECONDS if seconds < 0 else min(seconds, _EVER_SECONDS)
