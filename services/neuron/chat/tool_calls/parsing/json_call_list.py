"""`[{…}, {…}]`: a list of call objects, or one without the brackets."""

from __future__ import annotations

from typing_extensions import override

from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_call import JsonCall


class JsonCallList(CallReader):
    """`[{…}, {…}]`, or one call object without the brackets."""

    def __init__(self, calls: Calls, tools: Tools, *, known_only: bool = False) -> None:
        self._calls, self._tools, self._known_only = calls, tools, known_only
        self._call: JsonCall | None = None
        self._bracket = False
        self._between = ""

    @property
    @override
    def unread(self) -> str:
        return self._call.unread if self._call else self._between

    @override
    def push(self, char: str) -> CallProgress:
        if self._call is not None:
            return self._inside(char)
        if char == "{":
            self._call = JsonCall(
                self._calls, self._tools, known_only=self._known_only, unread=self._between
            )
            self._between = ""
            return self._call.push(char)
        self._between += char
        if char == "]" and self._bracket:
            self._between = ""
            return CallProgress.DONE
        if char == "[" and not self._bracket:
            self._bracket = True
        elif not (char.isspace() or (char == "," and self._bracket)):
            return CallProgress.BROKEN
        return CallProgress.MORE

    @override
    def cut(self) -> None:
        if self._call is not None:
            self._call.cut()

    def _inside(self, char: str) -> CallProgress:
        assert self._call is not None
        progress = self._call.push(char)
        if progress is CallProgress.MORE or (
            progress is CallProgress.BROKEN and not self._ends_early
        ):
            return progress
        rest, self._call, self._between = self._call.unread, None, ""
        for each in rest[:-1]:
            self.push(each)
        if rest:
            return self.push(rest[-1])
        return CallProgress.MORE if self._bracket else CallProgress.DONE

    @property
    def _ends_early(self) -> bool:
        """The call of a list has been told, only its end is missing."""
        return self._bracket and self._call is not None and self._call.has_told
