"""Qwen3-Coder: `<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>`.

Values are bare text, typed by the tool's schema; a string is passed on as it comes.
Source: the chat template of Qwen/Qwen3-Coder.
"""

from __future__ import annotations

from typing import Final

from services.neuron.chat.stream import ChatParser, held_back
from services.neuron.chat.tool_calls.arguments import coerce, dumps
from services.neuron.chat.tool_calls.calls import Calls, Progress, Tools
from services.neuron.chat.tool_calls.json_call import CUT_OFF
from services.neuron.chat.tool_calls.region import RegionParser

NAME: Final = "qwen_xml"
OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"
_FUNCTION: Final = "<function="
_PARAMETER: Final = "<parameter="
_END_PARAMETER: Final = "</parameter>"
_END_FUNCTION: Final = "</function>"


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return _FUNCTION in template and _PARAMETER in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    return RegionParser(
        calls=calls,
        opening=OPENING,
        closing=CLOSING,
        reader=lambda: XmlCall(calls, tools),
        repeats=True,
    )


class XmlCall:
    """One `<function=…>…</function>`."""

    def __init__(self, calls: Calls, tools: Tools) -> None:
        self._calls, self._tools = calls, tools
        self._name = ""
        self._key: str | None = None
        self._text = ""
        self._sent = 0
        self._keys = 0
        self.unread = ""

    def push(self, char: str) -> Progress:
        """Reads a character."""
        self._text += char
        if not self._name:
            return self._head(char)
        if self._key is not None:
            self._in_value()
            return Progress.MORE
        return self._between()

    def cut(self) -> None:
        """Closes what was begun."""
        if not self._name:
            return
        if self._key is not None:
            self._end_value(self._text)
        self._calls.arguments("}" if self._keys else "{}", repair=CUT_OFF)

    def _head(self, char: str) -> Progress:
        self.unread += char
        seen = self._text.lstrip()
        if not seen.startswith(_FUNCTION[: len(seen)]):
            return Progress.BROKEN
        if char == ">":
            self._name = seen[len(_FUNCTION) : -1].strip().strip("\"'")
            if not self._name:
                return Progress.BROKEN
            self._text, self.unread = "", ""
            self._calls.begin(self._name)
        return Progress.MORE

    def _between(self) -> Progress:
        seen = self._text.lstrip()
        if seen.endswith(">") and seen.startswith(_PARAMETER):
            self._key = seen[len(_PARAMETER) : -1].strip().strip("\"'")
            self._calls.arguments(("{" if not self._keys else ", ") + dumps(self._key) + ": ")
            self._keys += 1
            self._text, self._sent = "", 0
            return Progress.MORE
        if seen == _END_FUNCTION:
            self._calls.arguments("}" if self._keys else "{}")
            return Progress.DONE
        if _PARAMETER.startswith(seen[: len(_PARAMETER)]) or _END_FUNCTION.startswith(seen):
            return Progress.MORE
        if seen.startswith(("</tool_call", "<")) and len(seen) < len(CLOSING):
            return Progress.MORE
        self._calls.arguments("}" if self._keys else "{}", repair="closed: </function> is missing")
        self.unread = "" if seen == CLOSING else self._text
        return Progress.DONE if seen == CLOSING else Progress.BROKEN

    def _in_value(self) -> None:
        if self._text.endswith(_END_PARAMETER):
            self._end_value(self._text[: -len(_END_PARAMETER)])
        elif self._is_string():
            keep = held_back(self._text, _END_PARAMETER)
            certain = self._text[: len(self._text) - keep]
            # the last line break may be the template's own
            self._send_string(certain.removesuffix("\n"))

    def _is_string(self) -> bool:
        assert self._key is not None
        return self._tools.property_schema(self._name, self._key).get("type") == "string"

    def _send_string(self, certain: str) -> None:
        """Passes on what is new of a string; the template's own line breaks around it are not."""
        certain = certain.removeprefix("\n")
        if not certain:
            return
        opening = '"' if not self._sent else ""
        self._calls.arguments(opening + dumps(certain[self._sent :])[1:-1])
        self._sent = len(certain)

    def _end_value(self, text: str) -> None:
        assert self._key is not None
        whole = text.removesuffix("\n")
        if self._is_string():
            self._send_string(whole)
            self._calls.arguments('"' if self._sent else '""')
        else:
            schema = self._tools.property_schema(self._name, self._key)
            self._calls.arguments(dumps(coerce(whole.removeprefix("\n"), schema)))
        self._key, self._text = None, ""
