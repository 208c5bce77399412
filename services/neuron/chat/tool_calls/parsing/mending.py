"""JSON as models really write it, made JSON: a character in, legal characters out.

Models trained on Python write `{'city': 'Oslo', 'metric': True}`; others leave line breaks raw, put
a backslash before what needs none, or end a list with a comma. What a character means depends on
what came before, so the scanner that follows the JSON is asked at every one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from services.neuron.chat.tool_calls.parsing.arguments import dumps
from services.neuron.chat.tool_calls.parsing.bare_words import PYTHON, json_of_word, value_of
from services.neuron.chat.tool_calls.parsing.json_scanner import RAW_CONTROLS, Expect, JsonScanner

RAW_BREAK: Final = "escaped a raw control character in a string"
QUOTED_KEY: Final = "put quotes around a key"
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
_CLOSABLE: Final = frozenset({Expect.COMMA, Expect.FIRST_KEY, Expect.FIRST_ITEM, Expect.END})
_KEY: Final = frozenset({Expect.KEY, Expect.FIRST_KEY})
_BEGIN_KEY: Final = re.compile(r"[\w\"']")
_BEGIN_VALUE: Final = re.compile(r"[\w\"'{\[+.-]")
_BARE_KEY: Final = re.compile(r"[\w-]+")
# What a value without quotes cannot have in it.
_NOT_BARE: Final = frozenset("\"'{[(<:")
# Legal nowhere: the scanner refuses it.
_UNREADABLE: Final = "\0"
_ENDS: Final = frozenset(",}]")


class JsonMender:
    """Stands before a scanner: whoever takes its characters hands each to the scanner at once.

    Attributes:
        repair: what was mended at the newest character; empty for nothing.
        held: what was written and waits for the character behind it.
    """

    def __init__(self, scanner: JsonScanner) -> None:
        self._scanner = scanner
        self._is_single_quoted = False
        self._is_word = False
        self.repair = ""
        self.held = ""

    def mended(self, char: str) -> Iterator[str]:
        """What a character stands for; the scanner must have read each before the next is taken."""
        self.repair = ""
        if self._scanner.in_string:
            yield from self._in_string(char)
        elif self._is_word:
            yield from self._in_word(char)
        elif self.held:
            yield from self._behind_comma(char)
        elif char == "," and self._scanner.depth and self._scanner.expect in _AFTER_VALUE:
            self.held = char
        else:
            yield from self._outside(char)

    def at_end(self) -> Iterator[str]:
        """What a word means that nothing followed; taken as `mended` is."""
        self.repair = ""
        if self._is_word and self._scanner.expect in _VALUE:
            meant, self.repair = json_of_word(self._take_word().rstrip())
            yield from meant

    def is_ended_by(self, char: str) -> bool:
        """Whether a character that the scanner refused stands behind all that was written.

        False where closing what is open would invent a value, or leave out one that goes on.
        """
        expect = self._scanner.expect
        is_marker = char == "[" and expect is Expect.COMMA
        goes_on = self._is_word or (_BEGIN_VALUE.match(char) and not is_marker)
        return expect in _CLOSABLE and not goes_on

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
        elif begins.match(char):
            held, self.held = self.held, ""
            yield from held
        yield from self._outside(char)

    def _outside(self, char: str) -> Iterator[str]:
        """A character outside of strings and words."""
        expect = self._scanner.expect
        if char == "'" and expect in _STRING:
            self._is_single_quoted, self.repair = True, PYTHON
            yield '"'
        elif self._begins_word(char, expect):
            self._is_word, self.held = True, char
        else:
            yield char

    @staticmethod
    def _begins_word(char: str, expect: Expect) -> bool:
        if char in _NOT_BARE:
            return False
        begins = {_VALUE: _BEGIN_VALUE, _KEY: _BEGIN_KEY}
        return any(expect in where and begin.match(char) for where, begin in begins.items())

    def _in_word(self, char: str) -> Iterator[str]:
        """A value or key without quotes: it is read to its end, as only then it is sure."""
        is_key = self._scanner.expect in _KEY
        if char not in (_NOT_BARE if is_key else _ENDS | _NOT_BARE):
            self.held += char
            return
        word = self.held.rstrip()
        meant: tuple[str, str] | None = None
        if not is_key:
            meant = json_of_word(word) if char in _ENDS else value_of(word)
        elif char == ":" and _BARE_KEY.fullmatch(word):
            meant = dumps(word), QUOTED_KEY
        if meant is not None:
            space = self._take_word()[len(word) :]
            self.repair = meant[1]
            yield from meant[0] + space
        if meant is None:
            yield _UNREADABLE
        elif char == ",":
            self.held = char
        else:
            yield char

    def _take_word(self) -> str:
        word, self.held, self._is_word = self.held, "", False
        return word
