"""MiniMax, DeepSeek V3.2+: `<invoke name="NAME"><parameter name="KEY">value</parameter></invoke>`.

MiniMax-M2 writes it inside `<minimax:tool_call>`; DeepSeek V3.2 inside `<｜DSML｜function_calls>`,
V4 inside `<｜DSML｜tool_calls>`, with `｜DSML｜` in every tag, and says of each value whether it is
a string. V4 and V4.1 also write the marker with doubled bars, then `calls` behind a space, and V4
`toolcalls`, where the template does not.
Source: the chat templates of MiniMaxAI/MiniMax-M2, deepseek-ai/DeepSeek-V3.2 and -V4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser
from services.neuron.chat.tool_calls.parsing.tagged_call import CallTags, TaggedCall

MINIMAX: Final = "minimax"
DSML: Final = "dsml"
_DSML: Final = "｜DSML｜"
_DOUBLED: Final = "｜｜DSML｜｜"
_SPACED: Final = "｜｜DSML｜｜ "
_MINIMAX_REGION: Final = "minimax:tool_call"
_V32_REGION: Final = "function_calls"
_V4_REGION: Final = "tool_calls"
_OTHER_REGIONS: Final = ("toolcalls", "calls")


def detects_minimax(template: str) -> bool:
    """True for a template that shows the model MiniMax's spelling."""
    return f"<{_MINIMAX_REGION}>" in template and "<invoke" in template


def detects_dsml(template: str) -> bool:
    """True for a template that shows the model DeepSeek's spelling."""
    return _DSML in template


def minimax_parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output of MiniMax-M2."""
    return _parser(calls, tools, prefixes=("",), regions=(_MINIMAX_REGION,))


def dsml_parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output of DeepSeek V3.2 or V4."""
    regions = (_V4_REGION, _V32_REGION, *_OTHER_REGIONS)
    return _parser(calls, tools, prefixes=(_DSML, _DOUBLED, _SPACED), regions=regions)


def _parser(
    calls: Calls, tools: Tools, *, prefixes: tuple[str, ...], regions: tuple[str, ...]
) -> ChatParser:
    openings = [each for prefix in prefixes for each in _openings(calls, tools, prefix, regions)]
    return RegionParser(calls=calls, openings=openings, repeats=True)


def _openings(
    calls: Calls, tools: Tools, prefix: str, regions: tuple[str, ...]
) -> list[RegionOpening]:
    call = f"<{prefix}invoke name="

    def opening(region: str) -> RegionOpening:
        return RegionOpening(f"<{prefix}{region}>", f"</{prefix}{region}>", reader(region))

    def reader(region: str, *, known_only: bool = False) -> Callable[[], TaggedCall]:
        tags = CallTags(
            call=call,
            end_call=f"</{prefix}invoke>",
            pair=f"<{prefix}parameter name=",
            end_pair=f"</{prefix}parameter>",
            region=f"</{prefix}{region}>",
        )
        return lambda: TaggedCall(calls, tools, tags, known_only=known_only)

    bare = RegionOpening(
        call,
        f"</{prefix}{regions[0]}>",
        reader(regions[0], known_only=True),
        is_call=True,
        at_line_start=True,
    )
    return [*(opening(region) for region in regions), bare]
