"""What keeps a call that must be made from being enforced: which tool, and which of its keywords.

What can be seen in a schema is left out when it is written (`chat/schemas`). What llguidance alone
finds (parts that exclude one another, patterns that take too long) is looked for here, by leaving
out one keyword after another: a caller who is told of a schema that the server made of many tools
can do nothing about it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from cortex.v1 import conversation_pb2 as conversation
from services.neuron.chat.tool_calls import formats
from services.neuron.chat.tool_calls.forced import WHOLE, ForcedCall, forced_call, lenient

# Those that say most, and are most often to blame, come first. `properties` and `required` are not
# among them, nor is `type`: without them nothing is left to hold to.
_SUSPECTS: Final = (
    *("pattern", "format", "const", "enum", "multipleOf"),
    *("maxLength", "minLength", "maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum"),
    *("maxItems", "minItems", "maxProperties", "minProperties", "prefixItems", "items"),
    *("allOf", "oneOf", "anyOf", "patternProperties", "additionalProperties", "$ref"),
)
# Behind it what is left to try is given up: each try may take as long as a constraint may.
_MOST_SECONDS: Final = 10.0


async def loosen(
    chat: conversation.Chat, call: ForcedCall, holds: Callable[[str], Awaitable[bool]]
) -> Mapping[str, frozenset[str]]:
    """What has to be left out of the tools' schemas so that the call can be enforced.

    Args:
        chat: whose answer the call is.
        call: as it was written of all that could be seen.
        holds: says whether a JSON Schema can be enforced.

    Returns: by tool name, for `forced_call`; nothing where the call can be enforced as it is.

    Raises:
        FleetError: what `holds` raises; BAD_CONSTRAINT, the tool is strict.
    """
    if await _holds(call, holds):
        return {}
    until = time.monotonic() + _MOST_SECONDS
    loosened: dict[str, frozenset[str]] = {}
    for name in call.held:
        alone = _alone(chat, name)
        if await _holds(forced_call(alone, formats.tools_of(alone)), holds):
            continue
        loosened[name] = await _keyword(alone, call.held[name], holds, until)
    if loosened and await _holds(_lenient(chat, loosened), holds):
        return loosened
    # each holds, and not all of them together
    return dict.fromkeys(call.held, WHOLE)


async def _keyword(
    alone: conversation.Chat,
    held: Iterable[str],
    holds: Callable[[str], Awaitable[bool]],
    until: float,
) -> frozenset[str]:
    name = alone.tool_choice.named
    for keyword in sorted(set(held) & set(_SUSPECTS), key=_SUSPECTS.index):
        if time.monotonic() > until:
            break
        loosened = {name: frozenset({keyword})}
        if await _holds(_lenient(alone, loosened), holds):
            return loosened[name]
    return WHOLE


async def _holds(call: ForcedCall, holds: Callable[[str], Awaitable[bool]]) -> bool:
    return await holds(call.all_schema) and await holds(call.schema)


def _lenient(chat: conversation.Chat, loosened: Mapping[str, frozenset[str]]) -> ForcedCall:
    """As it would be written if no tool were strict."""
    relaxed = lenient(chat)
    return forced_call(relaxed, formats.tools_of(relaxed), loosened)


def _alone(chat: conversation.Chat, name: str) -> conversation.Chat:
    made = conversation.Chat()
    made.tools.extend(tool for tool in chat.tools if tool.name == name)
    made.tool_choice.named = name
    return made
