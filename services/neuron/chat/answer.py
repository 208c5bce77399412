"""How one answer is read and what it is held to: reasoning, tool calls, constraints. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError
from services.neuron.chat.answer_grammar import JsonCalls, Spelling, behind, rules
from services.neuron.chat.reasoning import ReasoningMarkers, ReasoningParser, is_opened
from services.neuron.chat.shaped import ShapedParser
from services.neuron.chat.stream import ChatParser, PlainParser
from services.neuron.chat.tool_calls import forced, formats
from services.neuron.chat.tool_calls.families import harmony
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools
from services.neuron.engine_api.task import Constraint, ConstraintKind


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """How to read an answer, and what it is held to.

    Attributes:
        parser: reads the output.
        constraint: that the output is held to.
        call: that the answer must be, or may be in place of its shape.
    """

    parser: ChatParser
    constraint: Constraint | None
    call: forced.ForcedCall | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ChatStyle:
    """How a model writes.

    Attributes:
        markers: of its reasoning; None where it does not reason.
        tool_format: name of its tool-call format.
        control_tokens: of its vocabulary, by spelling.
    """

    markers: ReasoningMarkers | None
    tool_format: str
    control_tokens: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])

    def answer(
        self,
        chat: conversation.Chat,
        *,
        tail: str,
        constraint: Constraint | None,
        new_id: Callable[[], str],
        loosened: Mapping[str, frozenset[str]] = forced.UNCHANGED,
    ) -> Answer:
        """The parser of one answer, with what the prompt already holds of it.

        Args:
            chat: what is answered.
            tail: the end of the rendered prompt, behind its last control token.
            constraint: asked for by the request itself.
            new_id: makes ids of tool calls.
            loosened: of a call that its tool's schema is enforced of; see `forced_call`.

        Raises:
            FleetError: BAD_REQUEST, a call is required that cannot be made; BAD_CONSTRAINT, its
                schema or the constraint cannot be enforced.
        """
        tools = formats.tools_of(chat)
        opened = self.markers is not None and is_opened(tail, self.markers)
        has_tools = bool(tools.parameters) and chat.tool_choice.WhichOneof("mode") != "none"
        parser: ChatParser = PlainParser()
        openings: Sequence[str] = ()
        held: JsonCalls | None = None
        call: forced.ForcedCall | None = None
        if forced.is_forced(chat):
            call = forced.forced_call(chat, tools, loosened)
            constraint = Constraint(ConstraintKind.JSON_SCHEMA, call.schema)
            parser = call.parser(Calls(new_id), tools)
        elif has_tools or (constraint is None and self.tool_format in formats.ALWAYS_READ):
            parser = formats.tool_parser(self.tool_format, tools, new_id)
            if constraint is not None and isinstance(parser, harmony.HarmonyParser):
                return Answer(parser, self._in_channels(constraint))
            if constraint is not None:
                openings = parser.openings
                parser = ShapedParser(parser)
                call, held = self._held_calls(chat, tools, loosened)
        if self.markers is None or isinstance(parser, harmony.HarmonyParser):
            return Answer(parser, self._around(constraint, "", openings, held), call)
        if not opened and constraint is not None:  # its first character is the shape's own
            return Answer(parser, self._around(constraint, "", openings, held), call)
        constraint = self._around(constraint, self.markers.closing, openings, held)
        parser = ReasoningParser(self.markers, opened=opened, answer=parser)
        return Answer(parser, constraint, call)

    def _held_calls(
        self,
        chat: conversation.Chat,
        tools: Tools,
        loosened: Mapping[str, frozenset[str]],
    ) -> tuple[forced.ForcedCall | None, JsonCalls | None]:
        """What calls in place of a shape are held to, in formats that a grammar can hold.

        Otherwise a small model that begins a call and loses itself has left the shape for good:
        what is no call of the tools at hand is text, whatever it says.
        """
        markers = formats.JSON_CALLS.get(self.tool_format)
        if markers is None:
            return None, None
        try:
            call = forced.forced_call(forced.lenient(chat), tools, loosened)
        except FleetError:  # nested too deeply to be written
            return None, None
        return call, JsonCalls(*markers, call.schema)

    def _around(
        self,
        constraint: Constraint | None,
        closing: str,
        openings: Sequence[str],
        held: JsonCalls | None,
    ) -> Constraint | None:
        spelling = Spelling(self.control_tokens)
        return constraint and behind(
            constraint, closing=closing, openings=openings, spelling=spelling, held=held
        )

    def _in_channels(self, constraint: Constraint) -> Constraint:
        spelling = Spelling(self.control_tokens)
        text = "\n".join([*harmony.grammar(spelling), *rules(constraint, (), spelling)])
        return Constraint(ConstraintKind.LARK, text)
