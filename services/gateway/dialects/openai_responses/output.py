"""Makes output items: messages, reasoning and calls, at their beginning and at their end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.common import openai_body, signature
from services.gateway.dialects.dialect import Collected
from services.gateway.dialects.openai_responses.decode import ResponseDetail


class OutputItems:
    """Makes the items of one response. Ids contain response and index: `msg_<response>_<index>`."""

    def __init__(self, detail: ResponseDetail) -> None:
        self._detail = detail
        self._suffix = detail.response_id.removeprefix("resp_")

    def message(
        self,
        index: int,
        text: str | None,
        *,
        status: str,
        logprobs: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Any]:
        """A message; with `text=None` it has no content yet."""
        content = [] if text is None else [text_part(text, logprobs)]
        return {
            "type": "message",
            "id": f"msg_{self._suffix}_{index}",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def reasoning(self, index: int, text: str | None, *, status: str) -> dict[str, Any]:
        """Reasoning, or a summary where the client wants one; with `text=None` still empty."""
        item: dict[str, Any] = {
            "type": "reasoning",
            "id": f"rs_{self._suffix}_{index}",
            "status": status,
            "summary": [],
        }
        if not self._detail.summarises:
            item["content"] = [] if text is None else [reasoning_part(text)]
        elif text is not None:
            item["summary"] = [summary_part(text)]
        if text is not None and self._detail.encrypts:
            item["encrypted_content"] = signature.sign(text, carry=True)
        return item

    def call(
        self, index: int, call_id: str, name: str, arguments: str, *, status: str
    ) -> dict[str, Any]:
        """A call of a function, or of a custom tool."""
        tools = self._detail.tools
        if name in tools.custom:
            return {
                "type": "custom_tool_call",
                "id": f"ctc_{self._suffix}_{index}",
                "status": status,
                "call_id": call_id,
                "name": name,
                "input": custom_input(arguments),
            }
        item = {
            "type": "function_call",
            "id": f"fc_{self._suffix}_{index}",
            "status": status,
            "call_id": call_id,
            "name": name,
            "arguments": arguments,
        }
        if name in tools.namespaces:
            item["namespace"] = tools.namespaces[name]
        return item

    def is_custom(self, name: str) -> bool:
        """True if this is a custom tool: calls of it carry one text instead of JSON."""
        return name in self._detail.tools.custom

    def collected(self, one: Collected, *, cut: bool) -> list[dict[str, Any]]:
        """All items of a collected answer; the last is incomplete where the answer was cut."""
        logprobs = openai_body.logprob_objects(one.logprobs) if self._detail.logprobs else []
        counts = iter(one.logprob_counts)
        found: list[dict[str, Any]] = []
        parts = [part for part in one.parts if part[1]]
        for index, (kind, value) in enumerate(parts):
            ends = cut or (kind == "tool_call" and value.is_cut)
            status = "incomplete" if ends and index == len(parts) - 1 else "completed"
            if kind == "text":
                count = next(counts)
                own, logprobs = logprobs[:count], logprobs[count:]
                found.append(self.message(index, value, status=status, logprobs=own))
            elif kind == "reasoning":
                found.append(self.reasoning(index, value, status=status))
            else:
                found.append(
                    self.call(index, value.call_id, value.name, value.arguments_json, status=status)
                )
        return found


def text_part(text: str, logprobs: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """The part of a message that holds its text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def reasoning_part(text: str) -> dict[str, Any]:
    """The part of a reasoning item that holds its text."""
    return {"type": "reasoning_text", "text": text}


def summary_part(text: str) -> dict[str, Any]:
    """The part of a reasoning item that holds its summary."""
    return {"type": "summary_text", "text": text}


def custom_input(arguments: str) -> str:
    """The text of a custom tool's call: `input` of the arguments, else all of them."""
    try:
        found = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return arguments
    value = found.get("input", "" if not found else arguments)
    return value if isinstance(value, str) else arguments


def logprobs_of(delta: generation.TextDelta, detail: ResponseDetail) -> list[dict[str, Any]]:
    """The log probabilities of a delta, where they were asked for."""
    return openai_body.logprob_objects(delta.logprobs) if detail.logprobs else []
