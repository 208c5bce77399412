"""The chunks of an OpenAI stream as canonical events."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.transports.upstream.chunks import (
    READER,
    CallPiece,
    Choice,
    Chunk,
    ChunkUsage,
    CompletionDetails,
    ListedContent,
    Logprobs,
    PromptDetails,
)
from services.gateway.transports.upstream.errors import Words
from services.gateway.transports.upstream.logprobs import log_probabilities
from services.gateway.transports.upstream.sse import BrokenStreamError

_DONE: Final = b"[DONE]"
_MOST_CALLS: Final = 1024
# Of a prompt or an answer: no model's context holds as much, and limits go by what is told.
_MOST_TOKENS: Final = 16 << 20
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

    Attributes:
        is_done: `[DONE]` has come.
    """

    def __init__(self, words: Words, *, prompt_tokens: int) -> None:
        self._words = words
        self._usage = generation.Usage(prompt_tokens=prompt_tokens)
        self._has_usage = False
        self._has_started = False
        self._pieces = 0
        self._calls: list[list[str]] = []  # the pieces of the arguments of each
        self._places: list[int] = []  # by which number the server calls each
        self._call_id = ""  # as the server calls the last one
        self._early_id = ""  # of one that has no name yet
        self._finish: generation.FinishReason.ValueType | None = None
        self._stop_string = ""
        self.is_done = False

    def events(self, data: bytes) -> Iterator[Event]:
        """The events of one chunk; none where it has no news.

        Raises:
            FleetError: the server tells of an error, or the answer was filtered.
            BrokenStreamError: it is no chunk.
        """
        if data.strip() == _DONE:
            self.is_done = True
            return
        try:
            chunk = READER.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BrokenStreamError(f"one event is no chunk of an answer ({error})") from error
        if chunk.error is not None or chunk.object == "error":
            raise self._words.told(_error_of(chunk))
        if chunk.usage is not None:
            self._count(chunk.usage)
        # one choice is asked for; some servers number it by other things
        for choice in (chunk.choices or ())[:1]:
            yield from self._choice(choice)

    def finished(self) -> generation.GenerationFinished:
        """The end, behind the last chunk; `last_events` come before it.

        Raises:
            BrokenStreamError: the answer has broken off.
        """
        if self._finish is None:
            raise BrokenStreamError("the answer broke off")
        if not self._has_usage or not self._usage.completion_tokens:
            # some count once, before the answer
            self._usage.completion_tokens = self._pieces
        if self._calls and self._finish == generation.FINISH_REASON_END_OF_TURN:
            self._finish = generation.FINISH_REASON_TOOL_CALLS  # some say `stop` here too
        return generation.GenerationFinished(
            reason=self._finish, stop_string=self._stop_string, usage=self._usage
        )

    def last_events(self) -> Iterator[Event]:
        """What the last call still needs: `{}` for no arguments, a mark where it was cut."""
        if self._finish is None or not self._calls:
            return
        arguments = "".join(self._calls[-1])
        delta = generation.ToolCallDelta(index=len(self._calls) - 1)
        if not arguments:
            delta.arguments_json = "{}"
        elif not _is_json(arguments):
            delta.incomplete = True
        else:
            return
        yield Event(tool_call=delta)

    def _choice(self, choice: Choice) -> Iterator[Event]:
        found = list(self._deltas(choice))
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
        delta = choice.delta
        if delta is None:
            yield from self._text(choice.text or "", choice.logprobs)
        else:
            reasoning = delta.reasoning_content or delta.reasoning or _thoughts(delta.content)
            if isinstance(reasoning, str) and reasoning:
                self._pieces += 1
                yield Event(reasoning=generation.ReasoningDelta(text=reasoning, token_ids=_COUNTS))
            yield from self._text(_words(delta.content) or delta.refusal or "", choice.logprobs)
            for piece in delta.tool_calls or ():
                yield from self._call(piece)

    def _text(self, text: str, logprobs: Logprobs | None) -> Iterator[Event]:
        told = log_probabilities(logprobs)
        if text or told:
            self._pieces += len(told) or 1
            delta = generation.TextDelta(text=text, token_ids=_COUNTS * len(told), logprobs=told)
            yield Event(text=delta)

    def _call(self, piece: CallPiece) -> Iterator[Event]:
        function = piece.function
        name = (function and function.name) or ""
        arguments = _arguments(function.arguments if function else None)
        delta = generation.ToolCallDelta(arguments_json=arguments, token_ids=_COUNTS)
        if self._begins_call(piece, name):
            if not name and not arguments:  # some servers tell its name in the next piece
                self._early_id = piece.id or ""
                return
            yield from self._emptied()
            self._add_call(piece, name)
            delta.name, delta.call_id = name, self._call_id or f"call_{uuid.uuid4().hex[:24]}"
        self._pieces += 1
        self._calls[-1].append(arguments)
        delta.index = len(self._calls) - 1
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
        index = len(self._calls) if piece.index is None else piece.index
        if not name or index < 0:
            raise BrokenStreamError("a tool call has no name")
        if len(self._calls) >= _MOST_CALLS:
            raise BrokenStreamError(f"it makes more than {_MOST_CALLS} tool calls")
        self._call_id, self._early_id = piece.id or self._early_id, ""
        self._calls.append([])
        self._places.append(index)

    def _emptied(self) -> Iterator[Event]:
        """`{}` for a call without arguments behind which another begins."""
        if self._calls and not any(self._calls[-1]):
            index = len(self._calls) - 1
            yield Event(tool_call=generation.ToolCallDelta(index=index, arguments_json="{}"))

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
            usage.prompt_tokens = _bounded(told.prompt_tokens)
        usage.completion_tokens = _bounded(told.completion_tokens)
        usage.cached_prompt_tokens = min(_bounded(prompt.cached_tokens), usage.prompt_tokens)
        usage.reasoning_tokens = min(_bounded(made.reasoning_tokens), usage.completion_tokens)


def _bounded(count: int | None) -> int:
    return min(max(count or 0, 0), _MOST_TOKENS)


def _arguments(told: str | dict[str, Any] | None) -> str:
    return msgspec.json.encode(told).decode() if isinstance(told, dict) else told or ""


def _words(content: str | Sequence[ListedContent] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


def _thoughts(content: str | Sequence[ListedContent] | None) -> str:
    if content is None or isinstance(content, str):
        return ""
    return "".join(_words(part.thinking) for part in content)


def _error_of(chunk: Chunk) -> Any:
    return chunk.error if chunk.error is not None else {"message": chunk.message}


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
