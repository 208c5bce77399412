"""GLM-4: the whole output is a call, the tool's name in a line and the arguments below it.

Source: the chat templates of zai-org/glm-4-9b-chat-hf and GLM-4-32B-0414. For 4.5 see `glm`.
"""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_arguments import JsonArguments
from services.neuron.chat.tool_calls.parsing.leading_call import LeadingParser

NAME: Final = "glm4"
_OBSERVATION: Final = "<|observation|>"


def detects(template: str) -> bool:
    """True for a template that shows the model this format, or a later GLM's."""
    return _OBSERVATION in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    begins = "".join({name[0] for name in tools.parameters if name})
    return LeadingParser(
        calls=calls,
        begins=begins,
        reader=lambda: NamedCall(calls, tools),
        openings=[f"{name}\n" for name in tools.parameters],
    )


class NamedCall(CallReader):
    """A line that is a tool's name, and an object."""

    def __init__(self, calls: Calls, tools: Tools) -> None:
        self._calls, self._tools = calls, tools
        self._head = ""
        self._arguments: JsonArguments | None = None

    @property
    @override
    def unread(self) -> str:
        if self._arguments is not None and self._arguments.has_told:
            return self._arguments.unread
        return self._head + (self._arguments.unread if self._arguments else "")

    @override
    def push(self, char: str) -> CallProgress:
        if self._arguments is not None:
            return self._arguments.push(char)
        self._head += char
        name = self._head.rstrip("\r\n")
        if char == "\n" and name.strip() in self._tools.parameters:
            self._arguments = JsonArguments(self._calls, name.strip())
            return CallProgress.MORE
        known = any(tool.startswith(name.rstrip()) for tool in self._tools.parameters)
        return CallProgress.MORE if known and char != "\n" else CallProgress.BROKEN

    @override
    def cut(self) -> None:
        if self._arguments is not None:
            self._arguments.cut()
