"""The rest of a call whose arguments cannot be read: told as it was written, up to its end."""

from __future__ import annotations

from typing_extensions import override

from services.neuron.chat.stream import held_back
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls


class RestOfCall(CallReader):
    """Takes everything up to the region's closing marker into the newest call."""

    def __init__(self, calls: Calls, closing: str) -> None:
        """Begins behind what was told.

        Args:
            calls: where findings go; its newest call was left open.
            closing: the marker; empty for the end of the output.
        """
        self._calls, self._closing = calls, closing
        self._held = ""

    @property
    @override
    def unread(self) -> str:
        return ""

    @override
    def push(self, char: str) -> CallProgress:
        self._held += char
        if self._closing and self._held == self._closing:
            return CallProgress.DONE
        certain = len(self._held) - held_back(self._held, self._closing)
        if certain:
            self._calls.arguments(self._held[:certain])
            self._held = self._held[certain:]
        return CallProgress.MORE

    @override
    def cut(self) -> None:
        self._calls.arguments(self._held)
