"""A call object without its markers, first thing in an answer, perhaps in a code fence.

Qwen2.5-Coder answers `{"name": …, "arguments": …}` or the same in a fence whatever its template
asks for. Only an object that names a tool of the request counts, and only where the answer begins
with it: what a model quotes further on is text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from services.neuron.chat.stream import ChatParser, Piece
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_call import JsonCall

# What may stand before the object, as far as it has come.
_LEAD: Final = re.compile(r"\s*(?:`{1,2}|```\w*\s*)?")
_BEHIND: Final = re.compile(r"[\s`]*")
_NO_MARKERS: Final = "took a call that stands without its markers"


class BareJsonParser(ChatParser):
    """Takes leading call objects off an output and hands the rest to another parser."""

    def __init__(self, calls: Calls, tools: Tools, inner: ChatParser) -> None:
        """Begins an output.

        Args:
            calls: where findings go; the inner parser's too.
            tools: of this request.
            inner: reads everything else.
        """
        self._calls, self._tools, self._inner = calls, tools, inner
        self._lead: str | None = ""
        self._reader: JsonCall | None = None
        self._has_told = False

    @property
    @override
    def is_reasoning(self) -> bool:
        return self._inner.is_reasoning

    @property
    @override
    def openings(self) -> Sequence[str]:
        return self._inner.openings

    @override
    def feed(self, text: str) -> Sequence[Piece]:
        for position, char in enumerate(text):
            if self._lead is None:
                self._hand_on(text[position:])
                break
            self._push(char)
        return self._calls.take()

    @override
    def finish(self, *, is_cut: bool = False) -> Sequence[Piece]:
        self._calls.is_cut = is_cut
        if self._reader is not None:
            self._reader.cut()
            self._go_on(self._reader.unread)
        elif self._lead is not None:
            self._go_on("")
        return [*self._calls.take(), *self._inner.finish(is_cut=is_cut)]

    def _push(self, char: str) -> None:
        assert self._lead is not None
        if self._reader is not None:
            self._inside(char)
        elif char == "{":
            self._reader = JsonCall(self._calls, self._tools, known_only=True, repair=_NO_MARKERS)
            self._inside(char)
        else:
            self._lead += char
            if not (_BEHIND if self._has_told else _LEAD).fullmatch(self._lead):
                self._go_on("")

    def _inside(self, char: str) -> None:
        assert self._reader is not None
        progress = self._reader.push(char)
        if self._reader.has_told or progress is CallProgress.DONE:
            self._lead, self._has_told = "", True
        if progress is CallProgress.DONE:
            self._reader = None
        elif progress is CallProgress.BROKEN:
            self._go_on(self._reader.unread)

    def _go_on(self, unread: str) -> None:
        """Everything from here on is the inner parser's; a fence around a call is nobody's."""
        lead, self._lead, self._reader = self._lead or "", None, None
        if self._has_told:
            lead = lead.lstrip("` \t\r\n")
        self._hand_on(lead + unread)

    def _hand_on(self, text: str) -> None:
        for piece in self._inner.feed(text) if text else ():
            self._calls.piece(piece)
