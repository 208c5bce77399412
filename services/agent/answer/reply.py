"""Puts one streamed answer together, native and in-band calls alike. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from services.agent.answer.text_tool_calls import InBandParser, Piece, RawCall, Reasoning, Text
from services.agent.answer.tool_call_repair import (
    Reading,
    is_whole,
    named_tool,
    read_arguments,
    read_calls,
)
from services.agent.answer.unmarked_calls import UnmarkedCalls
from services.agent.core.history import AssistantTurn, Thought, ToolCall
from services.agent.core.text import clean
from services.agent.endpoints.endpoint import (
    CallDelta,
    CallStarted,
    Finished,
    FinishReason,
    StreamEvent,
    TextDelta,
    ThoughtDelta,
    ThoughtSealed,
)


@dataclass(frozen=True, slots=True)
class ShowText:
    """Visible text to pass on to the editor."""

    text: str


@dataclass(frozen=True, slots=True)
class ShowThought:
    """Reasoning to pass on to the editor."""

    text: str


@dataclass(frozen=True, slots=True)
class ShowCall:
    """A call whose arguments are still arriving."""

    id: str
    name: str


Show = ShowText | ShowThought | ShowCall


@dataclass(slots=True)
class _Native:
    """A native call that is arriving."""

    id: str
    name: str
    arguments: list[str] = field(default_factory=list[str])


class Reply:
    """One answer in the making.

    Args:
        tools: names of the tools on offer and of their parameters.
        is_text_format: calls were asked for in the text; then every `<tool_call>` is one, even
            a broken one. Otherwise one that reads as a known tool's is taken, the rest is text.
        new_id: makes an id for a call, unique in the session, from the endpoint's own.
    """

    def __init__(
        self,
        *,
        tools: Mapping[str, tuple[str, ...]],
        is_text_format: bool,
        new_id: Callable[[str], str],
    ) -> None:
        self._tools = tools
        self._is_text_format = is_text_format
        self._new_id = new_id
        self._parser = InBandParser(is_text_format=is_text_format)
        self._unmarked = UnmarkedCalls() if is_text_format else None
        self._text: list[str] = []
        self._thought: list[str] = []
        self._thoughts: list[Thought] = []
        self._calls: list[ToolCall | _Native] = []
        self._native: dict[int, _Native] = {}
        self.finished: Finished | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all has arrived, so that asking again repeats nothing."""
        return not (self._text or self._thought or self._thoughts or self._calls)

    def take(self, event: StreamEvent) -> Iterator[Show]:
        """Takes the next event and yields what to show for it."""
        match event:
            case TextDelta(text):
                yield from self._pieces(self._parser.feed(text))
            case ThoughtDelta(text):
                self._thought.append(text)
                yield ShowThought(text)
            case ThoughtSealed(seal, dialect):
                self._seal(seal, dialect)
            case CallStarted(index, call_id, name):
                native = _Native(self._new_id(call_id), name)
                self._native[index] = native
                self._calls.append(native)
                yield ShowCall(native.id, name)
            case CallDelta(index, arguments):
                if index in self._native:
                    self._native[index].arguments.append(arguments)
            case Finished():
                self.finished = event
                yield from self.flush()

    def flush(self) -> Iterator[Show]:
        """Yields what the parser still held back; the answer is over or was cut off."""
        yield from self._pieces(self._parser.finish())
        yield from self._rest()

    def turn(self) -> AssistantTurn:
        """Returns the answer so far, which then is over."""
        for _ in self.flush():
            pass
        self._seal("", "")
        calls = tuple(
            _native_call(call, is_cut=self._is_limited and call is self._calls[-1])
            if isinstance(call, _Native)
            else call
            for call in self._calls
        )
        return AssistantTurn(clean("".join(self._text)), tuple(self._thoughts), calls)

    @property
    def _is_limited(self) -> bool:
        return self.finished is not None and self.finished.stop is FinishReason.MAX_TOKENS

    def _seal(self, seal: str, dialect: str) -> None:
        if self._thought or seal:
            self._thoughts.append(Thought(clean("".join(self._thought)), seal, dialect))
            self._thought = []

    def _pieces(self, pieces: list[Piece]) -> Iterator[Show]:
        for piece in pieces:
            unmarked = self._unmarked
            match piece:
                case Text(text):
                    yield from self._visible(text if unmarked is None else unmarked.feed(text))
                case Reasoning(text):
                    self._thought.append(text)
                    yield ShowThought(clean(text))
                case RawCall():
                    yield from self._in_band(piece)

    def _visible(self, text: str) -> Iterator[Show]:
        if text:
            self._text.append(text)
            yield ShowText(clean(text))

    def _in_band(self, raw: RawCall) -> Iterator[Show]:
        yield from self._rest(is_end=False)
        readings = read_calls(raw.text, self._tools)
        is_at_end = not raw.is_complete or raw.takes_the_rest
        if is_at_end and (self._is_limited or (not raw.takes_the_rest and not is_whole(raw.text))):
            name = named_tool(raw.text) or readings[-1].name
            readings[-1] = _cut(name, is_limited=self._is_limited)
        if not self._is_text_format and any(each.name not in self._tools for each in readings):
            yield from self._visible(raw.verbatim)
            return
        for reading in readings:
            yield from self._called(reading, raw.text)

    def _rest(self, *, is_end: bool = True) -> Iterator[Show]:
        """Yields what was held as a possible call: one at the end of the answer, else text."""
        if self._unmarked is not None:
            is_call = is_end and not self._is_limited
            text, readings = self._unmarked.finish(self._tools if is_call else {})
            self._unmarked = None
            yield from self._visible(text)
            for reading in readings:
                yield from self._called(reading, "")

    def _called(self, reading: Reading, raw: str) -> Iterator[Show]:
        call = _call(self._new_id(""), raw, reading)
        self._calls.append(call)
        yield ShowCall(call.id, call.name)


def _native_call(native: _Native, *, is_cut: bool) -> ToolCall:
    raw = "".join(native.arguments)
    reading = _cut(native.name, is_limited=True) if is_cut else read_arguments(native.name, raw)
    return _call(native.id, raw, reading)


def _call(call_id: str, raw: str, reading: Reading) -> ToolCall:
    if reading.arguments is None:
        return ToolCall(call_id, reading.name, None, clean(raw), reading.told)
    return ToolCall(call_id, reading.name, reading.arguments, note=reading.note)


def _cut(name: str, *, is_limited: bool) -> Reading:
    """A call that the answer did not close, which is never run."""
    if is_limited:
        error = "the answer reached its token limit before the call was complete, so it was not run"
        advice = "Write less: smaller files or edits, one at a time."
    else:
        error, advice = "the answer ended before the call was closed, so it was not run", ""
    return Reading(name, None, error=error, advice=advice)
