"""The parts and turns of a conversation, as dialects read them, and how a request gets them.

They are plain values until `write` puts each into its place in the request: a message of protobuf
that becomes part of another one is copied twice, and a text stands four levels deep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.common.slices import rest

# What is copied without a pause before and after it.
_LARGE: Final = 1 << 20

_Holder: TypeAlias = conversation.Message | conversation.ToolResult


def add_text(holder: _Holder, text: str) -> None:
    """Adds a piece of text to the parts of a message."""
    holder.parts.add().text = text
    if len(text) > _LARGE:
        rest()


class Text(NamedTuple):
    """A piece of text."""

    text: str

    def write(self, holder: _Holder) -> None:
        """Adds it to the parts of a message."""
        add_text(holder, self.text)


class Reasoning(NamedTuple):
    """Reasoning of the model in an earlier turn."""

    text: str
    signature: str = ""

    def write(self, holder: _Holder) -> None:
        """Adds it to the parts of a message."""
        added = holder.parts.add().reasoning
        added.text, added.signature = self.text, self.signature
        added.SetInParent()


class Picture(NamedTuple):
    """A picture, decoded from base64."""

    data: bytes
    mime_type: str

    def write(self, holder: _Holder) -> None:
        """Adds it to the parts of a message."""
        added = holder.parts.add().image
        added.data, added.mime_type = self.data, self.mime_type
        if len(self.data) > _LARGE:
            rest()


class Call(NamedTuple):
    """A call that the model made in an earlier turn; empty arguments become `{}`."""

    call_id: str
    name: str
    arguments_json: str

    def write(self, holder: _Holder) -> None:
        """Adds it to the parts of a message."""
        added = holder.parts.add().tool_call
        added.call_id, added.name = self.call_id, self.name
        added.arguments_json = self.arguments_json or "{}"


Part: TypeAlias = Text | Reasoning | Picture | Call


class Answered(NamedTuple):
    """Which call a tool's result answers.

    Attributes:
        call_id: of the call.
        name: of its tool; empty where nobody has said.
        is_error: the tool failed.
    """

    call_id: str
    name: str
    is_error: bool


class Turn(NamedTuple):
    """One turn.

    Attributes:
        role: whose.
        parts: in order.
        name: the speaker's own.
        answered: the call that it is the result of; None for all other turns.
    """

    role: conversation.Role.ValueType
    parts: Sequence[Part]
    name: str = ""
    answered: Answered | None = None


def result(
    call_id: str,
    parts: Sequence[Part],
    *,
    names: dict[str, str],
    is_error: bool | None = False,
) -> Turn:
    """The turn with the result of one call; `names` has the tool of each call so far."""
    answered = Answered(call_id, names.get(call_id, ""), bool(is_error))
    return Turn(conversation.ROLE_TOOL, parts, answered=answered)


def write(turns: Iterable[Turn], chat: conversation.Chat) -> None:
    """Adds turns to the messages of a chat."""
    for turn in turns:
        write_turn(turn, chat)


def write_turn(turn: Turn, chat: conversation.Chat) -> None:
    """Adds a turn to the messages of a chat."""
    message = chat.messages.add(role=turn.role, name=turn.name)
    holder: _Holder = message
    if turn.answered is not None:
        holder = message.parts.add().tool_result
        holder.call_id, holder.name, holder.is_error = turn.answered
        holder.SetInParent()
    for part in turn.parts:
        part.write(holder)
