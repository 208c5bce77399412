"""Gemma 4: `<|tool_call>call:NAME{key:<|"|>text<|"|>,n:3}<tool_call|>`.

An object whose keys are bare and whose strings stand between quoting tokens, without escapes.
Source: the chat template of google/gemma-4-31B-it. Small and busy ones also write JSON's or
Python's quotes, put a quoting token behind those, call as Python does: `call:NAME(key="text")`,
forget the opening marker, or give a name a scope: `call:default_api:NAME`.
"""

from __future__ import annotations

import re
from typing import Final

from typing_extensions import override

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.arguments import dumps
from services.neuron.chat.tool_calls.parsing.bare_words import json_of_word
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_arguments import BROKEN, UNREADABLE
from services.neuron.chat.tool_calls.parsing.json_scanner import Expect, JsonScanner
from services.neuron.chat.tool_calls.parsing.mending import JsonMender
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser

NAME: Final = "gemma"
_OPENING: Final = "<|tool_call>"
_CLOSING: Final = "<tool_call|>"
_CALL: Final = "call:"
_QUOTE: Final = '<|"|>'
_NAME: Final = re.compile(r"[\w.:-]+")
_KEYS: Final = frozenset({Expect.KEY, Expect.FIRST_KEY})
_STRINGS: Final = _KEYS | {Expect.VALUE, Expect.FIRST_ITEM}
_LOST_QUOTE: Final = "put in a quote that is missing"
_STRAY_QUOTE: Final = "left out a quote too many"
_PARENTHESES: Final = "took a call in parentheses"
_QUOTES: Final = frozenset("\"'")
# What ends a value without quotes, and what shows that it was none.
_ENDS: Final = frozenset(",}])")
_NOT_BARE: Final = frozenset("\"'{[(<\n")
_LITERALS: Final = ("true", "false", "null")


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return _OPENING in template and _CALL in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    openings = [
        RegionOpening(_OPENING, _CLOSING, lambda: GemmaCall(calls, tools)),
        RegionOpening(
            _CALL,
            _CLOSING,
            lambda: GemmaCall(calls, tools, known_only=True),
            is_call=True,
            at_line_start=True,
        ),
    ]
    # the model stops at the marker of the result that it waits for
    return RegionParser(calls=calls, openings=openings, repeats=True, dropped=["<|tool_response>"])


