"""One call between control tokens: a head that holds the name, then the arguments as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Final

from typing_extensions import override

from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls
from services.neuron.chat.tool_calls.parsing.json_arguments import JsonArguments
from services.neuron.chat.tool_calls.parsing.resolving import DECODED

# What may stand between the arguments and the end: the rest of a code fence.
_FENCE: Final = "` \t\r\n"
_LANGUAGE: Final = "```json"
_QUOTE: Final = '"'
_LENGTH: Final = 2
_UNICODE_LENGTH: Final = 6


@dataclasses.dataclass(frozen=True, slots=True)
class CallTokens:
    """How a family marks a call.

    Attributes:
        begin: before the head.
        separator: in the head or behind it; there are no arguments before it.
        end: behind the arguments.
        name: finds the name in the head, which is all between `begin` and the arguments.
    """

    begin: str
    separator: str
    end: str
    name: Callable[[str], str]


class TokenCall(CallReader):
    """One call, read as it comes."""

    def __init__(self, calls: Calls, tokens: CallTokens) -> None:
        self._calls, self._tokens = calls, tokens
        self._head = ""
        self._tail: str | None = None
        self._arguments: JsonArguments | None = None
        self._escape: StringEscape | None = None

    @property
    @override
    def unread(self) -> str:
        if self._tail is not None:
            return self._tail
        return self._head + (self._arguments.unread if self._arguments else "")

    @override
    def push(self, char: str) -> CallProgress:
        if self._tail is not None:
            return self._behind(char)
        if self._arguments is not None:
            return self._inside(char)
        self._head += char
        seen, begin = self._head.lstrip(), self._tokens.begin
        if not (begin.startswith(seen) or seen.startswith(begin)):
            return CallProgress.BROKEN
        if seen.endswith(begin) and seen != begin:
            return CallProgress.BROKEN  # it begins anew
        if char == "{" and self._tokens.separator in seen:
            return self._begin(seen[len(begin) : -1])
        return CallProgress.MORE

    @override
    def cut(self) -> None:
        if self._arguments is not None and self._tail is None:
            self._arguments.cut()

    def _begin(self, head: str) -> CallProgress:
        """The first brace of the arguments, behind this head."""
        name = self._tokens.name(head)
        if not name or self._tokens.end in name:
            return CallProgress.BROKEN
        self._arguments, self._head = JsonArguments(self._calls, name), ""
        progress = self._inside("{")
        if head.rstrip().endswith(_QUOTE):
            self._escape = StringEscape()
            self._calls.arguments("", repair=DECODED)
        behind = head.partition(self._tokens.separator)[2].replace(name, "", 1)
        rest = behind.replace(_LANGUAGE, "", 1).strip(_FENCE + _QUOTE)
        if rest:
            self._calls.arguments("", repair=f"left out {rest!r}")
        return progress

    def _inside(self, char: str) -> CallProgress:
        assert self._arguments is not None
        meant = self._escape.push(char) if self._escape else char
        progress = CallProgress.MORE
        for each in meant:
            progress = self._arguments.push(each)
        if progress is CallProgress.MORE:
            return progress
        rest = self._arguments.unread
        self._tail = rest[:-1]
        return self._behind(rest[-1]) if rest else CallProgress.MORE

    def _behind(self, char: str) -> CallProgress:
        """Between the arguments and the end of the call."""
        assert self._tail is not None
        self._tail += char
        fence = _FENCE + _QUOTE if self._escape else _FENCE
        rest, end = self._tail.lstrip(fence), self._tokens.end
        if rest == end:
            self._tail = ""
            return CallProgress.DONE
        return CallProgress.MORE if end.startswith(rest) else CallProgress.BROKEN


_FIRST_HALF, _LAST_HALF = "\ud800", "\udfff"


class StringEscape:
    """Decodes the escapes of a JSON string, character by character."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, char: str) -> str:
        """What is certain with this character: nothing inside an escape."""
        if not self._held and char != "\\":
            return char
        self._held += char
        length = _UNICODE_LENGTH if self._held[1:2] == "u" else _LENGTH
        if len(self._held) < length:
            return ""
        held, self._held = self._held, ""
        try:
            meant: str = json.loads(f'"{held}"')
        except ValueError:  # no escape of JSON's
            return held
        # half of a surrogate pair stays an escape, which the JSON inside may have as well
        return held if _FIRST_HALF <= meant <= _LAST_HALF else meant
