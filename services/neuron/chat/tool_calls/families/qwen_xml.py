"""Qwen3-Coder: `<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>`.

Qwen3.5 and Nemotron 3 write it too, and Seed-OSS inside `<seed:tool_call>`. Source: the chat
templates of Qwen/Qwen3-Coder-30B-A3B-Instruct and ByteDance-Seed/Seed-OSS-36B-Instruct. The 30B
model leaves out the opening marker in about one of five calls, never the call's own tags.
"""

from __future__ import annotations

from typing import Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser
from services.neuron.chat.tool_calls.parsing.tagged_call import CallTags, TaggedCall

NAME: Final = "qwen_xml"
SEED: Final = "seed_xml"
_FUNCTION: Final = "<function="
_PARAMETER: Final = "<parameter="


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return _FUNCTION in template and _PARAMETER in template


def detects_seed(template: str) -> bool:
    """True for a template that shows the model Seed's spelling of it."""
    return detects(template) and "<seed:tool_call>" in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    return _parser(calls, tools, "tool_call")


def seed_parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output in Seed's spelling."""
    return _parser(calls, tools, "seed:tool_call")


def _parser(calls: Calls, tools: Tools, region: str) -> ChatParser:
    closing = f"</{region}>"
    tags = CallTags(
        call=_FUNCTION,
        end_call="</function>",
        pair=_PARAMETER,
        end_pair="</parameter>",
        region=closing,
        is_padded=True,
    )
    return RegionParser(
        calls=calls,
        openings=[
            RegionOpening(f"<{region}>", closing, lambda: TaggedCall(calls, tools, tags)),
            # further on, or with a name that is no tool's, it is somebody writing about the format
            RegionOpening(
                _FUNCTION,
                closing,
                lambda: TaggedCall(calls, tools, tags, known_only=True),
                is_call=True,
                at_line_start=True,
            ),
        ],
        repeats=True,
    )
