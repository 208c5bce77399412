"""Calls that must be made: `tool_choice` required or named, enforced from the first token on.

The output is constrained to one call object whatever the model's own format is, so that the
smallest model can do it, and read as that object. What cannot be enforced of a tool's schema is
left out, and told as a repair of its calls; for a tool that is `strict` the request is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.schemas.document import SchemaDocument
from services.neuron.chat.schemas.enforcing import SchemaWriter
from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_call import JsonCall
from services.neuron.chat.tool_calls.parsing.leading_call import LeadingParser

# Keys by which a schema says more about arguments that it does not list.
_OPENING: Final = frozenset(
    {
        "$ref", "additionalProperties", "allOf", "anyOf", "dependencies", "dependentSchemas", "if",
        "oneOf", "patternProperties", "unevaluatedProperties",
    }
)  # fmt: skip

UNCHANGED: Final[Mapping[str, frozenset[str]]] = MappingProxyType({})
WHOLE: Final = frozenset({"*"})
ANY_ARGUMENTS: Final = MappingProxyType({"type": "object", "additionalProperties": True})


@dataclasses.dataclass(frozen=True, slots=True)
class ForcedCall:
    """A tool call that the answer must be, because the client asked for one (`tool_choice`).

    Attributes:
        schema: JSON Schema of the call object.
        all_schema: of an object with the arguments of every tool: nothing satisfies it where one
            of the tools can never be called, which `schema` alone does not show.
        repairs: tool name to what its calls are not held to; only tools with something to say.
        held: by tool name, the keywords that its calls are held to.
    """

    schema: str
    all_schema: str
    repairs: Mapping[str, str]
    held: Mapping[str, Sequence[str]]

    def parser(self, calls: Calls, tools: Tools) -> ChatParser:
        """Reads the one call."""

        def reader() -> JsonCall:
            return JsonCall(calls, tools, repairs=self.repairs)

        return LeadingParser(calls=calls, begins="{", reader=reader)


def is_forced(chat: conversation.Chat) -> bool:
    """True for a chat whose answer must be a call."""
    return chat.tool_choice.WhichOneof("mode") in {"required", "named"}


def lenient(chat: conversation.Chat) -> conversation.Chat:
    """The tools of a chat and the choice between them, as if no tool were strict."""
    made = conversation.Chat()
    made.tool_choice.CopyFrom(chat.tool_choice)
    for tool in chat.tools:
        made.tools.add(name=tool.name, parameters_schema_json=tool.parameters_schema_json)
    return made


def forced_call(
    chat: conversation.Chat, tools: Tools, loosened: Mapping[str, frozenset[str]] = UNCHANGED
) -> ForcedCall:
    """The call that must be made.

    Args:
        chat: whose answer it is.
        tools: of the chat.
        loosened: by tool name, keywords that were found to make its schema unenforceable;
            `WHOLE` where it is not one of them alone.

    Raises:
        FleetError: BAD_REQUEST, there is no tool to call, or none of that name; BAD_CONSTRAINT, a
            strict tool's schema cannot be enforced.
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
    written: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    repairs: dict[str, str] = {}
    held: dict[str, Sequence[str]] = {}
    for index, tool in enumerate(chat.tools):
        if named and tool.name != named:
            continue
        try:
            without = loosened.get(tool.name, frozenset())
            own = dict(ANY_ARGUMENTS) if without is WHOLE else tools.parameters[tool.name]
            arguments, writer = _arguments(own, index, may_relax=not tool.strict, without=without)
        except RecursionError as error:
            raise _refused(tool, index, "its schema is nested too deeply") from error
        if without is WHOLE:
            if tool.strict:
                raise _refused(tool, index, "nothing can satisfy its schema, or it takes too long")
            repairs[tool.name] = "not held to the tool's schema"
        if writer.left_out and tool.strict:
            raise _refused(tool, index, f"{writer.left_out[0]!r} cannot be enforced")
        if writer.left_out:
            repairs[tool.name] = f"not held to {', '.join(writer.left_out)} of the tool's schema"
        held[tool.name] = writer.held
        definitions |= writer.definitions
        written[tool.name] = arguments
    alternatives = [_call(name, arguments) for name, arguments in written.items()]
    whole = {"anyOf": alternatives} if len(alternatives) > 1 else alternatives[0]
    every = {"type": "object", "properties": written, "required": list(written)}
    more = {"$defs": definitions} if definitions else {}
    return ForcedCall(json.dumps(whole | more), json.dumps(every | more), repairs, held)


def _arguments(
    parameters: Mapping[str, Any],
    index: int,
    *,
    may_relax: bool,
    without: frozenset[str],
) -> tuple[dict[str, Any], SchemaWriter]:
    """The schema of a tool's arguments, with everything that it refers to beside it."""
    document = SchemaDocument(parameters)
    writer = SchemaWriter(document, prefix=f"t{index}_", may_relax=may_relax, without=without)
    try:
        own = document.followed(document.root)
    except LookupError:
        own = document.root
    written: dict[str, Any] = writer.write(own) or {}
    written["type"] = "object"
    if not own.keys() & _OPENING:
        # a small model that may add arguments of its own does not stop adding them
        listed: dict[str, Any] = written.get("properties", {})
        more: dict[str, Any] = {key: {} for key in written.get("required", ()) if key not in listed}
        written |= {"properties": listed | more, "additionalProperties": False}
    return written, writer


def _refused(tool: conversation.Tool, index: int, why: str) -> FleetError:
    return FleetError(
        Reason.BAD_CONSTRAINT,
        f"A call of the tool {tool.name!r} cannot be forced: {why}.",
        field=f"tools.{index}.parameters_schema_json",
    )


def _call(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
