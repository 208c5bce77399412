"""A call that is the whole output, without markers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from typing_extensions import override

from services.neuron.chat.stream import ChatParser, Piece
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls
from services.neuron.chat.tool_calls.parsing.rest_of_call import RestOfCall


class LeadingParser(ChatParser):
    """A call that is the whole output, without a marker: only looked for at the beginning."""

    def __init__(
        self,
        *,
        calls: Calls,
        begins: str,
        reader: Callable[[], CallReader],
        separators: str = "",
        openings: Sequence[str] = (),
    ) -> None:
        """Begins an output.

        Args:
            calls: where findings go.
            begins: characters that a call may begin with.
            reader: makes a reader for each call.
            separators: what may stand between calls, spaces apart.
            openings: how calls begin as the model's template writes them.
        """
        self._openings = openings
        self._calls, self._begins, self._new_reader = calls, begins, reader
        self._separators = separators
        self._space = ""
        self._reader: CallReader | None = None
        self._is_answer = False

    @property
    @override
    def is_reasoning(self) -> bool:
        return False

    @property
    @override
    def openings(self) -> Sequence[str]:
        return self._openings

    @override
    def feed(self, text: str) -> Sequence[Piece]:
        for position, char in enumerate(text):
            if self._is_answer:
                self._calls.text(text[position:])
                break
            self._push(char)
        return self._calls.take()

    @override
    def finish(self, *, is_cut: bool = False) -> Sequence[Piece]:
        self._calls.is_cut = is_cut
        if self._reader is not None:
            before = self._calls.count
            self._reader.cut()
            if self._calls.count == before:
                self._calls.text(self._space + self._reader.unread)
        elif not self._calls.count or self._space.strip():
            self._calls.text(self._space)
        self._reader, self._space = None, ""
        return self._calls.take_last()

    def _push(self, char: str) -> None:
        if self._reader is not None:
            self._inside(char)
        elif char.isspace() or (self._calls.count and char in self._separators + "}"):
            self._space += char
        elif char in self._begins:
            self._reader = self._new_reader()
            self._inside(char)
        else:
            self._answer(char)

    def _inside(self, char: str) -> None:
        assert self._reader is not None
        match self._reader.push(char):
            case CallProgress.MORE:
                pass
            case CallProgress.DONE:
                self._reader, self._space = None, ""
            case CallProgress.BEYOND:
                self._reader, self._space = None, ""
                self._push(char)
            case CallProgress.BROKEN:
                unread, self._reader = self._reader.unread, None
                if self._calls.is_open:
                    self._reader = RestOfCall(self._calls, "")
                    for each in unread:
                        self._reader.push(each)
                else:
                    self._answer(unread)

    def _answer(self, text: str) -> None:
        space, self._space = self._space, ""
        self._is_answer = True
        self._calls.text(space + text)
