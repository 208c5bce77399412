"""Reads a tool call that a model wrote, mending what models commonly get wrong. Pure.

Every repair is told in `Reading.note`, so that a person sees it; what cannot be mended is told
in `Reading.error`, so that the model can try again. Nothing is dropped silently.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.agent.core.text import clean_json

_MOST_SURPLUS_BRACES = 3
_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(
    r"<parameter=([^>\s]+)>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL
)
_END = re.compile(r"</(?:parameter|function)>")
_UNCLEAR = "it is not clear where the call's parameters begin and end, so it was not run"
_AS_JSON = 'Send it as JSON: {"name": "...", "arguments": {...}}.'
_DECODER = json.JSONDecoder(strict=False)
_NAME = re.compile(r'"name"\s*:\s*"([^"\\]+)"')
_MARKERS = re.compile(r"</?tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>|<\|eot_id\|>")
# Mistral's later notation: name[ARGS]{…}
_NAMED = re.compile(r"\s*([A-Za-z_][\w.-]*)(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{)")


@dataclass(frozen=True, slots=True)
class Reading:
    """A call as far as it could be read; `arguments` is None exactly when `error` is set.

    Attributes:
        note: what was mended, for people.
        error: what is wrong with it, for the model.
        advice: what the model is told to do about an error.
    """

    name: str
    arguments: dict[str, Any] | None
    note: str = ""
    error: str = ""
    advice: str = "Send the call again, as valid JSON."

    @property
    def told(self) -> str:
        """What the model is told of the error."""
        return f"{self.error}. {self.advice}" if self.advice else self.error


def read_arguments(name: str, text: str) -> Reading:
    """Reads a native call's arguments; no text means none."""
    if not text.strip():
        return Reading(name, {})
    try:
        value, note = _loads(text)
        value, unwrapped = _unwrap(value)
    except ValueError as error:
        return Reading(name, None, error=f"the arguments are not valid JSON: {error}")
    if not isinstance(value, dict):
        return Reading(name, None, error="the arguments must be a JSON object")
    return Reading(name, clean_json(value), note=_join(note, unwrapped))


def read_calls(text: str, tools: Mapping[str, Iterable[str]]) -> list[Reading]:
    """Reads all calls that one pair of markers holds: one, an array, or one after another.

    Args:
        text: what stood between the markers, or behind the one marker of Mistral and Llama.
        tools: the names of the tools on offer and of their parameters.
    """
    values = json_values(text)
    if values is None and (matches := list(_FUNCTION.finditer(text))):
        readings = [_from_function(match, tools) for match in matches]
        if _END.search(_FUNCTION.sub("", text[matches[0].start() :])):
            return [Reading(each.name, None, error=_UNCLEAR, advice=_AS_JSON) for each in readings]
        return readings
    if values is None:
        inner = _MARKERS.sub("\n", text)
        values = json_values(inner) or _named(inner)
    if values is None:
        return [read_call(text, tools)]
    return [
        _from_object(clean_json(value), "", tools)
        if isinstance(value, dict)
        else Reading("", None, error="the tool call must be a JSON object")
        for value in values
    ] or [Reading("", None, error="there is no tool call")]


def json_values(text: str) -> list[Any] | None:
    """Returns the JSON values that a text consists of, arrays flattened; None if it is others."""
    values: list[Any] = []
    rest = text.strip()
    while rest:
        try:
            value, end = _DECODER.raw_decode(rest)
        except (ValueError, RecursionError):
            return None
        values += value if isinstance(value, list) else [value]
        rest = rest[end:].lstrip(" \t\r\n,;")
    return values


def is_whole(text: str) -> bool:
    """Whether a call without its closing marker is complete by its own notation."""
    return bool(json_values(text)) or text.rstrip().endswith("</function>")


def named_tool(text: str) -> str:
    """The name in a call that cannot be read as a whole; empty where there is none."""
    match = _FUNCTION.search(text) or _NAME.search(text)
    return match[1] if match else ""


def _named(text: str) -> list[Any] | None:
    """Returns calls in Mistral's later notation as objects; None if the text is others."""
    values: list[Any] = []
    while match := _NAMED.match(text):
        try:
            arguments, end = _DECODER.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            return None
        values.append({"name": match[1], "arguments": arguments})
        text = text[end:].lstrip()
    return values if values and not text else None


