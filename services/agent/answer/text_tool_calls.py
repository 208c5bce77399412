"""Tool calls written into the text, for endpoints without native ones (Hermes, Qwen).

`InBandParser` finds `<think>` and `<tool_call>` in a stream whatever its chunking, and where calls
were asked for in the text the markers that models use in their stead; what stands in a code fence
or behind a backtick is quoted, and text.
`instructions` and `as_text` put tools and past calls into the text that the model reads.
Pure: no I/O, no clock.

The neuron's own readers of tool calls are not shared; why, says
docs/decisions/0020-the-agent-reads-calls-itself.md.

Source: the Hermes function-calling prompt format and Qwen's chat templates.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.agent.answer.fences import Fences
from services.agent.core.history import (
    AssistantTurn,
    ResultsTurn,
    TextPart,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.endpoints.endpoint import ToolSpec

_THINK, _THINK_END = "<think>", "</think>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_CALLS, _CALLS_END = "<tool_calls>", "</tool_calls>"
_TO_THE_END = "\0"  # closes nothing: the call takes the rest of the answer
_ENDS = {
    _THINK: _THINK_END,
    _CALL: _CALL_END,
    _CALLS: _CALLS_END,
    "[TOOL_CALLS]": _TO_THE_END,
    "<|python_tag|>": _TO_THE_END,
}
_OTHER_CALLS = (_CALLS, "[TOOL_CALLS]", "<|python_tag|>")

_HEAD = """\
# Tools

You may call one or more functions. Their signatures are within <tools></tools>:"""
_HOW = """\
For each call, write a JSON object with the function's name and arguments within \
<tool_call></tool_call>, then stop and wait for the result:
<tool_call>
{"name": "<function-name>", "arguments": {"<argument>": "<value>"}}
</tool_call>"""


@dataclass(frozen=True, slots=True)
class Text:
    """Visible text."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text between think markers, which count only at the start of an answer."""

    text: str


@dataclass(frozen=True, slots=True)
class RawCall:
    """What stood between tool-call markers; `is_complete` is False when the answer ended first."""

    text: str
    is_complete: bool
    opening: str = _CALL

    @property
    def takes_the_rest(self) -> bool:
        """Whether nothing closes it but the end of the answer."""
        return _ENDS[self.opening] == _TO_THE_END

    @property
    def verbatim(self) -> str:
        """The text as the model wrote it, markers included."""
        closing = _ENDS[self.opening] if self.is_complete else ""
        return f"{self.opening}{self.text}{closing.removeprefix(_TO_THE_END)}"


Piece = Text | Reasoning | RawCall


