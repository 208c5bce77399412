"""DeepSeek V3, R1 and V3.1: control tokens around name and JSON.

V3: `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME` and a fenced block of JSON; V3.1:
`<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>`. Source: the chat templates of
deepseek-ai/DeepSeek-V3, -R1 and -V3.1. For V3.2 and later see `invoke_xml`.
"""

from __future__ import annotations

from typing import Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser
from services.neuron.chat.tool_calls.parsing.token_call import CallTokens, TokenCall

NAME: Final = "deepseek"
_OPENING: Final = "<｜tool▁calls▁begin｜>"
_CLOSING: Final = "<｜tool▁calls▁end｜>"
_BEGIN: Final = "<｜tool▁call▁begin｜>"
_SEPARATOR: Final = "<｜tool▁sep｜>"
_END: Final = "<｜tool▁call▁end｜>"


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return _OPENING in template or _BEGIN in template


def parser(calls: Calls, _tools: Tools) -> ChatParser:
    """Reads one output."""
    return RegionParser(calls=calls, openings=openings(calls), repeats=True)


def openings(calls: Calls) -> list[RegionOpening]:
    """How a region may begin; small models leave out the marker around all calls."""

    def reader() -> TokenCall:
        return TokenCall(calls, CallTokens(_BEGIN, _SEPARATOR, _END, _name))

    return [
        RegionOpening(_OPENING, _CLOSING, reader),
        RegionOpening(_BEGIN, _CLOSING, reader, is_call=True),
    ]


def _name(head: str) -> str:
    kind, _, rest = head.partition(_SEPARATOR)
    name = rest.partition("\n")[0].strip() if kind.strip() == "function" else kind.strip()
    return name.removesuffix("```json").strip()
