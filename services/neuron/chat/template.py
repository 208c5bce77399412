"""Renders a model's own chat template, in a sandbox, to a prompt that users cannot forge."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.calls_in_turns import one_a_turn
from services.neuron.chat.jinja import environment
from services.neuron.chat.json_values import loads, well_formed
from services.neuron.chat.messages import Message, to_messages, to_tools
from services.neuron.chat.reasoning import SPELLINGS
from services.neuron.chat.segments import END_MARK, ControlTokens, unguard
from services.neuron.chat.tool_calls.families import generic
from services.neuron.chat.turns import system_texts, variants
from services.neuron.engine_api.task import Prompt, Segment, Value

_LONGEST_COMPLAINT: Final = 300
_LONGEST_PROMPT: Final = 1 << 27
"""Characters; more than any body that is taken can make."""
# What templates say that know reasoning by the other name, that show the first call of a turn, and
# that show each.
_THINKING: Final = re.compile(
    r"""\.thinking\b|['"]thinking['"]\s*(?:\]|in\b)|get\(\s*['"]thinking"""
)
_ONE_CALL: Final = re.compile(r"""tool_calls(?:['"]\s*\])?\s*(?:\[\s*0\s*\]|\|\s*first)""")
_EACH_CALL: Final = re.compile(r"""\bin\s+[\w.\[\]'"]*tool_calls""")


class TemplateOverrunError(Exception):
    """The template wrote more than is allowed; it may be in an endless loop."""


class Rendered(Value, frozen=True):
    """A rendered prompt.

    Attributes:
        prompt: what is tokenised.
        tail: the opening of the answer: what follows the last control token that does not mark
            reasoning. What was guarded in it still is.
    """

    prompt: Prompt
    tail: str


class ChatTemplate:
    """One model's chat template (Jinja), compiled once, run in a sandbox."""

    def __init__(
        self,
        source: str,
        *,
        control_tokens: Mapping[str, int],
        variables: Mapping[str, Any],
        shows_tools: bool = True,
        today: Callable[[], dt.datetime] = dt.datetime.now,
    ) -> None:
        """Compiles a template.

        Args:
            source: Jinja source.
            control_tokens: the model's, by spelling.
            variables: `bos_token`, `eos_token`.
            shows_tools: False for a template that knows no tools: they are shown in the system
                turn instead, see `tool_calls.generic`.
            today: the clock of `strftime_now`.

        Raises:
            FleetError: TEMPLATE_FAILED, the source is no Jinja.
        """
        self.source = source
        self._tokens = ControlTokens(control_tokens)
        # In many vocabularies the markers of reasoning are control tokens too.
        self._others = ControlTokens(set(control_tokens) - SPELLINGS)
        self._variables = dict(variables)
        self._shows_tools = shows_tools
        try:
            self._template = environment(today).from_string(source)
        except MemoryError:
            raise
        except Exception as error:
            words = str(error)[:_LONGEST_COMPLAINT] or type(error).__name__
            raise _failed(f"The model's chat template cannot be read: {words}") from error

    def render(self, chat: conversation.Chat, variables: Mapping[str, Any]) -> Rendered:
        """The prompt of a chat.

        Args:
            chat: the conversation.
            variables: more for the template (`enable_thinking`).

        Raises:
            FleetError: BAD_REQUEST for a chat that says nothing, TEMPLATE_FAILED where the template
                refuses every order of the turns, or leaves out tools or system turns.
            MemoryError, TemplateOverrunError: it writes more than any prompt has.
        """
        tools = to_tools(chat)
        try:
            given = self._tokens.guard_all({"tools": tools})
            context = {**self._variables, **self._tokens.guard_all(_own(chat)), **variables}
            messages = [self._guarded(message) for message in to_messages(chat)]
            if _ONE_CALL.search(self.source) and not _EACH_CALL.search(self.source):
                messages = one_a_turn(messages)
        except RecursionError as error:
            raise FleetError(Reason.BAD_REQUEST, "The chat's JSON is nested too deeply.") from error
        if self._shows_tools:
            context["tools"] = given["tools"]
        elif tools or any("tool_calls" in each or each["role"] == "tool" for each in messages):
            messages = generic.with_tools(messages, given["tools"] or [])
        context["add_generation_prompt"] = not chat.continue_final_message
        if chat.continue_final_message:
            messages[-1] = _marked(messages[-1])
        text = self._accepted(messages, context)
        if tools:
            self._check_tools(tools, text)
        if chat.continue_final_message:
            text = _cut(text)
        tail = text[self._others.end_of_last(text) :]
        return Rendered(Prompt(segments=self._tokens.split(text)), tail)

    def _guarded(self, message: Message) -> Message:
        guarded: Message = self._tokens.guard_all(message)
        if "reasoning_content" in message and _THINKING.search(self.source):
            guarded["thinking"] = guarded["reasoning_content"]
        if message["role"] == "assistant":
            # Templates cut earlier reasoning out of the model's own turns by its markers.
            guarded["content"] = self._others.guard_all(message["content"])
        return guarded

    def _accepted(self, messages: Sequence[Message], context: Mapping[str, Any]) -> str:
        """The first order of the turns that the template takes whole."""
        wanted = [_dense(text) for text in system_texts(messages)]
        complaint: FleetError | None = None
        for variant in variants(messages):
            try:
                # templates written in JSON have emoji in two halves
                text = well_formed(self._written({**context, "messages": variant}))
            except (MemoryError, TemplateOverrunError):
                raise
            except Exception as error:  # noqa: BLE001 - a template is foreign code
                words = str(error)[:_LONGEST_COMPLAINT] or type(error).__name__
                failure = _failed(f"The model's chat template refuses the chat: {words}")
                complaint = complaint or failure
                continue
            if not wanted or _first_missing(wanted, _dense(text)) is None:
                return text
            complaint = complaint or _failed("The model's chat template leaves out a system turn.")
        assert complaint is not None
        raise complaint

    def _written(self, context: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        length = 0
        for piece in self._template.generate(context):
            length += len(piece)
            if length > _LONGEST_PROMPT:
                raise TemplateOverrunError
            pieces.append(piece)
        return "".join(pieces)

    def _check_tools(self, tools: Sequence[Mapping[str, Any]], text: str) -> None:
        name = _first_missing([tool["function"]["name"] for tool in tools], unguard(text))
        if name is not None:
            raise _failed(
                f"The model's chat template does not show it the tool {name!r}: "
                "this model takes no tools.",
                field="tools",
            )


def text_prompt(text: str) -> Prompt:
    """A text to embed as a prompt; control tokens are not recognised in it."""
    return Prompt(segments=(Segment(text),) if text else (), add_bos=True)


def raw_prompt(text: str, tokens: ControlTokens) -> Prompt:
    """A prompt that its caller has written, control tokens and all (fill in the middle)."""
    return Prompt(segments=tokens.split(text), add_bos=True)


def _own(chat: conversation.Chat) -> dict[str, Any]:
    """The variables that came with the request."""
    if not chat.template_variables_json:
        return {}
    field = "template_variables_json"
    try:
        variables: Any = loads(chat.template_variables_json)
    except ValueError as error:
        raise FleetError(Reason.BAD_REQUEST, f"Not JSON: {error}.", field=field) from error
    if not isinstance(variables, dict):
        raise FleetError(Reason.BAD_REQUEST, "Not a JSON object.", field=field)
    return variables  # pyright: ignore[reportUnknownVariableType] - JSON


def _marked(message: Message) -> Message:
    if message["role"] != "assistant" or not isinstance(message["content"], str):
        raise FleetError(
            Reason.BAD_REQUEST,
            "Only a text of the assistant's can be continued.",
            field="continue_final_message",
        )
    return message | {"content": message["content"] + END_MARK}


def _cut(text: str) -> str:
    end = text.rfind(END_MARK)
    if end < 0:
        raise _failed("The model's chat template leaves out the turn to continue.")
    return text[:end]


def _dense(text: str) -> str:
    """Templates trim and indent; only what is written counts."""
    return "".join(unguard(text).split())


def _first_missing(parts: Sequence[str], text: str) -> str | None:
    """The first of these parts that is not in a text; None where all are.

    Each is looked for behind the one before it first, so that many in their order are found in one
    pass.
    """
    start = 0
    for part in parts:
        start = text.find(part, start)
        if start < 0:
            start = text.find(part)
        if start < 0:
            return part
    return None


def _failed(message: str, *, field: str | None = None) -> FleetError:
    return FleetError(Reason.TEMPLATE_FAILED, message, field=field)
