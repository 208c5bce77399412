"""How one answer is read and what it is held to: reasoning, tool calls, constraints. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.reasoning import ReasoningMarkers, ReasoningParser, is_opened
from services.neuron.chat.stream import ChatParser, PlainParser
from services.neuron.chat.tool_calls import forced, formats
from services.neuron.chat.tool_calls.families import harmony
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.engine_api.task import Constraint, ConstraintKind

# What may stand between the end of the reasoning and a constrained answer.
_BEHIND_REASONING: Final = """\
start: thought gap answer
thought[suffix={closing}]: /(?s:.*)/
gap: /\\s*/
{answer}"""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """How to read an answer, and the shape that it must take."""

    parser: ChatParser
    constraint: Constraint | None


@dataclasses.dataclass(frozen=True, slots=True)
class ChatStyle:
    """How a model writes.

    Attributes:
        markers: of its reasoning; None where it does not reason.
        tool_format: name of its tool-call format.
    """

    markers: ReasoningMarkers | None
    tool_format: str

    def answer(
        self,
        chat: conversation.Chat,
        *,
        tail: str,
        constraint: Constraint | None,
        new_id: Callable[[], str],
    ) -> Answer:
        """The reading of one answer.

        Args:
            chat: what is answered.
            tail: the end of the rendered prompt, behind its last control token.
            constraint: asked for by the request itself.
            new_id: makes ids of tool calls.

        Raises:
            FleetError: BAD_REQUEST, a call is required that cannot be made; BAD_CONSTRAINT, a
                grammar is asked for where the prompt has opened reasoning.
        """
        tools = formats.tools_of(chat)
        opened = self.markers is not None and is_opened(tail, self.markers)
        if forced.is_forced(chat):
            call = forced.forced_call(chat, tools)
            constraint = Constraint(ConstraintKind.JSON_SCHEMA, call.schema)
            parser = call.parser(Calls(new_id), tools)
        else:
            parser = self._parser(chat, tools, new_id, is_constrained=constraint is not None)
        if self.markers is None or isinstance(parser, harmony.HarmonyParser):
            return Answer(parser, constraint)
        if opened and constraint is not None:
            constraint = _behind_reasoning(self.markers, constraint)
        if not opened and constraint is not None:
            return Answer(parser, constraint)  # its first character is the shape's own
        return Answer(ReasoningParser(self.markers, opened=opened, answer=parser), constraint)

    def _parser(
        self,
        chat: conversation.Chat,
        tools: Tools,
        new_id: Callable[[], str],
        *,
        is_constrained: bool,
    ) -> ChatParser:
        has_tools = bool(tools.parameters) and chat.tool_choice.WhichOneof("mode") != "none"
        if is_constrained:
            return PlainParser()
        if has_tools or self.tool_format in formats.ALWAYS_READ:
            return formats.tool_parser(self.tool_format, tools, new_id)
        return PlainParser()


def _schema(text: str) -> dict[str, Any]:
    try:
        schema: Any = json.loads(text)
    except ValueError as error:
        raise FleetError(Reason.BAD_CONSTRAINT, f"The JSON schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise FleetError(Reason.BAD_CONSTRAINT, "The JSON schema is no object.")
    return schema  # pyright: ignore[reportUnknownVariableType] - JSON


def _bounded(schema: Mapping[str, Any]) -> str:
    """The schema with white space bounded, where small models lose themselves for ever."""
    return json.dumps({**schema, "x-guidance": {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,20}"}})


def _behind_reasoning(markers: ReasoningMarkers, constraint: Constraint) -> Constraint:
    """The same constraint, in force from the end of the reasoning on."""
    match constraint.kind:
        case ConstraintKind.JSON_OBJECT:
            answer = f"answer: %json {_bounded({'type': 'object'})}"
        case ConstraintKind.JSON_SCHEMA:
            answer = f"answer: %json {_bounded(_schema(constraint.text))}"
        case ConstraintKind.REGEX:
            answer = f"answer: /{constraint.text.replace('/', chr(92) + '/')}/"
        case ConstraintKind.LARK:
            raise FleetError(
                Reason.BAD_CONSTRAINT,
                "A grammar cannot be enforced behind reasoning; switch reasoning off.",
                field="constraint.grammar",
            )
    text = _BEHIND_REASONING.format(closing=json.dumps(markers.closing), answer=answer)
    return Constraint(ConstraintKind.LARK, text)
