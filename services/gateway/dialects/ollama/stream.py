"""Streamed answers of the Ollama API: lines of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import cut_call, encode
from services.gateway.dialects.dialect import DecodedRequest, Projector
from services.gateway.dialects.ollama.decode import OllamaDetail
from services.gateway.dialects.ollama.encode import call_object, envelope, last_fields, now, payload


class LineProjector(Projector):
    """One streamed answer of chat or generate. A call is sent once it is complete."""

    def __init__(self, decoded: DecodedRequest) -> None:
        self._decoded = decoded
        self._detail: OllamaDetail = decoded.detail
        self._head = b'{"model":' + encode(self._detail.model) + b',"created_at":'
        self._text = (
            b',"message":{"role":"assistant","content":' if self._detail.chats else b',"response":'
        )
        self._end = b'},"done":false}\n' if self._detail.chats else b',"done":false}\n'
        self._encode = encode
        self._call = -1
        self._name = ""
        self._arguments: list[str] = []
        self._is_cut = False

    @override
    def comment(self) -> bytes:
        """Lines of JSON have no comments: a line that adds nothing stands for one."""
        return self.heartbeat()

    @override
    def open(self) -> bytes:
        """Nothing: this stream has no opening."""
        return b""

    @override
    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """A line of text."""
        if not text or self._detail.only_loads:
            return b""
        return self._end_call() + self._line(text)

    @override
    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """Thinking, calls, text with log probabilities."""
        if self._detail.only_loads:
            return b""
        match event.WhichOneof("event"):
            case "text":
                return self._rich_text(event.text)
            case "reasoning" if event.reasoning.text:
                return self._end_call() + self._tell(text="", thinking=event.reasoning.text)
            case "tool_call":
                return self._tool_call(event.tool_call)
            case _:
                return b""

    @override
    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The last line."""
        before = self._end_call()
        last = {
            "model": self._detail.model,
            "created_at": now(),
            **payload(self._detail, text=""),
            **last_fields(self._decoded, finished),
        }
        return before + encode(last) + b"\n"

    @override
    def fail(self, error: FleetError) -> bytes:
        """The error in place of a last line."""
        return envelope(error) + b"\n"

    @override
    def heartbeat(self) -> bytes:
        """A line that adds nothing."""
        return self._line("")

    def _line(self, text: str) -> bytes:
        stamp = b'"' + now().encode() + b'"'
        return self._head + stamp + self._text + self._encode(text) + self._end

    def _tell(
        self,
        *,
        text: str,
        thinking: str = "",
        calls: Sequence[dict[str, Any]] = (),
        logprobs: Sequence[dict[str, Any]] = (),
    ) -> bytes:
        line: dict[str, Any] = {"model": self._detail.model, "created_at": now()}
        line |= payload(self._detail, text=text, thinking=thinking, calls=calls)
        if logprobs:
            line["logprobs"] = list(logprobs)
        return encode(line | {"done": False}) + b"\n"

    def _rich_text(self, delta: generation.TextDelta) -> bytes:
        if not (self._detail.logprobs and delta.logprobs):
            return self.text(0, delta.text, len(delta.token_ids))
        logprobs = openai_body.logprob_objects(delta.logprobs)
        return self._end_call() + self._tell(text=delta.text, logprobs=logprobs)

    def _tool_call(self, delta: generation.ToolCallDelta) -> bytes:
        before = b""
        if self._call != delta.index:
            before = self._end_call()
            self._call, self._name, self._is_cut = delta.index, delta.name, False
        self._arguments.append(delta.arguments_json)
        self._is_cut = self._is_cut or delta.incomplete
        return before

    def _end_call(self) -> bytes:
        if self._call < 0:
            return b""
        arguments = "".join(self._arguments)
        self._call = -1
        self._arguments.clear()
        if self._is_cut:
            return self._line(cut_call(self._name, arguments))
        return self._tell(text="", calls=[call_object(self._name, arguments)])
