"""Reads an output by a format's parser, and checks what it was read as."""

import dataclasses
import itertools
import json

from services.neuron.chat.stream import ReasoningPiece, TextPiece, ToolCallPiece
from services.neuron.chat.tool_calls import formats
from services.neuron.chat.tool_calls.parsing.calls import Tools

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "metric": {"type": "boolean"},
        "tags": {"type": "array"},
    },
    "required": ["city"],
}
WRITE = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
    "required": ["path", "content"],
}
TOOLS = Tools({"get_weather": WEATHER, "write": WRITE, "now": {}})
OSLO = ("call_0", "get_weather", {"city": "Oslo"})
NOW: tuple[str, str, dict[str, object]] = ("call_0", "now", {})
OPEN, CLOSE = "<tool_call>", "</tool_call>"


def read(name, chunks, tools=TOOLS):
    """(text, reasoning, calls, repairs) of an output; calls as (id, name, parsed arguments).

    Arguments that cannot be read as JSON, and are marked so, stay text.
    """
    numbers = itertools.count()
    parser = formats.tool_parser(name, tools, lambda: f"call_{next(numbers)}")
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)]
    pieces += parser.finish()
    for piece in pieces:
        assert any(dataclasses.astuple(piece)[isinstance(piece, ToolCallPiece) :])
    calls: dict[int, list[str]] = {}
    unread: set[int] = set()
    repairs: list[str] = []
    for piece in pieces:
        if isinstance(piece, ToolCallPiece):
            call = calls.setdefault(piece.index, ["", "", ""])
            call[0] += piece.call_id
            call[1] += piece.name
            call[2] += piece.arguments_json
            unread |= {piece.index} if piece.incomplete else set()
            repairs += filter(None, [piece.repair])
    return (
        "".join(piece.text for piece in pieces if isinstance(piece, TextPiece)),
        "".join(piece.text for piece in pieces if isinstance(piece, ReasoningPiece)),
        [
            (one[0], one[1], one[2] if index in unread else json.loads(one[2]))
            for index, one in calls.items()
        ],
        repairs,
    )


def check_meaning(name, output, meant):
    """Checks text and calls of an output, read whole and one character at a time."""
    text, calls = meant

    got_text, _, got_calls, _ = read(name, [output])

    assert (text, calls) == (got_text, got_calls)
    assert read(name, [output]) == read(name, list(output))


def check_slip(name, output, meant):
    """Checks text, calls and the words of a repair, however the output is cut."""
    text, calls, repair = meant

    whole = read(name, [output])

    assert (text, calls) == (whole[0], whole[2])
    assert repair in "; ".join(whole[3])
    assert whole[:3] == read(name, list(output))[:3]
    for middle in range(len(output)):
        assert whole[:3] == read(name, [output[:middle], output[middle:]])[:3]
