"""Llama 3.2 and 4, and others: the whole output is a Python list of calls, `[f(a=1), g(b="x")]`.

Source: Meta's prompt format for Llama 3.2 and 4.
"""

from __future__ import annotations

import ast
import dataclasses
import warnings
from typing import Any, Final

from typing_extensions import override

from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.parsing.arguments import dumps
from services.neuron.chat.tool_calls.parsing.calls import CallProgress, CallReader, Calls, Tools
from services.neuron.chat.tool_calls.parsing.leading_call import LeadingParser
from services.neuron.chat.tool_calls.parsing.leading_tag import LeadingTagParser

NAME: Final = "pythonic"
TAG: Final = "<|python_start|>"
_OPEN: Final = "[{("
_CLOSED: Final = "]})"
_JSON_NAMES: Final = {"true": True, "false": False, "null": None}


def detects(template: str) -> bool:
    """True for a template that shows the model this format."""
    return "[func_name1(" in template or "[tool_call_name(" in template


def parser(calls: Calls, tools: Tools) -> ChatParser:
    """Reads one output."""
    inner = LeadingParser(
        calls=calls,
        begins="[",
        reader=lambda: PythonCalls(calls, tools),
        openings=[f"[{name}(" for name in tools.parameters],
    )
    return LeadingTagParser(TAG, inner)


class PythonCalls(CallReader):
    """One list of calls, told when it is whole: Python's own parser reads it."""

    def __init__(self, calls: Calls, tools: Tools) -> None:
        self._calls, self._tools = calls, tools
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self._unread = ""

    @property
    @override
    def unread(self) -> str:
        return self._unread

    @override
    def push(self, char: str) -> CallProgress:
        self._unread += char
        if not self._depth and char not in "[ \t\r\n":
            return CallProgress.BROKEN
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
        return CallProgress.MORE

    @override
    def cut(self) -> None:
        """A list that is not whole is no list of calls."""

    def _end(self) -> CallProgress:
        try:
            found = _read(self._unread)
            for call in found:
                dumps(call.arguments)
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            return CallProgress.BROKEN
        if not found or any(call.name not in self._tools.parameters for call in found):
            return CallProgress.BROKEN
        for call in found:
            self._calls.whole(call.name, call.arguments, repair=call.repair)
        self._unread = ""
        return CallProgress.DONE


@dataclasses.dataclass(frozen=True, slots=True)
class _ParsedCall:
    name: str
    arguments: dict[str, Any]
    repair: str = ""


class _JsonNames(ast.NodeTransformer):
    """Takes JSON's names for Python's."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(_JSON_NAMES[node.id]) if node.id in _JSON_NAMES else node


def _read(text: str) -> list[_ParsedCall]:
    """Calls of a list display; ValueError where it holds anything else."""
    tree = _parsed(text)
    if not isinstance(tree, ast.List):
        raise ValueError(text)  # noqa: TRY004 - the text is at fault, no caller
    return [_call(element) for element in tree.elts]


def _parsed(text: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know
        tree = ast.parse(text.strip(), mode="eval").body
    named: ast.expr = _JsonNames().visit(tree)
    return named


def _call(element: ast.expr) -> _ParsedCall:
    repair = ""
    if isinstance(element, ast.Constant) and isinstance(element.value, str):
        element, repair = _parsed(element.value), "took a call out of quotes"
    if not isinstance(element, ast.Call):
        raise ValueError(ast.dump(element))  # noqa: TRY004 - likewise
    name, arguments = element.func, _arguments(element)
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        return _ParsedCall(name.value, arguments, "took a name out of quotes")
    return _ParsedCall(
        ast.unparse(name), arguments, "; ".join(filter(None, (repair, _repeated(element))))
    )


def _repeated(call: ast.Call) -> str:
    """What to say about keys that an object has twice: as in JSON, the last one counts."""
    said: list[str] = []
    for node in ast.walk(call):
        if isinstance(node, ast.Dict):
            keys = [ast.unparse(key) for key in node.keys if key is not None]
            said += [
                f"left out {keys[at]}: {ast.unparse(value)}, as the key comes again"
                for at, value in enumerate(node.values)
                if keys[at] in keys[at + 1 :]
            ]
    return "; ".join(said)


def _arguments(call: ast.Call) -> dict[str, Any]:
    """Keyword arguments, or one object of them."""
    named = {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg}
    if len(named) != len(call.keywords) or (call.args and (named or len(call.args) > 1)):
        raise ValueError(ast.dump(call))
    only: Any = ast.literal_eval(call.args[0]) if call.args else named
    if not isinstance(only, dict):
        raise ValueError(ast.dump(call))  # noqa: TRY004 - likewise
    return only  # pyright: ignore[reportUnknownVariableType] - a literal
