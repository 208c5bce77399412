"""Calls that must be made: `tool_choice` required or named, enforced from the first token on.

The output is constrained to one call object whatever the model's own format is, so that the
smallest model can do it, and read as that object. What cannot be enforced of a tool's schema is
left out, and told as a repair of its calls; for a tool that is `strict` the request is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
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


@dataclasses.dataclass(frozen=True, slots=True)
class ForcedCall:
    """A call that must be made.

    Attributes:
        schema: JSON Schema of the call object.
        repairs: tool name to what its calls are not held to; only tools with something to say.
    """

    schema: str
    repairs: Mapping[str, str]

    def parser(self, calls: Calls, tools: Tools) -> ChatParser:
        """Reads the one call."""

        def reader() -> JsonCall:
            return JsonCall(calls, tools, repairs=self.repairs)

        return LeadingParser(calls=calls, begins="{", reader=reader)


def is_forced(chat: conversation.Chat) -> bool:
    """True for a chat whose answer must be a call."""
    return chat.tool_choice.WhichOneof("mode") in {"required", "named"}


def forced_call(chat: conversation.Chat, tools: Tools) -> ForcedCall:
    """The call that must be made.

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
    alternatives: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    repairs: dict[str, str] = {}
    for index, tool in enumerate(chat.tools):
        if named and tool.name != named:
            continue
        try:
            arguments, writer = _arguments(tools.parameters[tool.name], index, tool.strict)
        except RecursionError as error:
            raise _refused(tool, index, "its schema is nested too deeply") from error
        if writer.left_out and tool.strict:
            raise _refused(tool, index, f"{writer.left_out[0]!r} cannot be enforced")
        if writer.left_out:
            repairs[tool.name] = f"not held to {', '.join(writer.left_out)} of the tool's schema"
        definitions |= writer.definitions
        alternatives.append(_call(tool.name, arguments))
    whole = {"anyOf": alternatives} if len(alternatives) > 1 else alternatives[0]
    text = json.dumps(whole | ({"$defs": definitions} if definitions else {}))
    return ForcedCall(text, repairs)


def _arguments(
    parameters: Mapping[str, Any],
    index: int,
    strict: bool,  # noqa: FBT001 - of one caller
) -> tuple[dict[str, Any], SchemaWriter]:
    """The schema of a tool's arguments, with everything that it refers to beside it."""
    document = SchemaDocument(parameters)
    writer = SchemaWriter(document, prefix=f"t{index}_", may_relax=not strict)
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
