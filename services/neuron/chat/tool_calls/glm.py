"""GLM 4.5 and later: `<tool_call>NAME`, then `<arg_key>k</arg_key><arg_value>v</arg_value>` pairs.

Values are bare text, typed by the tool's schema. Source: the chat template of zai-org/GLM-4.5.
"""

from __future__ import annotations

from typing import Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.arguments import coerce, dumps
from services.neuron.chat.tool_calls.calls import Calls, Progress, Tools
from services.neuron.chat.tool_calls.json_call import CUT_OFF
from services.neuron.chat.tool_calls.region import RegionParser

NAME: Final = "glm"
OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"
_KEY, _END_KEY = "<arg_key>", "</arg_key>"
_VALUE, _END_VALUE = "<arg_value>", "</arg_value>"


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return _KEY in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    return RegionParser(
        calls=calls,
        opening=OPENING,
        # the reader needs all of the marker but its last character to see the end
        closing=CLOSING[-1],
        reader=lambda: GlmCall(calls, tools),
    )


class GlmCall:
    """The inside of one `<tool_call>`."""

    def __init__(self, calls: Calls, tools: Tools) -> None:
        self._calls, self._tools = calls, tools
        self._name = ""
        self._key: str | None = None
        self._keys = 0
        self._text = ""
        self.unread = ""

    def push(self, char: str) -> Progress:
        """Reads a character. The closing marker itself ends the call."""
        self._text += char
        if not self._name:
            return self._head(char)
        if self._text.endswith(_END_KEY):
            self._key = self._text[: -len(_END_KEY)].partition(_KEY)[2].strip()
            self._text = ""
        elif self._key is not None and self._text.endswith(_END_VALUE):
            self._end_value(self._text[: -len(_END_VALUE)].partition(_VALUE)[2])
        elif self._key is None and self._text.endswith(CLOSING[:-1]):
            # the last character is left for the region
            self._calls.arguments("}" if self._keys else "{}")
            self._text = ""
            return Progress.DONE
        return Progress.MORE

    def cut(self) -> None:
        """Closes what was begun."""
        if not self._name:
            return
        if self._key is not None and _VALUE in self._text:
            self._end_value(self._text.partition(_VALUE)[2])
        self._calls.arguments("}" if self._keys else "{}", repair=CUT_OFF)

    def _head(self, char: str) -> Progress:
        self.unread += char
        ended = char == "\n" or self._text.endswith(_KEY)
        name = self._text.removesuffix(_KEY).strip()
        if name.endswith(CLOSING[:-1]):
            name, ended = name.removesuffix(CLOSING[:-1]).strip(), True
        if not ended or (char == "\n" and not name):
            return Progress.MORE
        if not name or not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
            return Progress.BROKEN
        self._name, self.unread = name, ""
        self._calls.begin(name)
        if self._text.endswith(CLOSING[:-1]):
            self._calls.arguments("{}")
            return Progress.DONE
        self._text = _KEY if self._text.endswith(_KEY) else ""
        return Progress.MORE

    def _end_value(self, text: str) -> None:
        assert self._key is not None
        value = coerce(text, self._tools.property_schema(self._name, self._key))
        opening = ", " if self._keys else "{"
        self._calls.arguments(f"{opening}{dumps(self._key)}: {dumps(value)}")
        self._keys += 1
        self._key, self._text = None, ""