class InBandParser:
    """Splits one answer; feed it any pieces, the concatenated outcome is the same.

    Args:
        is_text_format: calls were asked for in the text, so that other notations count too.
    """

    def __init__(self, *, is_text_format: bool = False) -> None:
        self._markers = (_CALL, *_OTHER_CALLS) if is_text_format else (_CALL,)
        self._fences = Fences()
        self._buffer = ""
        self._opening = ""  # the marker that began the current block, empty in plain text
        self._closing = ""  # the one that ends it
        self._call = ""  # of the current call, what stood before a close marker inside a string
        self._may_think = True

    def feed(self, text: str) -> list[Piece]:
        """Returns what is certain so far."""
        self._buffer += text
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """Returns the rest; an open call comes out as incomplete."""
        rest, self._buffer = self._call + self._buffer, ""
        closing, self._closing, self._call = self._closing, "", ""
        if closing and closing != _THINK_END:
            return [RawCall(rest, closing == _TO_THE_END, self._opening)]
        if not rest:
            return []
        return [Reasoning(rest) if closing else Text(rest)]

    def _step(self, pieces: list[Piece]) -> bool:
        """Consumes up to the next marker; says whether there may be more."""
        if self._closing == _TO_THE_END:
            return False
        if self._closing and self._closing != _THINK_END:
            return self._end_call(pieces)
        if self._closing:
            return self._upto((self._closing,), pieces)
        begun = self._buffer.lstrip()
        if self._may_think and begun != _THINK and _THINK.startswith(begun):
            return False  # blank so far, or half a marker: `<think>` may still come first
        return self._upto((_THINK, *self._markers) if self._may_think else self._markers, pieces)

    def _upto(self, markers: Sequence[str], pieces: list[Piece]) -> bool:
        thinking = bool(self._closing)
        found = [(self._buffer.find(marker), marker) for marker in markers]
        hits = sorted((at, marker) for at, marker in found if at >= 0)
        if not thinking and _THINK in markers:
            hits = [hit for hit in hits if hit[1] != _THINK or not self._buffer[: hit[0]].strip()]
        end = hits[0][0] if hits else len(self._buffer) - self._held_back(markers)
        piece, self._buffer = self._buffer[:end], self._buffer[end:]
        opened = hits[0][1] if hits else ""
        if not thinking:
            self._fences.feed(piece)
        if piece and not (opened == _THINK and not piece.strip()):
            pieces.append(Reasoning(piece) if thinking else Text(piece))
        if piece.strip() or hits:
            self._may_think = False
        if not hits:
            return False
        self._buffer = self._buffer[len(opened) :]
        if opened in self._markers and self._fences.quotes_next:
            self._fences.feed(opened)
            pieces.append(Text(opened))
            return True
        self._opening, self._closing = opened, _ENDS.get(opened, "")
        return True

    def _held_back(self, markers: Sequence[str]) -> int:
        """Counts the last characters that may be the beginning of a marker."""
        longest = 0
        for marker in markers:
            for size in range(min(len(marker) - 1, len(self._buffer)), longest, -1):
                if self._buffer.endswith(marker[:size]):
                    longest = size
                    break
        return longest

    def _end_call(self, pieces: list[Piece]) -> bool:
        """Ends the call at a close marker, unless that marker lies inside a JSON string."""
        at = self._buffer.find(self._closing)
        if at < 0:
            return False
        text = self._call + self._buffer[:at]
        self._buffer = self._buffer[at + len(self._closing) :]
        if _in_json_string(text):
            self._call = text + self._closing
            return True
        pieces.append(RawCall(text, is_complete=True, opening=self._opening))
        self._call, self._closing = "", ""
        return True


def _in_json_string(text: str) -> bool:
    """Says whether a JSON text ends inside a string; other notations never do."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    inside = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\" and inside:
            escaped = True
        elif character == '"':
            inside = not inside
    return inside


def instructions(tools: Iterable[ToolSpec]) -> str:
    """Returns the block of the system prompt that offers the tools."""
    lines = [
        json.dumps(
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            },
            ensure_ascii=False,
        )
        for tool in tools
    ]
    listed = "\n".join(lines)
    return f"{_HEAD}\n<tools>\n{listed}\n</tools>\n\n{_HOW}"


def as_text(turns: Iterable[Turn]) -> list[Turn]:
    """Writes past calls and results into the text of the turns around them."""
    return [_as_text(turn) for turn in turns]


def _as_text(turn: Turn) -> Turn:
    if isinstance(turn, AssistantTurn) and turn.calls:
        blocks = [turn.text] if turn.text else []
        blocks += [f"{_CALL}\n{_written(call)}\n{_CALL_END}" for call in turn.calls]
        return AssistantTurn(text="\n".join(blocks))
    if isinstance(turn, ResultsTurn):
        text = "\n".join(_response(result) for result in turn.results)
        pictures = [picture for result in turn.results for picture in result.pictures]
        return UserTurn(parts=(TextPart(text), *pictures))
    return turn


def _response(result: ToolResult) -> str:
    return f"<tool_response>\n{result.text}\n</tool_response>"


def _written(call: ToolCall) -> str:
    if call.arguments is None:
        return call.raw.strip()
    return json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
