"""GLM 4.5 and later: `<tool_call>NAME`, then `<arg_key>k</arg_key><arg_value>v</arg_value>` pairs.

Values are bare text, typed by the tool's schema. Source: the chat template of zai-org/GLM-4.5.
Quantised and busy models also write `<tool_call>NAME {…}`, Hermes' JSON, end a name with a tag
that belongs to a pair, leave out a tag or put pairs in odd order; what such a call means is plain.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.arguments import dumps, json_of, opened
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls, Tools
from services.neuron.chat.tool_calls.parsing.json_arguments import JsonArguments
from services.neuron.chat.tool_calls.parsing.json_call_list import JsonCallList
from services.neuron.chat.tool_calls.parsing.region import RegionOpening, RegionParser

NAME: Final = "glm"
OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"
_KEY, _END_KEY = "<arg_key>", "</arg_key>"
_VALUE, _END_VALUE = "<arg_value>", "</arg_value>"
_TOOL_NAME: Final = re.compile(r"[\w.-]+")
_TAGS: Final = (_KEY, _END_KEY, _VALUE, _END_VALUE, CLOSING)
_STRAY_TAG: Final = "left out a tag behind the name"
_LOST_TAG: Final = "put in a tag that is missing"


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return _KEY in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    return RegionParser(
        calls=calls,
        openings=[RegionOpening(OPENING, CLOSING, lambda: GlmCall(calls, tools))],
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Key:
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Value:
    text: str


class GlmCall(CallReader):
    """The inside of one `<tool_call>`."""

    def __init__(self, calls: Calls, tools: Tools) -> None:
        self._calls, self._tools = calls, tools
        self._json: JsonArguments | JsonCallList | None = None
        self._name = ""
        self._odd: list[_Key | _Value] = []
        self._told = 0
        self._text = ""

    @property
    @override
    def unread(self) -> str:
        if self._json is not None:
            return self._json.unread
        return self._text

    @override
    def push(self, char: str) -> CallProgress:
        if self._json is not None:
            return self._json.push(char)
        self._text += char
        if not self._name:
            return self._head(char)
        if char != ">":
            return CallProgress.MORE
        in_value = _VALUE in self._text
        if self._text.endswith(_END_VALUE):
            self._end_value(self._text.removesuffix(_END_VALUE))
        elif self._text.endswith(_END_KEY) and in_value:
            self._end_key_in_value(self._text.removesuffix(_END_KEY))
        elif self._text.endswith(_END_KEY):
            self._end_key(self._text.removesuffix(_END_KEY))
        elif self._text.endswith(CLOSING) and not in_value:
            return self._end()
        return CallProgress.MORE

    @override
    def cut(self) -> None:
        if self._json is not None:
            self._json.cut()
            return
        if not self._name:
            return
        if self._calls.is_cut:
            self._open_value()
            return
        if _VALUE in self._text:
            self._end_value(self._text.rstrip().removesuffix(CLOSING))
        elif not any(tag.startswith(self._text.strip()) for tag in _TAGS):
            self._leave_out(self._text)
        self._text = ""
        self._tell_odd()
        self._calls.cut_off("}" if self._told else "{}")

    def _open_value(self) -> None:
        """Tells the last value as far as it came."""
        match self._odd, self._text.partition(_VALUE):
            case [_Key(key)], (before, tag, value) if tag and not before.strip():
                self._begin_pair(key)
                self._calls.arguments(opened(value, self._tools.kinds(self._name, key)))
            case _ if not self._told:
                self._calls.arguments("{")
            case _:
                pass
        self._text = ""
        self._calls.cut_off("}")

    def _head(self, char: str) -> CallProgress:
        name, tag, _ = self._text.strip().partition("<")
        name = name.strip()
        if char == "{" and not tag:
            return self._read_json(name[:-1].strip())
        if not name and not tag:
            return CallProgress.MORE
        if not _TOOL_NAME.fullmatch(name):
            return CallProgress.BROKEN
        if char not in "\n>":
            return CallProgress.MORE
        self._name, self._text = name, self._text[self._text.find("<") :] if tag else ""
        self._calls.begin(name)
        if self._text and self._text not in {_KEY, CLOSING}:
            stray = self._text in _TAGS
            self._calls.arguments("", repair=_STRAY_TAG if stray else f"left out {self._text!r}")
            self._text = ""
        return self._end() if self._text == CLOSING else CallProgress.MORE

    def _read_json(self, name: str) -> CallProgress:
        self._json = (
            JsonArguments(self._calls, name) if name else JsonCallList(self._calls, self._tools)
        )
        self._text = ""
        return self._json.push("{")

    def _end(self) -> CallProgress:
        """The closing marker has been read; it is the region's, told in `unread`."""
        self._close("")
        self._text = self._text.strip()
        return CallProgress.BROKEN

    def _end_key(self, text: str) -> None:
        before, tag, key = text.rpartition(_KEY)
        if not tag:
            self._calls.arguments("", repair=_LOST_TAG)
        self._leave_out(before)
        self._odd.append(_Key(key.strip()))
        self._text = ""

    def _end_key_in_value(self, text: str) -> None:
        """A value may speak of keys; one that the tool has comes behind a value without an end."""
        value, tag, key = text.rpartition(_KEY)
        known = self._tools.knows(self._name, key.strip())
        if tag and known and CLOSING not in value:
            self._calls.arguments("", repair=_LOST_TAG)
            self._end_value(value.rstrip())
            self._end_key(tag + key)

    def _end_value(self, text: str) -> None:
        before, tag, value = text.partition(_VALUE)
        if not tag:
            before, value = "", text.strip()
            self._calls.arguments("", repair=_LOST_TAG if value else _STRAY_TAG)
        before, unended, key = before.partition(_KEY)
        self._leave_out(before)
        if unended:
            self._calls.arguments("", repair=_LOST_TAG)
            self._odd.append(_Key(key.strip()))
        self._text = ""
        match self._odd:
            case [_Key() as only]:
                self._odd = []
                self._tell(only, _Value(value))
            case _ if tag or value:
                self._odd.append(_Value(value))
            case _:
                pass

    def _tell(self, key: _Key, value: _Value) -> None:
        self._begin_pair(key.text)
        self._calls.arguments(json_of(value.text, self._tools.kinds(self._name, key.text)))

    def _begin_pair(self, key: str) -> None:
        self._calls.arguments(f"{', ' if self._told else '{'}{dumps(key)}: ")
        self._told += 1

    def _leave_out(self, text: str) -> None:
        if text.strip():
            self._calls.arguments("", repair=f"left out {text.strip()!r}")

    def _close(self, repair: str) -> None:
        self._tell_odd()
        self._calls.arguments("}" if self._told else "{}", repair=repair)

    def _tell_odd(self) -> None:
        pairs, rest = _paired(self._odd)
        for key, value in pairs:
            self._tell(key, value)
        for each in rest:
            self._leave_out(each.text)
        self._odd = []


def _paired(odd: Sequence[_Key | _Value]) -> tuple[list[tuple[_Key, _Value]], list[_Key | _Value]]:
    """Keys with their values, and what has none: in order where there are as many of both.

    Else a value belongs to the key right before it.
    """
    keys = [each for each in odd if isinstance(each, _Key)]
    values = [each for each in odd if isinstance(each, _Value)]
    if len(keys) == len(values):
        return list(zip(keys, values, strict=True)), []
    pairs: list[tuple[_Key, _Value]] = []
    rest: list[_Key | _Value] = []
    for each in odd:
        match (rest[-1:], each):
            case ([_Key() as key], _Value() as value):
                rest.pop()
                pairs.append((key, value))
            case _:
                rest.append(each)
    return pairs, rest