def read_call(text: str, tools: Mapping[str, Iterable[str]]) -> Reading:
    """Reads a call written into the text.

    Args:
        text: what stood between the markers: JSON, or Qwen's `<function=…>` notation.
        tools: the names of the tools on offer and of their parameters.
    """
    if match := _FUNCTION.search(text):
        return _from_function(match, tools)
    try:
        value, note = _loads(text)
    except ValueError as error:
        return Reading("", None, error=f"the tool call is not valid JSON: {error}")
    if not isinstance(value, dict):
        return Reading("", None, error="the tool call must be a JSON object")
    return _from_object(clean_json(value), note, tools)


def _from_function(match: re.Match[str], tools: Mapping[str, Iterable[str]]) -> Reading:
    """Reads Qwen's notation, in which nothing tells a marker from a value that holds one.

    What could be either is an error: half of a file would be written, or another.
    """
    name, body = match[1], match[2]
    found: list[tuple[str, str]] = _PARAMETER.findall(body)
    arguments = dict(found)
    known = frozenset(tools.get(name, ()))
    is_open = not match[0].endswith("</function>") and not body.rstrip().endswith("</parameter>")
    if (
        _PARAMETER.sub("", body).strip()
        or len(arguments) < len(found)
        or (known and not known.issuperset(arguments))
        or (found and is_open)
    ):
        return Reading(name, None, error=_UNCLEAR, advice=_AS_JSON)
    return Reading(name, clean_json(arguments))  # values stay text: the tool's schema coerces them


def _from_object(value: dict[str, Any], note: str, tools: Mapping[str, Iterable[str]]) -> Reading:
    if isinstance(value.get("function"), dict):
        value, note = value["function"], _join(note, "unwrapped `function`")
    name = value.get("name")
    key = next((key for key in ("arguments", "parameters") if key in value), None)
    try:
        arguments, unwrapped = _unwrap(value[key]) if key else (None, "")
    except ValueError as error:
        return Reading(str(name or ""), None, error=f"the arguments are not valid JSON: {error}")
    note = _join(note, unwrapped)
    if arguments is None:
        arguments = {each: value[each] for each in value if each != "name"}
        note = _join(note, "arguments stood beside the name") if arguments else note
    if not isinstance(arguments, dict):
        return Reading(str(name or ""), None, error="the arguments must be a JSON object")
    if not isinstance(name, str) or not name:
        return _with_found_name(arguments, note, tools)
    return Reading(name, arguments, note)


def _with_found_name(
    arguments: dict[str, Any], note: str, tools: Mapping[str, Iterable[str]]
) -> Reading:
    """Hoists a name out of the arguments, or infers the one tool that the keys can mean."""
    inner = arguments.get("name")
    if isinstance(inner, str) and inner in tools:
        if isinstance(arguments.get("arguments"), dict):
            rest = arguments["arguments"]
        else:
            rest = {key: value for key, value in arguments.items() if key != "name"}
        return Reading(inner, rest, _join(note, "the name stood inside the arguments"))
    keys = frozenset(arguments)
    candidates = [name for name, known in _SIGNATURES.items() if name in tools and keys in known]
    if len(candidates) == 1:
        return Reading(candidates[0], arguments, _join(note, "the name was missing"))
    return Reading("", None, note, error="the tool call does not name a tool")


# Key sets that can mean only one tool; {path} alone may be a read or a listing.
_SIGNATURES: dict[str, frozenset[frozenset[str]]] = {
    "bash": frozenset({frozenset({"command"}), frozenset({"command", "cwd"})}),
    "write_file": frozenset({frozenset({"path", "content"})}),
    "edit_file": frozenset({frozenset({"path", "old_text", "new_text"})}),
}


def _loads(text: str) -> tuple[Any, str]:
    """Decodes JSON and forgives up to three surplus closing braces and raw line ends in strings.

    Raises:
        ValueError: anything else is wrong with it.
    """
    stripped = text.strip()
    for surplus in range(_MOST_SURPLUS_BRACES + 1):
        if surplus:
            if not stripped.endswith("}"):
                break
            stripped = stripped[:-1].rstrip()
        try:
            return json.loads(stripped, strict=False), _surplus_note(surplus)
        except ValueError:
            continue
    return json.loads(text.strip(), strict=False), ""


def _surplus_note(surplus: int) -> str:
    return f"{surplus} surplus closing brace{'s' if surplus > 1 else ''}" if surplus else ""


def _unwrap(value: Any) -> tuple[Any, str]:
    """Decodes arguments that came as a JSON string, once."""
    if not isinstance(value, str):
        return value, ""
    decoded, _ = _loads(value) if value.strip() else ({}, "")
    return decoded, "arguments came as a string"


def _join(first: str, second: str) -> str:
    return "; ".join(part for part in (first, second) if part)
