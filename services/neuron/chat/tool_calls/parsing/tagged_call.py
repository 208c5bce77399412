"""One call written in tags: name and arguments in the tags' heads, values as bare text between.

`<function=NAME><parameter=KEY>value</parameter></function>` and its relatives. Values are typed by
the tool's schema, or by what the tag itself says; a string is passed on as it comes.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from typing_extensions import override

from services.neuron.chat.schemas.kinds import TYPES
from services.neuron.chat.stream import held_back
from services.neuron.chat.tool_calls.parsing.arguments import ONLY_STRING, dumps, json_of, opened
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls, Tools

_QUOTES: Final = "\"'"
_OPTIONAL: Final = frozenset({"string", "null"})
_NULLS: Final = ("null", "none")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CallTags:
    """How a family spells a call.

    Attributes:
        call: what stands before the name.
        end_call: ends the call.
        pair: what stands before the name of an argument.
        end_pair: ends the argument's value.
        region: closes whatever the call stands in.
        is_padded: the template writes a line break on both sides of a value.
    """

    call: str
    end_call: str
    pair: str
    end_pair: str
    region: str
    is_padded: bool = False


class TaggedCall(CallReader):
    """One call, read as it comes."""

    def __init__(
        self, calls: Calls, tools: Tools, tags: CallTags, *, known_only: bool = False
    ) -> None:
        """Begins.

        Args:
            calls: where findings go.
            tools: of this request.
            tags: of the family.
            known_only: a name that no tool of the request has is text, not a call.
        """
        self._calls, self._tools, self._tags = calls, tools, tags
        self._known_only = known_only
        self._name = ""
        self._key: str | None = None
        self._kinds = TYPES
        self._is_string = False
        self._text = ""
        self._sent = 0
        self._keys = 0
        self._unread = ""

    @property
    @override
    def unread(self) -> str:
        return self._unread

    @override
    def push(self, char: str) -> CallProgress:
        self._text += char
        if not self._name:
            return self._head(char)
        if self._key is not None:
            return self._in_value()
        return self._between()

    @override
    def cut(self) -> None:
        if not self._name:
            return
        if self._key is not None and self._calls.is_cut:
            self._open_value()
        elif self._key is not None:
            self._end_value(self._text)
        elif self._calls.is_cut and not self._keys:
            self._calls.arguments("{")
        self._calls.cut_off("}" if self._keys else "{}")
        self._text = ""

    def _head(self, char: str) -> CallProgress:
        self._unread += char
        seen, opening = self._text.lstrip(), self._tags.call
        if not (opening.startswith(seen) or seen.startswith(opening)):
            return CallProgress.BROKEN
        if char == ">" and seen.startswith(opening):
            name, _ = _attribute(seen[len(opening) : -1])
            if not name or (self._known_only and name not in self._tools.parameters):
                return CallProgress.BROKEN
            self._name, self._text, self._unread = name, "", ""
            self._calls.begin(name)
        return CallProgress.MORE

    def _between(self) -> CallProgress:
        seen, tags = self._text.lstrip(), self._tags
        if seen.endswith(">") and seen.startswith(tags.pair):
            self._begin_value(seen[len(tags.pair) : -1])
            return CallProgress.MORE
        if seen == tags.end_call:
            self._end("")
            return CallProgress.DONE
        if seen == tags.end_pair:
            self._text = ""
            self._calls.arguments("", repair=f"left out a second {tags.end_pair}")
            return CallProgress.MORE
        possible = (tags.end_call, tags.region, tags.end_pair)
        if seen.startswith(tags.pair) or any(
            each.startswith(seen) and each != seen for each in (tags.pair, *possible)
        ):
            return CallProgress.MORE
        self._unread = self._text
        self._end(f"closed: {tags.end_call} is missing")
        return CallProgress.BROKEN

    def _begin_value(self, head: str) -> None:
        self._key, rest = _attribute(head)
        self._kinds = self._tools.kinds(self._name, self._key)
        self._is_string = self._kinds == ONLY_STRING
        if rest.startswith("string="):
            self._is_string = "true" in rest
        self._calls.arguments(("{" if not self._keys else ", ") + dumps(self._key) + ": ")
        self._keys += 1
        self._text, self._sent = "", 0

    def _in_value(self) -> CallProgress:
        text, tags = self._text, self._tags
        if text.endswith(tags.end_pair):
            self._end_value(text[: -len(tags.end_pair)])
        elif text.endswith(tags.region) and self._ending(text) > len(tags.region):
            # both ends in a row, and the value's own is missing
            self._end_value(text[: -self._ending(text)])
            self._end(f"closed: {tags.end_pair} is missing")
            self._unread = tags.region
            return CallProgress.BROKEN
        elif self._is_string or self._kinds == _OPTIONAL:
            keep = max(held_back(text, tags.end_pair), self._ending(text))
            certain = self._unpadded_end(text[: len(text) - keep])
            if not self._is_string:
                # what may be null too is a string as soon as it cannot become that any more
                seen = certain.strip().lower()
                self._is_string = not any(each.startswith(seen) for each in _NULLS)
            if self._is_string:
                self._send_string(certain)
        return CallProgress.MORE

    def _ending(self, text: str) -> int:
        """How much of the text's end may be the end of the call and of its region, in lines."""
        start = text.rfind("\n" + self._tags.end_call)
        if start >= 0:
            rest = text[start + 1 + len(self._tags.end_call) :].lstrip()
            return len(text) - start if self._tags.region.startswith(rest) else 0
        return held_back(text, "\n" + self._tags.end_call)

    def _send_string(self, certain: str) -> None:
        """Passes on what is new of a string; the template's own line breaks around it are not."""
        certain = self._unpadded_start(certain)
        if not certain[self._sent :]:
            return
        opening = '"' if not self._sent else ""
        self._calls.arguments(opening + dumps(certain[self._sent :])[1:-1])
        self._sent = len(certain)

    def _end_value(self, text: str) -> None:
        whole = self._unpadded_end(text)
        if self._is_string:
            self._send_string(whole)
            self._calls.arguments('"' if self._sent else '""')
        else:
            self._calls.arguments(json_of(self._unpadded_start(whole), self._kinds))
        self._key, self._text = None, ""

    def _open_value(self) -> None:
        """Tells a value as far as it came; a string of which nothing came is opened."""
        if self._is_string:
            self._calls.arguments("" if self._sent else '"')
        else:
            self._calls.arguments(opened(self._unpadded_start(self._text), self._kinds))

    def _end(self, repair: str) -> None:
        self._calls.arguments("}" if self._keys else "{}", repair=repair)
        self._text = ""

    def _unpadded_start(self, text: str) -> str:
        return text.removeprefix("\n") if self._tags.is_padded else text

    def _unpadded_end(self, text: str) -> str:
        return text.removesuffix("\n") if self._tags.is_padded else text


def _attribute(head: str) -> tuple[str, str]:
    """The value that a tag's head begins with, and what follows it."""
    head = head.strip()
    if head[:1] in _QUOTES and head:
        value, _, rest = head[1:].partition(head[0])
        return value.strip(), rest.strip()
    return head.strip(_QUOTES).strip(), ""
