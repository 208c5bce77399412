"""Text with tool-call regions in it: `answer <marker>call</marker> answer`.

Reads characters one by one, so that no chunking of the output can change what it means. Text that
turns out to be no call is told as it was written, markers included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

from typing_extensions import override

from services.neuron.chat.stream import ChatParser, Piece, held_back
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls
from services.neuron.chat.tool_calls.parsing.rest_of_call import RestOfCall

# Surplus braces behind a call are the models' commonest slip; spaces there mean nothing either.
_SURPLUS: Final = "}] \t\r\n"


@dataclasses.dataclass(frozen=True, slots=True)
class RegionOpening:
    """A marker behind which tool calls stand, and the reader for what follows it.

    Attributes:
        marker: text that begins it.
        closing: marks its end; empty for none.
        reader: makes a reader of the inside.
        is_call: the marker is the call's own beginning, which the reader wants to see.
        at_line_start: it counts only there; further on it is quoted.
    """

    marker: str
    closing: str
    reader: Callable[[], CallReader]
    is_call: bool = False
    at_line_start: bool = False


class RegionParser(ChatParser):
    """Finds regions by their opening marker and hands each to a fresh reader.

    A region without a closing marker ends with its call. A region may hold several calls, one
    behind the other, where `repeats` is set; then each gets a fresh reader.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        openings: Sequence[RegionOpening],
        repeats: bool = False,
        dropped: Sequence[str] = (),
    ) -> None:
        """Begins an output.

        Args:
            calls: where findings go.
            openings: what a region may begin with; none is the beginning of another.
            repeats: several calls in one region.
            dropped: markers around the answer itself, which are not part of it.
        """
        self._calls, self._openings = calls, openings
        self._repeats, self._dropped = repeats, dropped
        self._markers = (*dropped, *(each.marker for each in openings))
        self._starts = frozenset(marker[0] for marker in self._markers)
        self._held = ""
        self._reader: CallReader | None = None
        self._tail: str | None = None
        self._opening = openings[0]
        self._opened_by = ""
        self._is_line_start = True
        self._before = 0

    @property
    @override
    def is_reasoning(self) -> bool:
        return False

    @property
    @override
    def openings(self) -> Sequence[str]:
        return [each.marker for each in self._openings]

    @override
    def feed(self, text: str) -> Sequence[Piece]:
        if self._is_text and not self._held and self._starts.isdisjoint(text):
            self._held = text  # nothing in it can be the beginning of a marker
            self._tell(len(text))
            return self._calls.take()
        for char in text:
            self._push(char)
        if self._is_text:
            keep = max(held_back(self._held, marker) for marker in self._markers)
            self._tell(len(self._held) - keep)
        return self._calls.take()

    @override
    def finish(self, *, is_cut: bool = False) -> Sequence[Piece]:
        self._calls.is_cut = is_cut
        if self._reader is not None:
            self._reader.cut()
            self._calls.text("" if self._has_told else self._opened_by + self._reader.unread)
        elif self._is_text:
            self._calls.text(self._held)
        elif self._tail and self._tail.strip(_SURPLUS):
            self._calls.text(self._tail)
        self._held, self._reader, self._tail = "", None, None
        return self._calls.take_last()

    @property
    def _is_text(self) -> bool:
        return self._reader is None and self._tail is None

    def _push(self, char: str) -> None:
        if self._reader is not None:
            self._inside(char)
        elif self._tail is not None:
            self._behind(char)
        else:
            self._held += char
            self._look()

    def _tell(self, length: int) -> None:
        certain, self._held = self._held[:length], self._held[length:]
        self._is_line_start = self._starts_line(certain)
        self._calls.text(certain)

    def _starts_line(self, text: str) -> bool:
        """Whether what follows this text, which follows what was told, begins a line."""
        _, newline, line = text.rpartition("\n")
        return not line.strip() and bool(newline or self._is_line_start)

    def _look(self) -> None:
        for marker in self._dropped:
            if self._held.endswith(marker):
                self._tell(len(self._held) - len(marker))
                self._held = ""
        for opening in self._openings:
            if self._held.endswith(opening.marker):
                before = self._held.removesuffix(opening.marker)
                if opening.at_line_start and not self._starts_line(before):
                    continue
                self._tell(len(self._held) - len(opening.marker))
                self._held, self._is_line_start, self._opening = "", True, opening
                self._open("" if opening.is_call else opening.marker)
                for char in opening.marker if opening.is_call else "":
                    self._push(char)
                return

    @property
    def _has_told(self) -> bool:
        """The reader at work has begun a call."""
        return self._calls.count > self._before

    def _open(self, opened_by: str) -> None:
        self._reader, self._opened_by = self._opening.reader(), opened_by
        self._before = self._calls.count

    def _inside(self, char: str) -> None:
        assert self._reader is not None
        match self._reader.push(char):
            case CallProgress.MORE:
                pass
            case CallProgress.DONE:
                self._reader, self._tail = None, ""
            case CallProgress.BEYOND:
                self._reader, self._tail = None, ""
                self._behind(char)
            case CallProgress.BROKEN:
                self._give_up()

    def _give_up(self) -> None:
        """What was no call goes on as text; what follows a broken call is as behind any other."""
        assert self._reader is not None
        unread, self._reader = self._reader.unread, None
        self._held = ""
        if self._has_told and self._calls.is_open:
            self._reader = RestOfCall(self._calls, self._opening.closing)
        elif self._has_told:
            self._tail = ""
        else:  # told in full: nothing that the model said is lost
            marker = self._opening.marker
            own = marker if self._opening.is_call and unread.startswith(marker) else ""
            unread = unread.removeprefix(own)
            self._calls.text(self._opened_by + own)  # else it would be found again
        for char in unread:
            self._push(char)

    def _behind(self, char: str) -> None:
        """Between a call and the closing marker."""
        assert self._tail is not None
        self._tail += char
        stripped, closing = self._tail.lstrip(), self._opening.closing
        if closing and stripped.endswith(closing):
            self._tail = None
            return
        rest = stripped.lstrip(_SURPLUS)
        if rest and not closing.startswith(rest):
            tail, self._tail = self._tail, None
            if self._repeats:
                self._open("")
                tail = rest
            for each in tail:
                self._push(each)