class GemmaCall(CallReader):
    """One call, its arguments made JSON as they come."""

    def __init__(self, calls: Calls, tools: Tools, *, known_only: bool = False) -> None:
        self._calls, self._tools, self._known_only = calls, tools, known_only
        self._scanner = JsonScanner()
        self._mender = JsonMender(self._scanner)
        self._head = ""
        self._has_begun = False
        self._held = ""
        self._in_key = False
        self._in_tokens = False
        self._bare = ""
        self._closing = "}"

    @property
    @override
    def unread(self) -> str:
        return self._held if self._has_begun else self._head

    @override
    def push(self, char: str) -> CallProgress:
        if not self._has_begun:
            return self._in_head(char)
        self._held += char
        if self._takes_quotes and _QUOTE.startswith(self._held) and self._held != _QUOTE:
            return CallProgress.MORE
        if self._in_tokens and self._held[0] == "}":
            after = self._held.lstrip("}")
            if after == _CLOSING:
                return self._end_unquoted()
            if _CLOSING.startswith(after):
                return CallProgress.MORE
        if self._takes_quotes and self._held == _QUOTE:
            accepted = self._quote()
        else:
            # only its first character is sure to be no quote's
            accepted = self._read(self._held[0])
            rest = self._held[1:] if accepted else ""
            if rest:
                self._held = ""
                return self._again(rest)
        if not accepted:
            if self._mender.is_ended_by(self._held[0]):
                self._calls.arguments(self._scanner.closing(), repair=BROKEN)
            else:
                self._calls.leave_open(repair=UNREADABLE)
            return CallProgress.BROKEN
        self._held = ""
        return CallProgress.DONE if self._scanner.is_complete else CallProgress.MORE

    @override
    def cut(self) -> None:
        if not self._has_begun:
            return
        self._held = ""
        if self._calls.is_cut:
            self._calls.arguments(self._bare)
        elif self._bare and not any(each.startswith(self._bare) for each in _LITERALS):
            self._end_bare()
        else:
            self._tell(self._bare)
        self._calls.cut_off(self._scanner.closing())

    @property
    def _takes_quotes(self) -> bool:
        if self._in_key or self._bare or self._scanner.in_string:
            return self._in_tokens
        return self._scanner.expect in _STRINGS or self._scanner.expect is Expect.COMMA

    def _again(self, rest: str) -> CallProgress:
        progress = CallProgress.MORE
        for position, char in enumerate(rest):
            progress = self.push(char)
            if progress is CallProgress.BROKEN:
                self._held += rest[position + 1 :]
                break
        return progress

    def _in_head(self, char: str) -> CallProgress:
        self._head += char
        seen = self._head.lstrip()
        if not (_CALL.startswith(seen) or seen.startswith(_CALL)):
            return CallProgress.BROKEN
        if char not in "{(":
            written = seen[len(_CALL) :]
            spoken = self._known_only and written.strip() and not _NAME.fullmatch(written.strip())
            return (
                CallProgress.BROKEN if spoken or (char == "\n" and written) else CallProgress.MORE
            )
        name = self._named(seen[len(_CALL) : -1].strip())
        if not name or (self._known_only and name not in self._tools.parameters):
            return CallProgress.BROKEN
        self._has_begun = True
        self._calls.begin(name)
        self._tell("{")
        if char == "(":
            self._closing = ")"
            self._calls.arguments("", repair=_PARENTHESES)
        return CallProgress.MORE

    def _named(self, written: str) -> str:
        """The tool that a name means, which may have a scope before it."""
        last = written.rpartition(":")[2].strip()
        known = self._tools.parameters
        return last if written not in known and last in known else written

    def _end_unquoted(self) -> CallProgress:
        """The end of the call inside a string: the quote before it is missing."""
        self._calls.arguments(self._scanner.closing(), repair=_LOST_QUOTE)
        self._held = _CLOSING
        return CallProgress.BROKEN

    def _quote(self) -> bool:
        """A quoting token."""
        if self._scanner.expect is Expect.COMMA:
            self._calls.arguments("", repair=_STRAY_QUOTE)
            return True
        self._in_tokens = not self._in_tokens
        return self._tell('"')

    def _read(self, char: str) -> bool:
        """A character that is no quote's; False where it is not legal."""
        expect = self._scanner.expect
        if self._in_key:
            return self._in_bare_key(char)
        if self._in_tokens:
            return self._tell(dumps(char)[1:-1])
        if self._scanner.in_string or (expect in _STRINGS and char in _QUOTES and not self._bare):
            return self._mended(char)
        if expect in _KEYS and not char.isspace() and char not in "},)":
            self._in_key = True
            return self._tell('"' + dumps(char)[1:-1])
        if self._bare or (expect in _STRINGS - _KEYS and not char.isspace() and char not in "{[]"):
            return self._in_bare(char)
        return self._structural(char)

    def _structural(self, char: str) -> bool:
        if char == self._closing and self._scanner.depth == 1:
            return self._tell("}")
        return self._tell(":" if char == "=" and self._scanner.expect is Expect.COLON else char)

    def _in_bare(self, char: str) -> bool:
        """A value without quotes: told at its end, as only then it is sure to be one."""
        if char in _ENDS and self._bare:
            return self._end_bare() and self._structural(char)
        if char in _NOT_BARE or char in _ENDS:
            self._held = self._bare + self._held
            return False
        self._bare += char
        return True

    def _end_bare(self) -> bool:
        bare, self._bare = self._bare.strip(), ""
        spelled, repair = json_of_word(bare)
        self._calls.arguments("", repair=repair)
        return self._tell(spelled)

    def _in_bare_key(self, char: str) -> bool:
        ends = char == ":" or (char == "=" and self._closing == ")")
        if not ends:
            return self._tell(dumps(char)[1:-1])
        self._in_key = False
        return self._tell('":')

    def _mended(self, char: str) -> bool:
        for each in self._mender.mended(char):
            if not self._tell(each):
                return False
            self._calls.arguments("", repair=self._mender.repair)
        return True

    def _tell(self, text: str) -> bool:
        for char in text:
            if not self._scanner.accept(char):
                return False
            self._calls.arguments(char)
        return True
