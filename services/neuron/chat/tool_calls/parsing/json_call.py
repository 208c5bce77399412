"""`{"name": …, "arguments": {…}}`, its spellings, and what models get wrong about it.

The arguments are passed on as they come, once the name is known. Mended, and said so: spellings
that are no JSON (see `mending`), a name or arguments in the wrong place (see `resolving`), an end
that is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from typing_extensions import override

from services.neuron.chat.tool_calls.parsing.calls import (
    CUT_OFF,
    CallProgress,
    CallReader,
    Calls,
    Tools,
)
from services.neuron.chat.tool_calls.parsing.json_arguments import BROKEN, UNREADABLE
from services.neuron.chat.tool_calls.parsing.json_scanner import Expect, JsonScanner
from services.neuron.chat.tool_calls.parsing.mending import JsonMender
from services.neuron.chat.tool_calls.parsing.resolving import (
    ARGUMENT_KEYS,
    CALL_KEYS,
    NAME_KEYS,
    left_out,
    resolve,
)


class JsonCall(CallReader):
    """One call object, read as it comes."""

    def __init__(
        self,
        calls: Calls,
        tools: Tools,
        *,
        known_only: bool = False,
        repair: str = "",
        repairs: Mapping[str, str] = MappingProxyType({}),
        unread: str = "",
    ) -> None:
        """Begins.

        Args:
            calls: where findings go.
            tools: of this request.
            known_only: an object that names no tool of the request is text, not a call.
            repair: what was mended already.
            repairs: tool name to what is to be told of every call of it.
            unread: text before it that was taken and goes with it if it is no call.
        """
        self._calls, self._tools, self._known_only = calls, tools, known_only
        self._scanner = JsonScanner()
        self._mender = JsonMender(self._scanner)
        self._level = 1
        self._key = ""
        self._key_text = ""
        self._value: str | None = None
        self._name = ""
        self._arguments: str | None = None
        self._others: dict[str, Any] = {}
        self._streams = False
        self._begun = False
        self._is_refused = False
        self._repair, self._repairs = repair, repairs
        self._unread = unread

    @property
    @override
    def unread(self) -> str:
        return self._unread

    @override
    def push(self, char: str) -> CallProgress:
        self._unread += char
        if self._is_unopened and char not in "{ \t\r\n":
            return CallProgress.BROKEN
        for each in self._mender.mended(char):
            if not self._accept(each):
                return self._broken(char)
        self._mend(self._mender.repair)
        return self._end() if self._scanner.expect is Expect.END else CallProgress.MORE

    @override
    def cut(self) -> None:
        """Ends a call that was begun, or that lacks nothing but its end; else all is unread."""
        if self._begun:
            held = self._mender.held
            for each in () if self._calls.is_cut else self._mender.at_end():
                self._accept(each)
            self._mend(self._mender.repair)
            self._calls.cut_off(self._missing(), held=held)
            self._unread = ""
        elif self._arguments is not None or not self._calls.is_cut:
            self._complete(CUT_OFF)

    @property
    def has_told(self) -> bool:
        """The call has begun."""
        return self._begun

    @property
    def _is_unopened(self) -> bool:
        return not self._scanner.depth and self._scanner.expect is Expect.VALUE

    def _accept(self, char: str) -> bool:
        before, depth = self._scanner.expect, self._scanner.depth
        if not self._scanner.accept(char):
            return False
        self._follow(before, depth, char)
        return not self._is_refused

    def _mend(self, repair: str) -> None:
        if repair and self._begun:
            self._calls.arguments("", repair=repair)
        elif repair and repair not in self._repair:
            self._repair = "; ".join(filter(None, (self._repair, repair)))

    def _broken(self, char: str) -> CallProgress:
        if self._begun and self._streams and not self._mender.is_ended_by(char):
            self._calls.leave_open(repair=UNREADABLE)
            self._unread = self._mender.held + char
        elif self._begun:
            self._calls.arguments(self._missing(), repair=BROKEN)
            self._unread = self._mender.held + char
        elif self._mender.is_ended_by(char) and self._complete(BROKEN):
            self._unread = self._mender.held + char
        return CallProgress.BROKEN

    def _missing(self) -> str:
        """What the arguments of a call that was begun lack; not what is around them."""
        return self._scanner.closing()[: -self._level] if self._streams else ""

    def _complete(self, repair: str) -> bool:
        """Ends an object whose last value is whole as if the model had; False if it is no call."""
        if self._scanner.expect is not Expect.COMMA:
            return False
        unread = self._unread
        for char in self._scanner.closing():
            self._accept(char)
        self._mend(repair)
        if self._end() is CallProgress.DONE:
            self._begun = True
            return True
        self._unread = unread
        return False

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
                self._is_refused = self._known_only and self._key not in CALL_KEYS
        elif before in {Expect.FIRST_KEY, Expect.KEY}:
            self._key_text = ""
        elif before is Expect.VALUE and not char.isspace():
            self._begin_value(char)

    def _begin_value(self, char: str) -> None:
        if self._key == "function" and char == "{":
            self._level += 1
            return
        self._value = ""
        wanted = self._key in ARGUMENT_KEYS and self._arguments is None
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
        elif self._key in ARGUMENT_KEYS and self._arguments is None:
            self._arguments = value
        elif self._key in NAME_KEYS and not self._name:
            parsed = _loaded(value)
            # no tool's name has half a surrogate pair in it
            if isinstance(parsed, str) and parsed.isprintable() and "\ufffd" not in parsed:
                self._name = parsed
                self._is_refused = self._known_only and parsed not in self._tools.parameters
        else:
            self._others[self._key] = _loaded(value)

    def _begin(self) -> None:
        if not self._known_only or self._name in self._tools.parameters:
            self._mend(self._repairs.get(self._name, ""))
            self._begun = True
            self._calls.begin(self._name, repair=self._repair)
            self._unread = ""

    def _end(self) -> CallProgress:
        if self._begun:
            for repair in left_out(self._others):
                self._mend(repair)
        else:
            try:
                found = resolve(self._name, self._arguments, self._others, self._tools)
            except ValueError:
                return CallProgress.BROKEN
            if found is None or (self._known_only and found.name not in self._tools.parameters):
                return CallProgress.BROKEN
            for repair in found.repairs:
                self._mend(repair)
            self._mend(self._repairs.get(found.name, ""))
            self._calls.begin(found.name, repair=self._repair)
            self._calls.arguments(found.arguments_json)
        self._unread = ""
        return CallProgress.DONE


def _loaded(value: str) -> Any:
    """A value that the scanner has followed; its text where Python refuses to count that far."""
    try:
        return json.loads(value)
    except ValueError:
        return value
