"""Kimi K2: `<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`.

The calls of a turn stand in one section. Source: the chat template of
moonshotai/Kimi-K2-Instruct. The model copies ids that the conversation has; clients that allow no
points and colons in theirs make it write `functions_NAME_0`.
"""

from __future__ import annotations

import re
from typing import Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser
from services.neuron.chat.tool_calls.parsing.token_call import CallTokens, TokenCall

NAME: Final = "kimi"
_OPENING: Final = "<|tool_calls_section_begin|>"
_CLOSING: Final = "<|tool_calls_section_end|>"
_BEGIN: Final = "<|tool_call_begin|>"
_SEPARATOR: Final = "<|tool_call_argument_begin|>"
_END: Final = "<|tool_call_end|>"
_SANITISED: Final = re.compile(r"(?:functions_)?(?P<name>.+?)_\d+")


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return _OPENING in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""

    def name(head: str) -> str:
        return _name(head, tools)

    def reader() -> TokenCall:
        return TokenCall(calls, CallTokens(_BEGIN, _SEPARATOR, _END, name))

    openings = [
        RegionOpening(_OPENING, _CLOSING, reader),
        RegionOpening(_BEGIN, _CLOSING, reader, is_call=True),
    ]
    return RegionParser(calls=calls, openings=openings, repeats=True)


def _name(head: str, tools: Tools) -> str:
    """The name in `functions.NAME:0`, the model's own id of the call."""
    call_id = head.partition(_SEPARATOR)[0].strip()
    name = call_id.removeprefix("functions.").partition(":")[0].strip()
    sanitised = _SANITISED.fullmatch(name)
    if name not in tools.parameters and sanitised and sanitised["name"] in tools.parameters:
        return sanitised["name"]
    return name
