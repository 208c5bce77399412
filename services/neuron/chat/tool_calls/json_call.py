"""`{"name": …, "arguments": {…}}`, its spellings, and what models get wrong about it.

The arguments are passed on as they come, once the name is known. Mended, and said so: arguments
that are a string of JSON, a name inside `function` or inside the arguments, a missing name that
only one tool fits, raw line breaks in strings, an end that is missing.
"""

from __future__ import annotations

import json
from typing import Any, Final

from services.neuron.chat.tool_calls.calls import Calls, Progress, Tools
from services.neuron.chat.tool_calls.json_scanner import RAW_CONTROLS, Expect, JsonScanner

_NAMES: Final = frozenset({"name", "tool_name", "tool", "function"})
_ARGUMENTS: Final = frozenset({"arguments", "parameters", "args", "input", "params"})
CUT_OFF: Final = "closed: the output ended inside the call"
BROKEN: Final = "closed: what followed was no JSON"
_RAW_BREAK: Final = "escaped a raw control character in a string"


class JsonArguments:
    """A JSON object that is the arguments of a call whose name is known; streamed as it comes."""

    def __init__(self, calls: Calls, name: str) -> None:
        self._calls = calls
        self._name = name
        self._scanner = JsonScanner()
        self._begun = False
        self.unread = ""

    def push(self, char: str) -> Progress:
        """Reads a character."""
        if not self._begun:
            self.unread += char
            if char.isspace():
                return Progress.MORE
            if char != "{":
                return Progress.BROKEN
            self._begun, self.unread = True, ""
            self._calls.begin(self._name)
        mended = mend(self._scanner, char)
        if mended is None:
            self.unread = char
            self._calls.arguments(self._scanner.closing(), repair=BROKEN)
            return Progress.BROKEN
        self._calls.arguments(mended, repair=_RAW_BREAK if mended != char else "")
        return Progress.DONE if self._scanner.is_complete else Progress.MORE

    def cut(self) -> None:
        """Closes what was begun."""
        if self._begun:
            self._calls.arguments(self._scanner.closing(), repair=CUT_OFF)


