"""Calls that must be made: `tool_choice` required or named, enforced from the first token on.

The output is constrained to one call object whatever the model's own format is, so that the
smallest model can do it, and read as that object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_call import JsonCall
from services.neuron.chat.tool_calls.parsing.region import LeadingParser

# Keys by which a schema says more about arguments that it does not list.
_OPENING: Final = frozenset(
    {
        "$ref", "additionalProperties", "allOf", "anyOf", "oneOf", "patternProperties",
        "unevaluatedProperties",
    }
)  # fmt: skip


def is_forced(chat: conversation.Chat) -> bool:
    """True for a chat whose answer must be a call."""
    return chat.tool_choice.WhichOneof("mode") in {"required", "named"}


def schema(chat: conversation.Chat, tools: Tools) -> str:
    """JSON Schema of the call that must be made.

    Raises:
        FleetError: BAD_REQUEST, there is no tool to call, or none of that name.
    """
    named = chat.tool_choice.named
    if named and named not in tools.parameters:
        raise FleetError(
            Reason.BAD_REQUEST, f"There is no tool {named!r} to call.", field="tool_choice"
        )
    if not tools.parameters:
        raise FleetError(
            Reason.BAD_REQUEST, "A call is required, but there are no tools.", field="tool_choice"
        )
    wanted = {named: tools.parameters[named]} if named else tools.parameters
    alternatives = [_call(name, parameters) for name, parameters in wanted.items()]
    definitions: dict[str, Any] = {}
    for parameters in wanted.values():
        for key in ("$defs", "definitions"):
            definitions.setdefault(key, {}).update(parameters.get(key, {}))
    whole = {"anyOf": alternatives} if len(alternatives) > 1 else alternatives[0]
    return json.dumps(whole | {key: value for key, value in definitions.items() if value})


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads the one call."""
    return LeadingParser(calls=calls, begins="{", reader=lambda: JsonCall(calls, tools))


def _call(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in parameters.items() if key not in {"$defs", "definitions"}}
    arguments: dict[str, Any] = {"type": "object", **own}
    if own.get("properties") and not own.keys() & _OPENING:
        # a small model that may add arguments of its own does not stop adding them
        arguments["additionalProperties"] = False
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
