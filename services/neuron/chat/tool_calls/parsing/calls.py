"""Where readers of tool calls put what they find, and the protocol that they implement."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from services.neuron.chat.schemas import kinds
from services.neuron.chat.schemas.document import SchemaDocument, regular
from services.neuron.chat.stream import Piece, TextPiece, ToolCallPiece
from services.neuron.chat.tool_calls.parsing.arguments import dumps

CUT_OFF: Final = "closed: the output ended inside the call"


@dataclasses.dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one request, as the readers of calls look them up.

    Attributes:
        parameters: tool name to the JSON Schema of its arguments.
    """

    parameters: Mapping[str, Mapping[str, Any]]

    def knows(self, name: str, key: str) -> bool:
        """Whether a tool's schema says something of an argument."""
        return kinds.property_schema(self._document(name), key) is not None

    def kinds(self, name: str, key: str) -> frozenset[str]:
        """The types that an argument may have; all where its schema is not known."""
        document = self._document(name)
        return kinds.kinds(kinds.property_schema(document, key), document)

    def by_arguments(self, keys: Sequence[str]) -> str | None:
        """The only tool that takes all of these arguments and needs no others; None if unclear."""
        fitting: list[str] = []
        for name, schema in self.parameters.items():
            own = regular(schema)
            needs = {key for key in own.get("required", ()) if isinstance(key, str)}
            if keys and own.get("properties", {}).keys() >= set(keys) >= needs:
                fitting.append(name)
        return fitting[0] if len(fitting) == 1 else None

    def _document(self, name: str) -> SchemaDocument:
        return SchemaDocument(self.parameters.get(name))


class Calls:
    """Collects pieces of one output in order; numbers calls and names them.

    Attributes:
        is_cut: the output was ended from outside; calls without an end stay open.
        is_open: the newest call's arguments are no JSON, and told as they are written.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._pieces: list[Piece] = []
        self._index = -1
        self._repairs: set[str] = set()
        self._blank = ""
        self._has_text = False
        self.is_cut = False
        self.is_open = False

    @property
    def count(self) -> int:
        """Calls begun."""
        return self._index + 1

    def text(self, text: str) -> None:
        """Text of the answer; blanks before a call, or between two, are no part of it."""
        text = self._blank + text
        if not self._has_text and not text.strip():
            self._blank = text
            return
        self._blank, self._has_text = "", True
        if text:
            self.piece(TextPiece(text))

    def piece(self, piece: Piece) -> None:
        """Any piece as it is; text joins text before it."""
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, TextPiece) and isinstance(piece, TextPiece):
            self._pieces[-1] = TextPiece(last.text + piece.text)
        else:
            self._pieces.append(piece)

    def begin(self, name: str, *, repair: str = "") -> None:
        """A call begins."""
        self._index += 1
        self._blank, self._has_text = "", False
        self._repairs = set()
        self.is_open = False
        new = ToolCallPiece(self._index, call_id=self._new_id(), name=name)
        self._pieces.append(dataclasses.replace(new, repair=self._unsaid(repair)))

    def arguments(self, fragment: str, *, repair: str = "") -> None:
        """More of the newest call's arguments."""
        repair = self._unsaid(repair)
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, ToolCallPiece) and last.index == self._index:
            self._pieces[-1] = dataclasses.replace(
                last,
                arguments_json=last.arguments_json + fragment,
                repair="; ".join(filter(None, (last.repair, repair))),
                incomplete=self.is_open,
            )
        elif fragment or repair or self.is_open:
            new = ToolCallPiece(self._index, arguments_json=fragment, repair=repair)
            self._pieces.append(dataclasses.replace(new, incomplete=self.is_open))

    def leave_open(self, written: str = "", *, repair: str = "") -> None:
        """The newest call cannot be made: its arguments stay as they were written."""
        self.is_open = True
        self.arguments(written, repair=repair)

    def cut_off(self, missing: str, *, held: str = "") -> None:
        """The output ended inside the newest call.

        Args:
            missing: would make its arguments JSON; empty where they are whole.
            held: was written of them and not told.
        """
        if self.is_cut and missing:
            self.leave_open(held)
        else:
            self.arguments(missing, repair=CUT_OFF)

    def whole(self, name: str, arguments: Any, *, repair: str = "") -> None:
        """A call that is known all at once.

        Raises:
            ValueError: the arguments cannot be spelled in JSON; nothing was told.
        """
        arguments_json = dumps(arguments)
        self.begin(name, repair=repair)
        self.arguments(arguments_json)

    def take(self) -> list[Piece]:
        """What was collected since the last time."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def take_last(self) -> list[Piece]:
        """As `take`, at the end of the output: an answer may be nothing but blanks."""
        if self._blank and not self.count:
            self._pieces.append(TextPiece(self._blank))
            self._blank = ""
        return self.take()

    def _unsaid(self, repair: str) -> str:
        """The repairs that this call has not been told of yet."""
        new = [each for each in repair.split("; ") if each and each not in self._repairs]
        self._repairs.update(new)
        return "; ".join(new)


class CallProgress(enum.Enum):
    """What a reader made of the character that it was given."""

    MORE = enum.auto()
    """It was read; the call goes on."""
    DONE = enum.auto()
    """It was the last of the call."""
    BEYOND = enum.auto()
    """The call had ended before it; the character is not the reader's."""
    BROKEN = enum.auto()
    """It does not fit. What the reader had not told yet is in `unread`, this character included."""


class CallReader(Protocol):
    """Reads the inside of one tool-call region, a character at a time."""

    @property
    def unread(self) -> str:
        """What was read so far and is not yet part of a call; text, if no call comes of it."""
        ...

    def push(self, char: str) -> CallProgress:
        """Reads a character."""
        ...

    def cut(self) -> None:
        """The output ends here: tells what can be told, by `Calls.cut_off`; else it is `unread`."""
        ...
