"""What a whole call object means: its name and its arguments, wherever the model put them. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

from services.neuron.chat.tool_calls.parsing.arguments import dumps
from services.neuron.chat.tool_calls.parsing.calls import Tools

NAME_KEYS: Final = frozenset({"name", "tool_name", "tool", "function"})
ARGUMENT_KEYS: Final = frozenset({"arguments", "parameters", "args", "input", "params"})
# Said of a call beside its name and arguments, and of no use to whoever makes it.
_ABOUT: Final = frozenset({"id", "type", "tool_call_id", "index"})
_LONGEST: Final = 200
DECODED: Final = "decoded arguments that were a string of JSON"
CALL_KEYS: Final = NAME_KEYS | ARGUMENT_KEYS | _ABOUT


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedCall:
    """A tool call found in a JSON object that the model wrote.

    Attributes:
        name: of the tool.
        arguments_json: an object; as the model wrote it, where that could be.
        repairs: what had to be mended.
    """

    name: str
    arguments_json: str
    repairs: tuple[str, ...] = ()


def resolve(
    name: str, arguments_json: str | None, others: Mapping[str, Any], tools: Tools
) -> ResolvedCall | None:
    """The call that an object describes; None where it is none.

    1. Arguments that are a string of JSON are decoded; null and an empty list are no arguments;
       anything else than an object makes it no call.
    2. A name that is missing is taken from inside the arguments (`name`, if a tool is called so),
       else it is that of the only tool that takes just these arguments. Without a name: no call.
    3. Keys beside the name that the tool's schema has as properties are arguments too; arguments
       in their own place win.
    4. All other keys are left out, and each is told as a repair, but those that only describe the
       call (`id`, `type`).

    Args:
        name: as given; empty for none.
        arguments_json: as given, JSON; None for none.
        others: the object's other keys.
        tools: of the request.

    Raises:
        ValueError: an argument is a number that JSON cannot spell.
    """
    repairs: list[str] = []
    given: Any = json.loads(arguments_json) if arguments_json is not None else {}
    if isinstance(given, str):
        arguments_json, given = None, _decoded(given)  # its JSON may be looser than ours
        repairs.append(DECODED)
    arguments: Any = {} if given in (None, []) else given
    if not isinstance(arguments, dict):
        return None
    if not name:
        name, arguments, repair = _named(arguments, tools)
        repairs.append(repair)
    if not name:
        return None
    beside = {key: value for key, value in others.items() if tools.knows(name, key)}
    if beside:
        arguments = beside | arguments
        repairs.append("took arguments from beside the name")
    rest = {key: value for key, value in others.items() if key not in beside}
    written = arguments_json if arguments is given else None
    return ResolvedCall(name, written or dumps(arguments), (*repairs, *left_out(rest)))


def left_out(others: Mapping[str, Any]) -> list[str]:
    """What to say about keys that are no part of a call."""
    kept = {key: value for key, value in others.items() if key not in _ABOUT}
    return [f"left out {key!r}: {json.dumps(value)[:_LONGEST]}" for key, value in kept.items()]


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _named(arguments: dict[str, Any], tools: Tools) -> tuple[str, dict[str, Any], str]:
    """The name that was left out, the arguments without it, and what to say about it."""
    inner = arguments.get("name")
    if isinstance(inner, str) and inner in tools.parameters:
        rest = {key: value for key, value in arguments.items() if key != "name"}
        only = next(iter(rest.values())) if rest.keys() & ARGUMENT_KEYS and len(rest) == 1 else None
        inside = only if isinstance(only, dict) else rest
        return inner, inside, "took the name from inside the arguments"
    found = tools.by_arguments(list(arguments))
    return found or "", arguments, "inferred the missing name from the arguments"
