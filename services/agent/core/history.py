"""The conversation as the agent keeps it: no dialect of any endpoint, one tagged union.

These structs are also the stored form (`store`), so a field is only ever added, with a default.
"""

from collections.abc import Sequence
from typing import Any

import msgspec


class TextPart(msgspec.Struct, tag="text", frozen=True):
    """Text that the user wrote or attached."""

    text: str


class ImagePart(msgspec.Struct, tag="image", frozen=True):
    """A picture in a prompt: base64 data and its media type."""

    data: str
    mime_type: str


Part = TextPart | ImagePart


class UserTurn(msgspec.Struct, tag="user", frozen=True):
    """What the user sent in one prompt.

    Attributes:
        is_refused: the endpoint took no request with it, so that no later one has it.
    """

    parts: tuple[Part, ...]
    is_refused: bool = False


class ToolCall(msgspec.Struct, frozen=True):
    """One call that the model made.

    `arguments` is None when the model's text could not be read as a call; `raw` then holds that
    text and `note` what is wrong with it. Else `note` says what was repaired, if anything.
    """

    id: str
    name: str
    arguments: dict[str, Any] | None
    raw: str = ""
    note: str = ""


class Thought(msgspec.Struct, frozen=True):
    """Reasoning of the model; `seal` is what the dialect `sealed_by` wants back with it."""

    text: str
    seal: str = ""
    sealed_by: str = ""


class AssistantTurn(msgspec.Struct, tag="assistant", frozen=True):
    """What the model answered in one round."""

    text: str = ""
    thoughts: tuple[Thought, ...] = ()
    calls: tuple[ToolCall, ...] = ()


class ToolResult(msgspec.Struct, frozen=True):
    """What one call gave: the text that the model reads, and pictures."""

    call_id: str
    name: str
    text: str
    is_error: bool = False
    pictures: tuple[ImagePart, ...] = ()


class ResultsTurn(msgspec.Struct, tag="results", frozen=True):
    """The results of one round's calls, in the order of the calls."""

    results: tuple[ToolResult, ...]


Turn = UserTurn | AssistantTurn | ResultsTurn


def without_pictures(turns: Sequence[Turn]) -> list[Turn]:
    """Returns the turns for a model without eyes, which endpoints refuse pictures for."""
    return [_without_pictures(turn) for turn in turns]


_UNSEEN = "[a picture, left out: this model does not take any]"


def _without_pictures(turn: Turn) -> Turn:
    if isinstance(turn, ResultsTurn):
        return ResultsTurn(results=tuple(map(_blind, turn.results)))
    if not isinstance(turn, UserTurn):
        return turn
    parts = tuple(TextPart(_UNSEEN) if isinstance(part, ImagePart) else part for part in turn.parts)
    return msgspec.structs.replace(turn, parts=parts)


def _blind(result: ToolResult) -> ToolResult:
    if not result.pictures:
        return result
    text = "\n".join([result.text, *[_UNSEEN] * len(result.pictures)]).strip()
    return msgspec.structs.replace(result, text=text, pictures=())


def user_text(turn: UserTurn) -> str:
    """Returns the text parts of a user turn, a blank line between them."""
    return "\n\n".join(part.text for part in turn.parts if isinstance(part, TextPart))


def call_ids(turns: list[Turn]) -> set[str]:
    """Returns every tool call id that the conversation has used."""
    return {call.id for turn in turns if isinstance(turn, AssistantTurn) for call in turn.calls}
