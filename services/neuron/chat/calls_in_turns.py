"""Other forms of earlier calls, for templates that refuse the one in which they came. Pure.

What this fleet once told comes back: broken arguments, two calls in a turn, reasoning and text
beside a call. Templates walk over arguments as objects, take one call a turn, or refuse text beside
it. Nothing is dropped: arguments that are no object are shown as the text that they are.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from services.neuron.chat.messages import Message, concatenated

# mistral-common's rule for ids of calls, which Mistral's templates check.
_ID_LENGTH: Final = 9


def repaired(messages: Sequence[Message]) -> list[Message]:
    """Arguments as objects, short ids, and text beside a thought and calls in the thought."""
    made: list[Message] = []
    for message in messages:
        new = dict(message)
        if "tool_calls" in message:
            new["tool_calls"] = [_repaired(call) for call in message["tool_calls"]]
            if message.get("thinking") and isinstance(message["content"], str):
                thought = concatenated(message["thinking"], message["content"])
                new |= {"thinking": thought, "content": ""}
        if "tool_call_id" in message:
            new["tool_call_id"] = _short_id(message["tool_call_id"])
        made.append(new)
    return made


def one_a_turn(messages: Sequence[Message]) -> list[Message]:
    """Each call in a turn of its own, its result behind it; all else goes with the first."""
    made: list[Message] = []
    # turns with calls whose results have not come yet, by the call's id
    waiting: dict[str, deque[Message]] = {}
    for message in messages:
        if message["role"] == "tool":
            own = waiting.get(message.get("tool_call_id", ""))
            if own:
                made.append(own.popleft())
        else:
            made += itertools.chain.from_iterable(waiting.values())
            waiting = {}
        calls = message.get("tool_calls", ())
        if len(calls) > 1:
            bare = {"role": message["role"], "content": ""}
            for index, call in enumerate(calls):
                alone = (bare if index else message) | {"tool_calls": [call]}
                waiting.setdefault(call["id"], deque()).append(alone)
        else:
            made.append(message)
    return [*made, *itertools.chain.from_iterable(waiting.values())]


def text_apart(messages: Sequence[Message]) -> list[Message]:
    """Splits turns that have text and tool calls in two, for templates that refuse both."""
    made: list[Message] = []
    for message in messages:
        if message.get("tool_calls") and message["content"]:
            made.append({"role": message["role"], "content": message["content"]})
            made.append(message | {"content": ""})
        else:
            made.append(message)
    return made


def _repaired(call: Message) -> Message:
    function: dict[str, Any] = call["function"]
    written: Any = function["arguments"]
    if not isinstance(written, dict):
        text = written if isinstance(written, str) else json.dumps(written, ensure_ascii=False)
        shown = {} if written in (None, []) else {"arguments": text}
        function = function | {"arguments": shown}
    return call | {"id": _short_id(call["id"]), "function": function}


def _short_id(call_id: str) -> str:
    if len(call_id) == _ID_LENGTH and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:_ID_LENGTH]
