"""Says how much of a prompt each instance would have to read; the request is not run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from typing_extensions import override

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.dialect import Dialect, Head
from services.gateway.dialects.lookup import ComparedInstance, FleetQueries, Lookup

_PROBES: Final = (48, 24, 12, 6)
"""How many characters before and behind a place it is looked for by; the longest first."""


class ExplainedAnswer(msgspec.Struct):
    """The fields of the answer."""

    model: str
    instances: list[dict[str, Any]]


class Explained(Lookup):
    """How much of a request's prompt each instance has cached, for one dialect's bodies."""

    answers: type[Any] | None = ExplainedAnswer

    def __init__(self, dialect: Dialect) -> None:
        self.name: str = f"{dialect.name}_explained"
        self._dialect = dialect
        self.reads = dialect.reads

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """What each instance holds of the prompt, and where it parts from that, as JSON."""
        decoded = await fleet.decoded(self._dialect.decode, body, head)
        request = decoded.requests[0]
        request.model = decoded.model
        instances = [_told(request, one) for one in await fleet.compare(request)]
        return msgspec.json.encode({"model": request.model, "instances": instances})

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return self._dialect.error(error, head)


def _told(request: generation.GenerateRequest, one: ComparedInstance) -> dict[str, object]:
    told: dict[str, object] = {"instance_id": one.instance_id, "neuron": one.neuron}
    found = one.found
    if found is None:
        return told | {"error": one.error}
    unread = found.prompt_tokens - max(found.cached_tokens, found.saved_tokens)
    told |= {
        "prompt_tokens": found.prompt_tokens,
        "cached_tokens": found.cached_tokens,
        "saved_tokens": found.saved_tokens,
        "foretold_tokens": one.foretold_tokens,
        "tokens_to_read": unread,
        "seconds_to_read": round(unread * found.seconds_per_token, 3),
    }
    if found.asked or found.held:
        segment, byte = _place(request, found.alike, found.asked)
        told["parts_at"] = {
            "segment": segment,
            "byte": byte,
            "behind": found.alike,
            "asked": found.asked,
            "held": found.held,
        }
    return told


def _place(
    request: generation.GenerateRequest, alike: str, asked: str
) -> tuple[str | None, int | None]:
    """Which segment of a request has this place, and at which byte of it; None: not found."""
    segments = list(_segments(request))
    for size in _PROBES:
        before, behind = alike[-size:], asked[:size]
        for name, text in segments:
            at = text.find(before + behind)
            if at >= 0:
                return name, len(text[: at + len(before)].encode())
    for size in _PROBES:  # it is the first byte of a segment, behind what the template writes
        for name, text in segments:
            if asked.strip() and text.startswith(asked.lstrip()[:size]):
                return name, 0
    return None, None


def _segments(request: generation.GenerateRequest) -> Iterator[tuple[str, str]]:
    """Name and text of all that a prompt is made of, as the caller has ordered it."""
    if request.text:
        yield "text", request.text
    for number, tool in enumerate(request.chat.tools):
        for field in ("description", "parameters_schema_json", "name"):
            yield f"tools[{number}] {tool.name}: {field}", getattr(tool, field)
    for number, message in enumerate(request.chat.messages):
        role = conversation.Role.Name(message.role).removeprefix("ROLE_").lower()
        for part in message.parts:
            for text in _texts(part):
                yield f"messages[{number}] {role}", text


def _texts(part: conversation.Part) -> Iterator[str]:
    yield part.text or part.reasoning.text or part.tool_call.arguments_json
    for inner in part.tool_result.parts:
        yield inner.text
