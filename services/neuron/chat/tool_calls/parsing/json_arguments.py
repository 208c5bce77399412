"""The arguments of a call whose name is known: a JSON object, passed on as it comes."""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls
from services.neuron.chat.tool_calls.parsing.json_scanner import JsonScanner
from services.neuron.chat.tool_calls.parsing.mending import JsonMender

BROKEN: Final = "closed: what followed was no JSON"
UNREADABLE: Final = "left open: the arguments are no JSON"


class JsonArguments(CallReader):
    """Reads one object; the call begins with its first brace."""

    def __init__(self, calls: Calls, name: str) -> None:
        self._calls = calls
        self._name = name
        self._scanner = JsonScanner()
        self._mender = JsonMender(self._scanner)
        self._begun = False
        self._unread = ""

    @property
    def has_told(self) -> bool:
        """The call has begun."""
        return self._begun

    @property
    @override
    def unread(self) -> str:
        return self._unread

    @override
    def push(self, char: str) -> CallProgress:
        if not self._begun:
            self._unread += char
            if char.isspace():
                return CallProgress.MORE
            if char != "{":
                return CallProgress.BROKEN
            self._begun, self._unread = True, ""
            self._calls.begin(self._name)
        for each in self._mender.mended(char):
            if not self._scanner.accept(each):
                self._unread = self._mender.held + char
                if self._mender.is_ended_by(char):
                    self._calls.arguments(self._scanner.closing(), repair=BROKEN)
                else:
                    self._calls.leave_open(repair=UNREADABLE)
                return CallProgress.BROKEN
            self._calls.arguments(each, repair=self._mender.repair)
        return CallProgress.DONE if self._scanner.is_complete else CallProgress.MORE

    @override
    def cut(self) -> None:
        if not self._begun:
            return
        held = self._mender.held
        for each in () if self._calls.is_cut else self._mender.at_end():
            self._scanner.accept(each)
            self._calls.arguments(each, repair=self._mender.repair)
        self._calls.cut_off(self._scanner.closing(), held=held)
