"""Hermes and Qwen 2.5/3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

Source: the chat templates of NousResearch/Hermes-2-Pro and Qwen/Qwen2.5.
"""

from __future__ import annotations

from typing import Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.bare_json import BareJsonParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_call_list import JsonCallList
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser

NAME: Final = "hermes"
OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return OPENING in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    regions = RegionParser(calls=calls, openings=openings(calls, tools), repeats=True)
    return BareJsonParser(calls, tools, regions)


def openings(calls: Calls, tools: Tools) -> list[RegionOpening]:
    """How a region may begin."""
    return [RegionOpening(OPENING, CLOSING, lambda: JsonCallList(calls, tools))]
