"""Llama 3.2 and 4, and others: the whole output is a Python list of calls, `[f(a=1), g(b="x")]`.

Source: Meta's prompt format for Llama 3.2 and 4.
"""

from __future__ import annotations

import ast
from typing import Any, Final

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.calls import Calls, Progress, Tools
from services.neuron.chat.tool_calls.leading_tag import LeadingTagParser
from services.neuron.chat.tool_calls.region import LeadingParser

NAME: Final = "pythonic"
TAG: Final = "<|python_start|>"
_OPEN: Final = "[{("
_CLOSED: Final = "]})"


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return "[func_name1(" in template or "[tool_call_name(" in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    inner = LeadingParser(calls=calls, begins="[", reader=lambda: PythonCalls(calls, tools))
    return LeadingTagParser(TAG, inner)


class PythonCalls:
    """One list of calls, told when it is whole: Python's own parser reads it."""

    def __init__(self, calls: Calls, tools: Tools) -> None:
        self._calls, self._tools = calls, tools
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self.unread = ""

    def push(self, char: str) -> Progress:
        """Reads a character."""
        self.unread += char
        if self._quote:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == self._quote:
                self._quote = ""
        elif char in "\"'":
            self._quote = char
        elif char in _OPEN:
            self._depth += 1
        elif char in _CLOSED:
            self._depth -= 1
            if self._depth == 0:
                return self._end()
        return Progress.MORE

    def cut(self) -> None:
        """A list that is not whole is no list of calls."""

    def _end(self) -> Progress:
        try:
            found = _read(self.unread)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return Progress.BROKEN
        if not found or any(name not in self._tools.parameters for name, _ in found):
            return Progress.BROKEN
        for name, arguments in found:
            self._calls.whole(name, arguments)
        self.unread = ""
        return Progress.DONE


def _read(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Calls of a list display; ValueError where it holds anything else."""
    tree = ast.parse(text.strip(), mode="eval").body
    if not isinstance(tree, ast.List):
        raise ValueError(text)  # noqa: TRY004 - the text is at fault, no caller
    found: list[tuple[str, dict[str, Any]]] = []
    for element in tree.elts:
        if not isinstance(element, ast.Call) or element.args:
            raise ValueError(text)
        arguments = {
            keyword.arg: ast.literal_eval(keyword.value)
            for keyword in element.keywords
            if keyword.arg is not None
        }
        found.append((ast.unparse(element.func), arguments))
    return found
