"""Follows JSON text character by character: what is still legal, what a value is, how to close it.

Models write JSON one token at a time, and clients want the arguments of a call as they come, yet
valid as a whole. The scanner accepts a character or refuses it, and can say at any point which
characters would close everything that is open. Source: RFC 8259.
"""

from __future__ import annotations

import enum
from typing import Final

_SPACE: Final = frozenset(" \t\n\r")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_DIGITS: Final = frozenset("0123456789")
_ESCAPES: Final = frozenset('"\\/bfnrtu')
_LITERALS: Final = {"t": "true", "f": "false", "n": "null"}
# What a model leaves raw in a string although JSON wants it escaped.
RAW_CONTROLS: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_LAST_CONTROL: Final = "\x1f"
# Deeper than any tool's arguments, and far from where parsers of the whole text give up.
_DEEPEST: Final = 100
# (state, is final): number automaton
_NUMBER: Final[dict[str, dict[str, str]]] = {
    "-": {"0": "zero", "1-9": "int"},
    "zero": {".": "point", "e": "exp"},
    "int": {"0-9": "int", ".": "point", "e": "exp"},
    "point": {"0-9": "fraction"},
    "fraction": {"0-9": "fraction", "e": "exp"},
    "exp": {"+": "sign", "0-9": "power"},
    "sign": {"0-9": "power"},
    "power": {"0-9": "power"},
}
_FINAL_NUMBERS: Final = frozenset({"zero", "int", "fraction", "power"})


class Expect(enum.Enum):
    """What JSON's grammar allows next, white space apart."""

    VALUE = enum.auto()
    FIRST_KEY = enum.auto()
    """A key, or the end of an empty object."""
    KEY = enum.auto()
    COLON = enum.auto()
    FIRST_ITEM = enum.auto()
    """A value, or the end of an empty array."""
    COMMA = enum.auto()
    """A comma, or the end of the container."""
    STRING = enum.auto()
    NUMBER = enum.auto()
    LITERAL = enum.auto()
    END = enum.auto()
    """The value is whole; only spaces may follow."""


class JsonScanner:
    """One JSON value, read as it comes.

    Attributes:
        expect: what may come next.
        depth: containers that are open.
        is_key: the string being read, or just read, is a key.
    """

    def __init__(self) -> None:
        self.expect = Expect.VALUE
        self.is_key = False
        self._open: list[str] = []
        self._escape = ""
        self._number = ""
        self._literal = ""

    @property
    def depth(self) -> int:
        """Containers that are open."""
        return len(self._open)

    @property
    def is_complete(self) -> bool:
        """True once the value is whole; a bare number counts, as nothing need follow it."""
        return self.expect is Expect.END or self._is_bare_number()

    @property
    def in_string(self) -> bool:
        """True between the quotes of a string."""
        return self.expect is Expect.STRING

    @property
    def in_escape(self) -> bool:
        """True behind a backslash, until the escape is whole."""
        return bool(self._escape)

    @property
    def in_object(self) -> bool:
        """True where the innermost open container is an object."""
        return self._open[-1:] == ["{"]

    def accept(self, char: str) -> bool:
        """Moves on behind a character; False, and nothing changes, where it is not legal here."""
        match self.expect:
            case Expect.STRING:
                return self._in_string(char)
            case Expect.NUMBER:
                return self._in_number(char)
            case Expect.LITERAL:
                return self._in_literal(char)
            case _:
                return char in _SPACE or self._structural(char)

    def closing(self) -> str:
        """What would close all that is open, so that the whole is valid; may invent `null`s."""
        tail, expect = self._closing_of_scalar()
        if expect in {Expect.KEY, Expect.COMMA, Expect.END, Expect.FIRST_KEY, Expect.FIRST_ITEM}:
            pass
        elif expect is Expect.COLON:
            tail += ":null"
        elif expect is Expect.VALUE:
            tail += "null"
        if expect is Expect.KEY:  # behind a comma
            tail += '"":null'
        return tail + "".join("}" if each == "{" else "]" for each in reversed(self._open))

    def _closing_of_scalar(self) -> tuple[str, Expect]:
        if self.expect is Expect.STRING:
            tail = {"": "", "\\": "\\"}.get(self._escape, "0" * (6 - len(self._escape)))
            after = Expect.COLON if self.is_key else self._after_value()
            return tail + '"', after
        if self.expect is Expect.NUMBER:
            return ("" if self._number in _FINAL_NUMBERS else "0"), self._after_value()
        if self.expect is Expect.LITERAL:
            return self._literal, self._after_value()
        return "", self.expect

    def _after_value(self) -> Expect:
        return Expect.COMMA if self._open else Expect.END

    def _is_bare_number(self) -> bool:
        return self.expect is Expect.NUMBER and not self._open and self._number in _FINAL_NUMBERS

    def _in_string(self, char: str) -> bool:
        if self._escape == "\\":
            if char not in _ESCAPES:
                return False
            self._escape = "\\u" if char == "u" else ""
        elif self._escape:
            if char not in _HEX:
                return False
            self._escape += char
            if len(self._escape) == len("\\u0000"):
                self._escape = ""
        elif char == "\\":
            self._escape = "\\"
        elif char == '"':
            self.expect = Expect.COLON if self.is_key else self._after_value()
        elif char <= _LAST_CONTROL:
            return False
        return True

    def _in_number(self, char: str) -> bool:
        kinds = [char.replace("E", "e").replace("-", "+")]
        if char in _DIGITS:
            kinds += ["0-9"] if char == "0" else ["0-9", "1-9"]
        for kind in kinds:
            following = _NUMBER[self._number].get(kind)
            if following is not None:
                self._number = following
                return True
        if self._number not in _FINAL_NUMBERS:
            return False
        self.expect = self._after_value()
        return self.accept(char)

    def _in_literal(self, char: str) -> bool:
        if char != self._literal[0]:
            return False
        self._literal = self._literal[1:]
        if not self._literal:
            self.expect = self._after_value()
        return True

    def _structural(self, char: str) -> bool:
        match self.expect, char:
            case ((Expect.VALUE | Expect.FIRST_ITEM), _) if char != "]":
                return self._begin_value(char)
            case ((Expect.FIRST_KEY | Expect.KEY), '"'):
                self.expect, self.is_key = Expect.STRING, True
            case Expect.COLON, ":":
                self.expect = Expect.VALUE
            case Expect.COMMA, ",":
                self.expect = Expect.KEY if self._open[-1] == "{" else Expect.VALUE
            case (Expect.FIRST_KEY, "}") | (Expect.FIRST_ITEM, "]"):
                self._close()
            case Expect.COMMA, ("}" | "]") if char == ("}" if self._open[-1] == "{" else "]"):
                self._close()
            case _:
                return False
        return True

    def _begin_value(self, char: str) -> bool:
        if char == '"':
            self.expect, self.is_key = Expect.STRING, False
        elif char in "{[" and len(self._open) < _DEEPEST:
            self._open.append(char)
            self.expect = Expect.FIRST_KEY if char == "{" else Expect.FIRST_ITEM
        elif char in _LITERALS:
            self.expect, self._literal = Expect.LITERAL, _LITERALS[char][1:]
        elif char == "-" or char in _DIGITS:
            self.expect = Expect.NUMBER
            self._number = {"-": "-", "0": "zero"}.get(char, "int")
        else:
            return False
        return True

    def _close(self) -> None:
        self._open.pop()
        self.expect = self._after_value()
