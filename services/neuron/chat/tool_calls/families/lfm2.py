"""LFM2: a Python list of calls between markers, `<|tool_call_start|>[f(a=1)]<|tool_call_end|>`.

Source: the model cards and chat templates of LiquidAI/LFM2-1.2B and LFM2.5; the templates name only
the markers around the list of tools.
"""

from __future__ import annotations

from typing import Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.families.pythonic import PythonCalls
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser

NAME: Final = "lfm2"
_OPENING: Final = "<|tool_call_start|>"
_CLOSING: Final = "<|tool_call_end|>"
_SHOWN: Final = ("<|tool_list_start|>", "List of tools: [", _OPENING)


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return any(each in template for each in _SHOWN)


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    opening = RegionOpening(_OPENING, _CLOSING, lambda: PythonCalls(calls, tools))
    return RegionParser(calls=calls, openings=[opening])
