"""Families that write Hermes' JSON, one call or a list, between markers of their own.

Sources: the chat templates of ibm-granite/granite-3.3-8b-instruct (microsoft/Phi-4-mini's later one
too), ibm-granite/granite-20b-functioncalling, nvidia/Llama-3_3-Nemotron-Super-49B-v1_5,
CohereLabs/c4ai-command-r7b-12-2024, tencent/Hunyuan-A13B-Instruct (ai21labs/Jamba and MiniMax-M1
too), microsoft/Phi-4-mini-instruct.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_call_list import JsonCallList
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser

COHERE: Final = "cohere"
_HERMES: Final = ("<tool_call>", "</tool_call>")
_TOKEN: Final = ("<|tool_call|>", "<|/tool_call|>")
_TOKENS: Final = ("<|tool_calls|>", "<|/tool_calls|>")


@dataclasses.dataclass(frozen=True, slots=True)
class CallMarkers:
    """The markers that a family writes around its calls.

    Attributes:
        opening: before them.
        closing: behind them; empty for nothing.
        dropped: markers around the answer itself.
        shown: what a template that asks for this says; by default `opening`.
        others: openings and closings that models write although the template shows these.
    """

    opening: str
    closing: str
    dropped: tuple[str, ...] = ()
    shown: str = ""
    others: tuple[tuple[str, str], ...] = ()

    def detects(self, template: str) -> bool:
        """True for a template that shows the model this format."""
        return (self.shown or self.opening) in template

    def parser(self, calls: Calls, tools: Tools) -> ChatParser:
        """Reads one output."""
        return RegionParser(
            calls=calls,
            openings=[
                RegionOpening(opening, closing, lambda: JsonCallList(calls, tools))
                for opening, closing in ((self.opening, self.closing), *self.others)
            ],
            repeats=True,
            dropped=self.dropped,
        )


FAMILIES: Final[Mapping[str, CallMarkers]] = {
    COHERE: CallMarkers(
        "<|START_ACTION|>",
        "<|END_ACTION|>",
        ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    # Granite 3.1 spells the token that its template shows; see vllm-project/vllm, pull 11307
    "granite": CallMarkers(*_TOKEN, others=(_HERMES,)),
    "granite20b": CallMarkers("<function_call>", ""),
    "nemotron": CallMarkers("<TOOLCALL>", "</TOOLCALL>"),
    "hunyuan": CallMarkers("<tool_calls>", "</tool_calls>"),
    # Phi-4-mini's templates changed, and what it was trained on is in all of them
    "phi4": CallMarkers("functools", "", shown="functools marker", others=(_TOKEN, _TOKENS)),
}
