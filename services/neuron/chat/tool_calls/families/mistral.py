"""Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}]`; since v11 `[TOOL_CALLS]name[ARGS]{…}`.

Source: mistral-common, tokenizers v3 to v13.
"""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_arguments import JsonArguments
from services.neuron.chat.tool_calls.parsing.json_call_list import JsonCallList
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser

NAME: Final = "mistral"
OPENING: Final = "[TOOL_CALLS]"
_ARGS: Final = "[ARGS]"
_CALL_ID: Final = "[CALL_ID]"


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return OPENING in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    return RegionParser(
        calls=calls, openings=[RegionOpening(OPENING, "", lambda: MistralCall(calls, tools))]
    )


class MistralCall(CallReader):
    """What follows one `[TOOL_CALLS]`: a list, or a name and its arguments."""

    def __init__(self, calls: Calls, tools: Tools) -> None:
        self._calls = calls
        self._list = JsonCallList(calls, tools)
        self._head = ""
        self._inner: JsonCallList | JsonArguments | None = None

    @property
    @override
    def unread(self) -> str:
        return self._head + (self._inner.unread if self._inner else "")

    @override
    def push(self, char: str) -> CallProgress:
        if self._inner is not None:
            return self._inner.push(char)
        seen = (self._head + char).lstrip()
        if seen[:1] in {"[", "{"}:
            space, self._inner, self._head = self._head, self._list, ""
            for each in space:
                self._inner.push(each)
            return self._inner.push(char)
        if char == "{":
            name = self._head.partition(_ARGS)[0].partition(_CALL_ID)[0].strip()
            if not name:
                self._head += char
                return CallProgress.BROKEN
            self._inner, self._head = JsonArguments(self._calls, name), ""
            return self._inner.push(char)
        self._head += char
        return CallProgress.BROKEN if char == "\n" and seen.strip() else CallProgress.MORE

    @override
    def cut(self) -> None:
        if self._inner is not None:
            self._inner.cut()
