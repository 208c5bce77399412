"""JSON as models really write it, made JSON: a character in, legal characters out.

Models trained on Python write `{'city': 'Oslo', 'metric': True}`; others leave line breaks raw, put
a backslash before what needs none, or end a list with a comma. What a character means depends on
what came before, so the scanner that follows the JSON is asked at every one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from services.neuron.chat.tool_calls.parsing.json_scanner import RAW_CONTROLS, Expect, JsonScanner

RAW_BREAK: Final = "escaped a raw control character in a string"
PYTHON: Final = "took Python's spelling for JSON's"
HALF_PAIR: Final = "took U+FFFD for half a surrogate pair"
STRAY_BACKSLASH: Final = "doubled a backslash that escapes nothing"
TRAILING_COMMA: Final = "left out a comma before the end"
_ESCAPES: Final = frozenset('"\\/bfnrtu')
_UNICODE: Final = "\\u"
_ESCAPE_LENGTH: Final = 6
_UNICODE_BEGUN: Final = re.compile(r"\\u[0-9a-fA-F]{0,4}")
_FIRST_HALF: Final = re.compile(r"\\u[dD][89abAB]")
_SECOND_HALF: Final = re.compile(r"\\u[dD][c-fC-F]")
_SECOND_BEGUN: Final = re.compile(r"\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]{0,2})?)?)?")
_REPLACEMENT: Final = "\\ufffd"
_LAST_CONTROL: Final = "\x1f"
_VALUE: Final = frozenset({Expect.VALUE, Expect.FIRST_ITEM})
_STRING: Final = _VALUE | {Expect.KEY, Expect.FIRST_KEY}
_AFTER_VALUE: Final = frozenset({Expect.COMMA, Expect.NUMBER})
_LITERALS: Final = {"T": "t", "F": "f", "N": "n"}
# None and null are of one length.
_NONE: Final = {"o": "u", "n": "l", "e": "l"}
_BEGIN_VALUE: Final = frozenset("\"'{[-0123456789tfnTFN")
_BEGIN_KEY: Final = frozenset("\"'")


class JsonMender:
    """Stands before a scanner: whoever takes its characters hands each to the scanner at once.

    Attributes:
        repair: what was mended at the newest character; empty for nothing.
        held: what was written and waits for the character behind it.
    """

    def __init__(self, scanner: JsonScanner) -> None:
        self._scanner = scanner
        self._is_single_quoted = False
        self._is_none = False
        self.repair = ""
        self.held = ""

    def mended(self, char: str) -> Iterator[str]:
        """What a character stands for; the scanner must have read each before the next is taken."""
        self.repair = ""
        if self._scanner.in_string:
            yield from self._in_string(char)
        elif self.held:
            yield from self._behind_comma(char)
        elif char == "," and self._scanner.depth and self._scanner.expect in _AFTER_VALUE:
            self.held = char
        else:
            yield self._spelled(char)

    def _in_string(self, char: str) -> Iterator[str]:
        if self.held.startswith(_UNICODE) or (self.held and char == "u"):
            yield from self._in_unicode(char)
        elif self.held:
            self.held = ""
            if char == "'":
                self.repair = PYTHON
            elif char in _ESCAPES:
                yield "\\"
            else:
                self.repair = STRAY_BACKSLASH
                yield from "\\\\"
                yield from self._escaped(char)
                return
            yield char
        elif char == "\\" and not self._scanner.in_escape:
            self.held = char
        elif self._is_single_quoted and char == "'":
            self._is_single_quoted = False
            yield '"'
        elif self._is_single_quoted and char == '"':
            yield from '\\"'
        else:
            yield from self._escaped(char)

    def _in_unicode(self, char: str) -> Iterator[str]:
        r"""An escape like `\ud83d`: halves of surrogate pairs wait for the other half."""
        self.held += char
        held, first, second = self.held, self.held[:_ESCAPE_LENGTH], self.held[_ESCAPE_LENGTH:]
        if not _UNICODE_BEGUN.fullmatch(first):
            self.held = ""
            yield from held
        elif len(first) < _ESCAPE_LENGTH or (_FIRST_HALF.match(first) and not second):
            pass
        elif _FIRST_HALF.match(first) and _SECOND_BEGUN.fullmatch(second):
            if len(second) == _ESCAPE_LENGTH:
                self.held = ""
                yield from held
        else:
            is_half = _FIRST_HALF.match(first) or _SECOND_HALF.match(first)
            self.held = ""
            yield from _REPLACEMENT if is_half else first
            for each in second:
                yield from self._in_string(each)
            self.repair = HALF_PAIR if is_half else self.repair

    def _escaped(self, char: str) -> str:
        if char > _LAST_CONTROL:
            return char
        self.repair = RAW_BREAK
        return RAW_CONTROLS.get(char, f"\\u{ord(char):04x}")

    def _behind_comma(self, char: str) -> Iterator[str]:
        if char.isspace():
            self.held += char
            return
        begins = _BEGIN_KEY if self._scanner.in_object else _BEGIN_VALUE
        if char in "}]":
            self.held, self.repair = "", TRAILING_COMMA
        elif char in begins:
            held, self.held = self.held, ""
            yield from held
        yield self._spelled(char)

    def _spelled(self, char: str) -> str:
        """A character outside of strings."""
        expect = self._scanner.expect
        if char == "'" and expect in _STRING:
            self._is_single_quoted, self.repair = True, PYTHON
            return '"'
        if char in _LITERALS and expect in _VALUE:
            self._is_none, self.repair = char == "N", PYTHON
            return _LITERALS[char]
        if self._is_none and expect is Expect.LITERAL:
            return _NONE.get(char, char)
        self._is_none = False
        return char