class JsonCall:
    """One call object, read as it comes."""

    def __init__(self, calls: Calls, tools: Tools, *, known_only: bool = False) -> None:
        """Begins.

        Args:
            calls: where findings go.
            tools: of this request.
            known_only: an object that names no tool of the request is text, not a call.
        """
        self._calls, self._tools, self._known_only = calls, tools, known_only
        self._scanner = JsonScanner()
        self._level = 1
        self._key = ""
        self._key_text = ""
        self._value: str | None = None
        self._name = ""
        self._arguments: str | None = None
        self._streams = False
        self._begun = False
        self._repair = ""
        self.unread = ""

    def push(self, char: str) -> Progress:
        """Reads a character."""
        self.unread += char
        before, depth = self._scanner.expect, self._scanner.depth
        mended = mend(self._scanner, char)
        if mended is None or (depth == 0 and before is Expect.VALUE and char not in "{ \t\r\n"):
            return self._broken(char)
        if mended != char:
            self._repair = _RAW_BREAK
            if self._begun:
                self._calls.arguments("", repair=_RAW_BREAK)
        self._follow(before, depth, mended)
        if self._scanner.expect is Expect.END:
            return self._end()
        return Progress.MORE

    def cut(self) -> None:
        """Closes a call that was begun; otherwise all of it is unread."""
        if self._begun:
            if self._streams:
                self._calls.arguments(self._closing(), repair=CUT_OFF)
            elif self._arguments is None:
                self._calls.arguments("{}", repair=CUT_OFF)
            self.unread = ""

    def _broken(self, char: str) -> Progress:
        if self._begun:
            if self._streams:
                self._calls.arguments(self._closing(), repair=BROKEN)
            elif self._arguments is None:
                self._calls.arguments("{}", repair=BROKEN)
            self.unread = char
        return Progress.BROKEN

    def _closing(self) -> str:
        """Closes the arguments alone, not the containers around them."""
        return self._scanner.closing()[: -self._level]

    def _follow(self, before: Expect, depth: int, char: str) -> None:
        scanner = self._scanner
        if self._value is not None:
            self._in_value(char)
        elif depth != self._level:
            return
        elif before is Expect.STRING and scanner.is_key:
            self._key_text += char
            if scanner.expect is Expect.COLON:
                self._key = json.loads('"' + self._key_text)
        elif before in {Expect.FIRST_KEY, Expect.KEY}:
            self._key_text = ""
        elif before is Expect.VALUE and not char.isspace():
            self._begin_value(char)

    def _begin_value(self, char: str) -> None:
        if self._key == "function" and char == "{":
            self._level += 1
            return
        self._value = ""
        wanted = self._key in _ARGUMENTS and self._arguments is None
        if wanted and char == "{" and self._name:
            self._begin()
            self._streams = self._begun
        self._in_value(char)

    def _in_value(self, char: str) -> None:
        assert self._value is not None
        scanner = self._scanner
        ended = scanner.depth < self._level or (
            scanner.depth == self._level and scanner.expect in {Expect.COMMA, Expect.KEY}
        )
        # a number ends at the character behind it, which is not its own
        own = not (ended and char in ",}] \t\r\n" and self._is_bare(self._value))
        if own:
            self._value += char
            if self._streams:
                self._calls.arguments(char)
        if ended:
            self._end_value()

    @staticmethod
    def _is_bare(value: str) -> bool:
        return bool(value) and value[0] in "-0123456789"

    def _end_value(self) -> None:
        value, self._value = self._value or "", None
        if self._streams:
            self._streams, self._arguments = False, value
        elif self._key in _ARGUMENTS and self._arguments is None:
            self._arguments = value
        elif self._key in _NAMES and not self._name:
            parsed: Any = json.loads(value)
            if isinstance(parsed, str):
                self._name = parsed

    def _begin(self) -> None:
        if not self._known_only or self._name in self._tools.parameters:
            self._begun = True
            self._calls.begin(self._name, repair=self._repair)
            self.unread = ""

    def _end(self) -> Progress:
        if self._begun:
            self._calls.arguments("", repair="" if self._arguments is not None else CUT_OFF)
            self.unread = ""
            return Progress.DONE
        arguments = self._decoded()
        if not self._name:
            self._infer(arguments)
            arguments = self._hoisted(arguments)
        if not self._name or (self._known_only and self._name not in self._tools.parameters):
            return Progress.BROKEN
        self._calls.whole(self._name, arguments, repair=self._repair)
        self.unread = ""
        return Progress.DONE

    def _decoded(self) -> Any:
        arguments: Any = json.loads(self._arguments) if self._arguments is not None else {}
        if isinstance(arguments, str):
            try:
                decoded: Any = json.loads(arguments)
            except ValueError:
                return arguments
            if isinstance(decoded, dict):
                self._repair = "decoded arguments that were a string of JSON"
                return decoded  # pyright: ignore[reportUnknownVariableType] - JSON
        return arguments

    def _infer(self, arguments: Any) -> None:
        if not isinstance(arguments, dict):
            return
        inner: Any = arguments.get("name")  # pyright: ignore[reportUnknownMemberType] - JSON
        if isinstance(inner, str) and inner in self._tools.parameters:
            self._name, self._repair = inner, "took the name from inside the arguments"
            return
        keys: list[str] = list(arguments)  # pyright: ignore[reportUnknownArgumentType] - JSON
        found = self._tools.by_arguments(keys)
        if found:
            self._name, self._repair = found, "inferred the missing name from the arguments"

    def _hoisted(self, arguments: Any) -> Any:
        if not self._repair.startswith("took the name"):
            return arguments
        rest = {key: value for key, value in arguments.items() if key != "name"}
        only = next(iter(rest.values())) if set(rest) & _ARGUMENTS and len(rest) == 1 else None
        return only if isinstance(only, dict) else rest


class JsonCallList:
    """`[{…}, {…}]`, or one call object without the brackets."""

    def __init__(self, calls: Calls, tools: Tools, *, known_only: bool = False) -> None:
        self._calls, self._tools, self._known_only = calls, tools, known_only
        self._call: JsonCall | None = None
        self._bracket = False
        self._between = ""

    @property
    def unread(self) -> str:
        """Text that was taken and has not been told as a call."""
        return self._call.unread if self._call else self._between

    def push(self, char: str) -> Progress:
        """Reads a character."""
        if self._call is not None:
            progress = self._call.push(char)
            if progress is not Progress.DONE:
                return progress
            self._call, self._between = None, ""
            return Progress.MORE if self._bracket else Progress.DONE
        if char == "{":
            self._call = JsonCall(self._calls, self._tools, known_only=self._known_only)
            self._call.unread, self._between = self._between, ""
            return self._call.push(char)
        self._between += char
        if char == "]" and self._bracket:
            self._between = ""
            return Progress.DONE
        if char == "[" and not self._bracket:
            self._bracket = True
        elif not (char.isspace() or (char == "," and self._bracket)):
            return Progress.BROKEN
        return Progress.MORE

    def cut(self) -> None:
        """Closes a call that was begun."""
        if self._call is not None:
            self._call.cut()


def mend(scanner: JsonScanner, char: str) -> str | None:
    """Reads a character, escaping it where a string has it raw; None where it is not legal."""
    if scanner.accept(char):
        return char
    escaped = RAW_CONTROLS.get(char) if scanner.in_string else None
    if escaped is None or not all(scanner.accept(each) for each in escaped):
        return None
    return escaped
