"""Llama 3.1 to 3.3, JSON: the whole output is `{"name": …, "parameters": {…}}`, several by `;`.

Source: Meta's prompt format for Llama 3.1; the `<|python_tag|>` before it is a control token.
"""

from __future__ import annotations

import json
from typing import Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_call import JsonCall
from services.neuron.chat.tool_calls.parsing.leading_call import LeadingParser
from services.neuron.chat.tool_calls.parsing.leading_tag import LeadingTagParser

NAME: Final = "llama3_json"
TAG: Final = "<|python_tag|>"


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return '"parameters": dictionary' in template or (TAG in template and "Environment" in template)


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""

    def reading(*, known_only: bool) -> LeadingParser:
        return LeadingParser(
            calls=calls,
            begins="{",
            reader=lambda: JsonCall(calls, tools, known_only=known_only),
            separators=";",
            openings=[f'{{"name": {json.dumps(name)}' for name in tools.parameters],
        )

    # behind the tag it is a call whatever it calls; without it, it may be an answer in JSON
    return LeadingTagParser(TAG, reading(known_only=True), tagged=reading(known_only=False))
