"""The chunks of an OpenAI stream as canonical events."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Final

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.transports.upstream.chunks import (
    READER,
    CallPiece,
    Choice,
    ChunkUsage,
    CompletionDetails,
    Logprobs,
    PromptDetails,
    arguments_of,
    bounded_count,
    error_of,
    thoughts_of,
    words_of,
)
from services.gateway.transports.upstream.errors import Words
from services.gateway.transports.upstream.logprobs import log_probabilities
from services.gateway.transports.upstream.meter import AnswerMeter, size_of
from services.gateway.transports.upstream.sse import DONE, BrokenStreamError

_MOST_CALLS: Final = 1024
# Ids of another vocabulary would be taken for ones of this fleet: they only count.
_COUNTS: Final = (0,)
# What some servers say of an answer that goes on.
_NO_REASONS: Final = frozenset({None, "", "null"})
_REASONS: Final = {
    "stop": generation.FINISH_REASON_END_OF_TURN,
    "length": generation.FINISH_REASON_MAX_TOKENS,
    "max_tokens": generation.FINISH_REASON_MAX_TOKENS,
    "tool_calls": generation.FINISH_REASON_TOOL_CALLS,
    "function_call": generation.FINISH_REASON_TOOL_CALLS,
}

Event = generation.GenerateResponse


class AnswerDecoder:
    """Reads the chunks of one answer, in order.

    Args:
        words: words its errors.
        prompt_tokens: of the prompt, estimated: told until the server counts, and where it never
            does.
        most_tokens: of the answer: what is beyond them is cut off; None: no bound.

    Attributes:
        is_done: nothing more is to be read: `[DONE]` has come, or the answer is as long as it may.
        is_cut: it would have been longer.
    """

    def __init__(self, words: Words, *, prompt_tokens: int, most_tokens: int | None = None) -> None:
        self._words = words
        self._meter = AnswerMeter(most_tokens)
        self._most_tokens = most_tokens
        self._usage = generation.Usage(prompt_tokens=prompt_tokens)
        self._has_usage = False
        self._has_started = False
        self._is_whole = False
        self._calls = 0
        self._has_arguments = False  # the last one that was read
        self._last_call: list[str] | None = None  # pieces of the last that was passed on
        self._last_index = 0
        self._places: list[int] = []  # by which number the server calls each
        self._call_id = ""  # as the server calls the last one
        self._early_id = ""  # of one that has no name yet
        self._finish: generation.FinishReason.ValueType | None = None
        self._stop_string = ""
        self.is_done = False
        self.is_cut = False

    def events(self, data: bytes) -> Iterator[Event]:
        """The events of one chunk; none where it has no news.

        Raises:
            FleetError: the server tells of an error, or the answer was filtered.
            BrokenStreamError: it is no chunk.
        """
        if data.strip() == DONE:
            self.is_done = True
            return
        if self.is_done:
            return
        try:
            chunk = READER.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BrokenStreamError(f"one event is no chunk of an answer ({error})") from error
        if chunk.error is not None or chunk.object == "error":
            raise self._words.told(error_of(chunk))
        if chunk.usage is not None:
            self._count(chunk.usage)
        # one choice is asked for; some servers number it by other things
        for choice in (chunk.choices or ())[:1]:
            for event in self._choice(choice):
                if (passed := self._meter.within(event)) is not None:
                    self._note_call(passed)
                    yield passed
                if self._meter.is_full:
                    self._cut()
                    return

    def whole(self, data: bytes) -> Iterator[Event]:
        """The events of an answer that came as one piece; errors as of `events`."""
        self._is_whole = True
        yield from self.events(data)
        self.is_done = True

    def finished(self) -> generation.GenerationFinished:
        """The end, behind the last chunk; `last_events` come before it.

        Raises:
            BrokenStreamError: the answer has broken off.
        """
        if self._finish is None:
            raise BrokenStreamError("the answer broke off")
        if not self._has_usage or not self._usage.completion_tokens:
            # some count once, before the answer
            self._usage.completion_tokens = self._meter.tokens
        if self._calls and self._finish == generation.FINISH_REASON_END_OF_TURN:
            self._finish = generation.FINISH_REASON_TOOL_CALLS  # some say `stop` here too
        return generation.GenerationFinished(
            reason=self._finish, stop_string=self._stop_string, usage=self._usage
        )

    def last_events(self) -> Iterator[Event]:
        """What the last call still needs: `{}` for no arguments, a mark where it was cut."""
        if self._finish is None or self._last_call is None:
            return
        arguments = "".join(self._last_call)
        delta = generation.ToolCallDelta(index=self._last_index)
        if not arguments:
            delta.arguments_json = "{}"
        elif not _is_json(arguments):
            delta.incomplete = True
        else:
            return
        yield Event(tool_call=delta)

    def _choice(self, choice: Choice) -> Iterator[Event]:
        found = list(self._deltas(choice))
        if self._is_whole:
            self._meter.note_whole(sum(map(size_of, found)))
        is_over = choice.finish_reason not in _NO_REASONS
        if not self._has_started and (found or is_over):
            # not by a chunk that has only a role: some servers send it while they still wait
            self._has_started = True
            yield Event(
                started=generation.GenerationStarted(
                    prompt_tokens=self._usage.prompt_tokens,
                    cached_prompt_tokens=self._usage.cached_prompt_tokens,
                )
            )
        yield from found
        if is_over:
            self._end(choice)

    def _deltas(self, choice: Choice) -> Iterator[Event]:
        delta = choice.message if self._is_whole else choice.delta
        if delta is None:
            yield from self._text(choice.text or "", choice.logprobs)
        else:
            reasoning = delta.reasoning_content or delta.reasoning or thoughts_of(delta.content)
            if isinstance(reasoning, str) and reasoning:
                yield Event(reasoning=generation.ReasoningDelta(text=reasoning, token_ids=_COUNTS))
            yield from self._text(words_of(delta.content) or delta.refusal or "", choice.logprobs)
            for piece in delta.tool_calls or ():
                yield from self._call(piece)

    def _text(self, text: str, logprobs: Logprobs | None) -> Iterator[Event]:
        told = log_probabilities(logprobs)
        if text or told:
            delta = generation.TextDelta(text=text, token_ids=_COUNTS * len(told), logprobs=told)
            yield Event(text=delta)

    def _call(self, piece: CallPiece) -> Iterator[Event]:
        function = piece.function
        name = (function and function.name) or ""
        arguments = arguments_of(function.arguments if function else None)
        delta = generation.ToolCallDelta(arguments_json=arguments, token_ids=_COUNTS)
        if self._begins_call(piece, name):
            if not name and not arguments:  # some servers tell its name in the next piece
                self._early_id = piece.id or ""
                return
            yield from self._emptied()
            self._add_call(piece, name)
            delta.name, delta.call_id = name, self._call_id or f"call_{uuid.uuid4().hex[:24]}"
        self._has_arguments = self._has_arguments or bool(arguments)
        delta.index = self._calls - 1
        yield Event(tool_call=delta)

    def _begins_call(self, piece: CallPiece, name: str) -> bool:
        """Whether a piece begins a call, whether or not the server counts its calls.

        Raises:
            BrokenStreamError: it belongs to a call behind which another has begun.
        """
        index, places = piece.index, self._places
        if not places:
            return True
        if index is not None and index != places[-1]:
            if index in places:
                raise BrokenStreamError("the pieces of its tool calls are mixed")
            return True
        if not name or (piece.id and piece.id == self._call_id):
            return False
        # servers that send each call as a whole leave the number out, or say 0 of all
        return index is None or bool(piece.id and self._call_id)

    def _add_call(self, piece: CallPiece, name: str) -> None:
        index = self._calls if piece.index is None else piece.index
        if not name or index < 0:
            raise BrokenStreamError("a tool call has no name")
        if self._calls >= _MOST_CALLS:
            raise BrokenStreamError(f"it makes more than {_MOST_CALLS} tool calls")
        self._call_id, self._early_id = piece.id or self._early_id, ""
        self._calls += 1
        self._has_arguments = False
        self._places.append(index)

    def _emptied(self) -> Iterator[Event]:
        """`{}` for a call without arguments behind which another begins."""
        if self._calls and not self._has_arguments:
            index = self._calls - 1
            yield Event(tool_call=generation.ToolCallDelta(index=index, arguments_json="{}"))

    def _note_call(self, event: Event) -> None:
        """Keeps the arguments of the last call that was passed on."""
        if event.HasField("tool_call"):
            call = event.tool_call
            if self._last_call is None or call.index != self._last_index:
                self._last_call, self._last_index = [], call.index
            self._last_call.append(call.arguments_json)

    def _cut(self) -> None:
        """Ends the answer: the server has made more tokens than it was asked for."""
        self.is_done = self.is_cut = True
        self._finish = generation.FINISH_REASON_MAX_TOKENS
        self._usage.completion_tokens = self._most_tokens or 0
        self._usage.reasoning_tokens = min(
            self._usage.reasoning_tokens, self._usage.completion_tokens
        )
        self._has_usage = True

    def _end(self, choice: Choice) -> None:
        if choice.finish_reason == "content_filter":
            raise FleetError(
                Reason.BAD_REQUEST, f"{self._words.who} has withheld the answer (content_filter)."
            )
        if choice.finish_reason == "error":
            raise self._words.told({})
        self._finish = _REASONS.get(
            choice.finish_reason or "", generation.FINISH_REASON_END_OF_TURN
        )
        if isinstance(choice.stop_reason, str) and choice.finish_reason == "stop":
            self._finish = generation.FINISH_REASON_STOP_STRING
            self._stop_string = choice.stop_reason

    def _count(self, told: ChunkUsage) -> None:
        self._has_usage = told.completion_tokens is not None
        usage = self._usage
        prompt = told.prompt_tokens_details or PromptDetails()
        made = told.completion_tokens_details or CompletionDetails()
        if told.prompt_tokens is not None:
            usage.prompt_tokens = bounded_count(told.prompt_tokens)
        usage.completion_tokens = bounded_count(told.completion_tokens)
        self._meter.note_told(usage.completion_tokens)
        usage.cached_prompt_tokens = min(bounded_count(prompt.cached_tokens), usage.prompt_tokens)
        usage.reasoning_tokens = min(bounded_count(made.reasoning_tokens), usage.completion_tokens)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
