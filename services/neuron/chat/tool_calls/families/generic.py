"""Tools for models whose chat template knows none: shown in the system turn, called as in Hermes.

Nothing here happens silently: the instance's facts name the format, and a request whose tools even
so cannot be shown is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.neuron.chat.messages import Message, concatenated, runs
from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.families import deepseek, hermes
from services.neuron.chat.tool_calls.families.hermes import CLOSING, OPENING
from services.neuron.chat.tool_calls.parsing.bare_json import BareJsonParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.region import RegionParser

_INSTRUCTIONS: Final = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within \
{opening}{closing} XML tags:
{opening}
{{"name": <function-name>, "arguments": <args-json-object>}}
{closing}"""


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output: Hermes' calls, and DeepSeek's, whose distilled models fall back on them."""
    openings = [*hermes.openings(calls, tools), *deepseek.openings(calls)]
    return BareJsonParser(calls, tools, RegionParser(calls=calls, openings=openings, repeats=True))


def with_tools(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The turns as a template without tools can take them.

    The tools stand at the end of the first system turn, calls of earlier turns are written as the
    model would write them, and results are turns of the user's.
    """
    turns = [_written(message) for message in messages]
    if not tools:
        return _merged(turns)
    shown = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    instructions = _INSTRUCTIONS.format(tools=shown, opening=OPENING, closing=CLOSING)
    if turns and turns[0]["role"] == "system":
        system = concatenated(turns[0]["content"], instructions)
        return _merged([turns[0] | {"content": system}, *turns[1:]])
    return _merged([{"role": "system", "content": instructions}, *turns])


def _written(message: Message) -> Message:
    if message["role"] == "tool":
        opened = concatenated("<tool_response>", message["content"], between="\n")
        closed = concatenated(opened, "</tool_response>", between="\n")
        return {"role": "user", "content": closed}
    if not message.get("tool_calls"):
        return message
    calls = [
        f"{OPENING}\n{json.dumps(_call(call['function']), ensure_ascii=False)}\n{CLOSING}"
        for call in message["tool_calls"]
    ]
    content = concatenated(message["content"], "\n".join(calls), between="\n")
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    return kept | {"content": content}


def _call(function: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": function["name"], "arguments": function["arguments"]}


def _merged(turns: Sequence[Message]) -> list[Message]:
    """Results of several calls are one turn: templates want user and assistant to alternate."""
    return [
        run[0] | {"content": "\n".join(turn["content"] for turn in run)} if len(run) > 1 else run[0]
        for run in runs(turns, _is_more_result)
    ]


def _is_more_result(first: Message, turn: Message) -> bool:
    both_text = isinstance(first["content"], str) and isinstance(turn["content"], str)
    is_same = first["role"] == turn["role"] == "user"
    return is_same and both_text and turn["content"].startswith("<tool_response>")
