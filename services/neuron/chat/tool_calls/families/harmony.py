"""Harmony (gpt-oss): channels for reasoning, calls and the answer, each opened by control tokens.

`<|channel|>analysis<|message|>…<|end|>` is reasoning; `<|channel|>commentary to=functions.NAME
<|constrain|>json<|message|>{…}<|call|>` is a call; `<|channel|>final<|message|>…` is the answer.
Source: OpenAI's Harmony response format.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from services.neuron.chat.answer_grammar import Spelling
from services.neuron.chat.stream import ChatParser, Piece, ReasoningPiece, held_back
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_arguments import JsonArguments

NAME: Final = "harmony"
_CHANNEL: Final = "<|channel|>"
_MESSAGE: Final = "<|message|>"
_ENDS: Final = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", _CHANNEL)
# A message to one of these is no call.
_SPEAKERS: Final = frozenset({"assistant", "user"})
# Not a channel's name: what follows the arguments of a call. Spaces there mean nothing.
_BEHIND_CALL: Final = "behind a call"
_CHANNEL_NAME: Final = re.compile(r".*<\|channel\|>\s*(\w+)", re.DOTALL)
_RECIPIENT: Final = re.compile(r"to=(?:functions\.)?([\w.-]+)")


# An answer that is constrained: thoughts, then a call or the answer, in its channel or without one.
_GRAMMAR: Final = """\
start: thinking* (call | final | answer)
thinking: {channel} "analysis" {message} thought {start} "assistant"
call: (" to=" | {channel} "commentary to=") rest
final: {channel} "final" {message} answer
rest: <[*]>*"""


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return _CHANNEL in template and _MESSAGE in template


class HarmonyParser(ChatParser):
    """Reads one output; the prompt ended with `<|start|>assistant`."""

    def __init__(self, calls: Calls, tools: Tools) -> None:
        self._calls = calls
        self._header: str | None = ""
        self._channel = ""
        self._arguments: JsonArguments | None = None
        self._held = ""

    @property
    @override
    def is_reasoning(self) -> bool:
        return self._header is None and self._channel == "analysis"

    @override
    def feed(self, text: str) -> Sequence[Piece]:
        for char in text:
            if self._header is not None:
                self._in_header(char)
            else:
                self._in_body(char)
        if self._header is None and self._arguments is None:
            keep = max(held_back(self._held, marker) for marker in _ENDS)
            self._tell(self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :] if keep else ""
        return self._calls.take()

    @override
    def finish(self, *, is_cut: bool = False) -> Sequence[Piece]:
        self._calls.is_cut = is_cut
        if self._header is None:
            if self._arguments is not None:
                self._arguments.cut()
                if not self._arguments.has_told:
                    self._tell(self._arguments.unread)
            else:
                self._tell(self._held)
        elif self._header and _CHANNEL not in self._header:
            self._calls.text(self._header)
        self._held = ""
        return self._calls.take_last()

    @staticmethod
    def _is_header(header: str) -> bool:
        """False for an output that keeps to no channel at all."""
        starts = ("<|start|>assistant", _CHANNEL, " to=", "<|constrain|>")
        return any(start.startswith(header[: len(start)]) for start in starts)

    def _in_header(self, char: str) -> None:
        assert self._header is not None
        self._header += char
        if not self._is_header(self._header):
            self._begin_answer()
        if not self._header or not self._header.endswith(_MESSAGE):
            return
        header, self._header = self._header.removesuffix(_MESSAGE), None
        recipient = _RECIPIENT.search(header)
        named = _CHANNEL_NAME.search(header)
        self._channel = named[1] if named else ""
        if recipient and recipient[1] not in _SPEAKERS:
            self._arguments = JsonArguments(self._calls, recipient[1])

    def _in_body(self, char: str) -> None:
        if self._arguments is not None:
            if self._arguments.push(char) is CallProgress.MORE:
                return
            self._held, self._arguments = self._arguments.unread, None
            self._channel = _BEHIND_CALL
            return
        self._held += char
        if char == ">":
            for marker in _ENDS:
                if self._held.endswith(marker):
                    self._tell(self._held.removesuffix(marker))
                    self._held = ""
                    self._header = marker if marker in {"<|start|>", _CHANNEL} else ""

    def _begin_answer(self) -> None:
        self._held, self._header, self._channel = self._header or "", None, "final"
        self._tell(self._held)
        self._held = ""

    def _tell(self, text: str) -> None:
        if self._channel == _BEHIND_CALL:
            text = text.lstrip()
            if text:
                self._channel = ""
        if not text:
            return
        if self._channel == "analysis":
            self._calls.piece(ReasoningPiece(text))
        else:
            self._calls.text(text)


def grammar(spelling: Spelling) -> list[str]:
    """The rules around a rule `answer`."""
    tokens = {name: spelling(f"<|{name}|>") for name in ("channel", "message", "start")}
    return [_GRAMMAR.format(**tokens), *spelling.thought("<|end|>")]


def parser(calls: Calls, tools: Tools) -> HarmonyParser:
    """Reads one output."""
    return HarmonyParser(calls, tools)
