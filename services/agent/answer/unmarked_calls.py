"""Calls that a model writes without markers: an answer that is JSON, or that ends in a JSON fence.

Only where calls were asked for in the text. Pure.
"""

from collections.abc import Iterable, Mapping

from services.agent.answer.fences import after, opening
from services.agent.answer.tool_call_repair import Reading, json_values, read_calls

_LANGUAGES = frozenset({"", "json", "jsonc", "tool_call", "tool_calls"})


class UnmarkedCalls:
    """Holds back the text that may be a call; feed it any pieces, the outcome is the same."""

    def __init__(self) -> None:
        self._line = ""  # the last one, as far as it has arrived
        self._fence = ""  # the one that is open
        self._held = ""  # the whole answer, or a fence from its first line on
        self._is_begun = False
        self._is_whole = False  # the answer begins as JSON does
        self._is_inside = False  # of a line whose beginning was returned already

    def feed(self, text: str) -> str:
        """Returns the text that certainly is no call."""
        if not self._is_begun:
            self._line += text
            begun = self._line.lstrip()
            if not begun:
                return ""
            self._is_begun, self._is_whole = True, begun[0] in "{["
            text, self._line = self._line, ""
        if self._is_whole:
            self._held += text
            return ""
        passed = ""
        if self._is_inside:
            end, newline, text = text.partition("\n")
            self._is_inside = not newline
            passed = end + newline
        *lines, self._line = (self._line + text).split("\n")
        passed += "".join(self._passed(f"{line}\n") for line in lines)
        return passed + self._plain_beginning()

    def finish(self, tools: Mapping[str, Iterable[str]]) -> tuple[str, list[Reading]]:
        """Returns the rest, the answer being over, and the calls that the last of it was."""
        line, self._line = self._line, ""
        text = self._passed(line) if line and not self._is_whole else line
        held, self._held = self._held, ""
        if not self._is_whole and self._fence:
            return text + held, []
        body = held if self._is_whole else "\n".join(held.strip().split("\n")[1:-1])
        calls = _calls(body, tools)
        return (text, calls) if calls else (text + held, [])

    def _passed(self, line: str) -> str:
        """Takes a whole line and returns what need not be held."""
        before, self._fence = self._fence, after(line, self._fence)
        if self._held and (before or not line.strip()):
            self._held += line
            return ""
        text, self._held = self._held, ""
        if not before and self._fence and opening(line)[1] in _LANGUAGES:
            self._held = line
            return text
        return text + line

    def _plain_beginning(self) -> str:
        """Returns the unfinished line where it can neither open nor close a fence."""
        begun = self._line.lstrip(" ")
        if self._held or self._fence or not begun or begun[0] in "`~":
            return ""
        self._line, text, self._is_inside = "", self._line, True
        return text


def _calls(text: str, tools: Mapping[str, Iterable[str]]) -> list[Reading]:
    """Returns the calls of a text that is nothing but whole calls of known tools, else none."""
    values = json_values(text)
    if not values or not all(_is_call(value, tools) for value in values):
        return []
    return read_calls(text, tools)


def _is_call(value: object, tools: Mapping[str, Iterable[str]]) -> bool:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict):
        return False
    return function.get("name") in tools and bool({"arguments", "parameters"} & function.keys())
