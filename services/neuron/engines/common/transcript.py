"""One output being written: tokens go in, deltas and the end come out."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection

from services.neuron.engine_api.events import Delta, EndReason, TokenLogprob
from services.neuron.engine_api.task import Task
from services.neuron.engines.common.stop_strings import StopStrings


class Transcript:
    """Applies a task's stop rules and credit to the tokens that its engine samples.

    `max_tokens`, `min_tokens` and the token count include `resume_token_ids`: a resumed task is the
    same task with its output so far, and ends where the first one would have ended. Text of resumed
    tokens is not sent again, except what a stop string had held back.
    """

    def __init__(
        self,
        task: Task,
        *,
        room_tokens: int,
        end_token_ids: Collection[int],
        piece: Callable[[int], bytes],
    ) -> None:
        """Starts an output.

        Args:
            task: what was asked for.
            room_tokens: what the context leaves for the whole output.
            end_token_ids: the model's own tokens that end a turn.
            piece: a token's own bytes.
        """
        stop = task.stop
        wanted = room_tokens if stop.max_tokens is None else stop.max_tokens
        self.limit = min(wanted, room_tokens)
        self.token_count = 0
        self.reason: EndReason | None = None
        self.stop_string = ""
        self._task_id = task.task_id
        self._min_tokens = stop.min_tokens
        self._model_ends = frozenset(end_token_ids)
        self._ends = frozenset(stop.token_ids) | (
            frozenset() if stop.ignore_eos else self._model_ends
        )
        self._piece = piece
        self._detokeniser = Detokeniser()
        self._stops = StopStrings(stop.strings, include=stop.include_stop_string)
        self._credit = task.credit_tokens
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self.resumed_texts = self._read_resumed(task)
        """What came with each resumed token, where the task wants it told."""
        self._end_if_full()

    @property
    def has_credit(self) -> bool:
        """True if one more token may be sent."""
        return self._credit is None or self._credit > 0

    def add_credit(self, tokens: int) -> None:
        """Lets this many more tokens be sent."""
        if self._credit is not None:
            self._credit += tokens

    @property
    def banned_end_ids(self) -> frozenset[int]:
        """Tokens that must not be sampled now, because the output is still too short to end."""
        return self._ends if self.token_count < self._min_tokens else frozenset()

    def push(self, token_id: int, logprob: TokenLogprob | None = None) -> None:
        """Takes the next token; sets `reason` where it ends the output.

        A token that ends the turn is neither sent nor counted.
        """
        if token_id in self._ends and self.token_count >= self._min_tokens:
            self.end(EndReason.END_OF_TURN)
            return
        self.token_count += 1
        if self._credit is not None:
            self._credit -= 1
        self._token_ids.append(token_id)
        if logprob is not None:
            self._logprobs.append(logprob)
        self._read(self._bytes_of(token_id))
        self._end_if_full()

    def end(self, reason: EndReason) -> None:
        """Ends the output now and releases the text that was held back."""
        if self.reason is not None:
            return
        self._show(self._detokeniser.finish())
        if self.reason is None:
            self._text.append(self._stops.finish())
            self.reason = reason

    def take(self) -> Delta | None:
        """What came since the last call, or None where nothing came."""
        text = "".join(self._text)
        if not text and not self._token_ids:
            return None
        delta = Delta(self._task_id, text, tuple(self._token_ids), tuple(self._logprobs))
        self._text.clear()
        self._token_ids.clear()
        self._logprobs.clear()
        return delta

    def _read_resumed(self, task: Task) -> tuple[str, ...]:
        texts: list[str] = []
        for token_id in task.resume_token_ids:
            self.token_count += 1  # one by one: stop strings count only behind `min_tokens`
            self._read(self._bytes_of(token_id))
            texts.append("".join(self._text))
            self._text.clear()
        return tuple(texts) if task.tells_resumed else ()

    def _bytes_of(self, token_id: int) -> bytes:
        # Reached only where ignore_eos or min_tokens goes past it: an end token is never text.
        return b"" if token_id in self._model_ends else self._piece(token_id)

    def _read(self, piece: bytes) -> None:
        self._show(self._detokeniser.feed(piece))

    def _show(self, text: str) -> None:
        if not text or self.reason is not None:
            return
        if self.token_count < self._min_tokens:
            self._text.append(self._stops.finish() + text)
            return
        shown, stop_string = self._stops.feed(text)
        self._text.append(shown)
        if stop_string is not None:
            self.reason = EndReason.STOP_STRING
            self.stop_string = stop_string

    def _end_if_full(self) -> None:
        if self.token_count >= self.limit:
            self.end(EndReason.MAX_TOKENS)


class Detokeniser:
    """Decodes UTF-8 piece by piece.

    Holds back the bytes of an incomplete character until it is complete or can no longer become one
    (then it is U+FFFD). Any division of the same bytes into pieces gives the same text.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """The characters that this piece completes; may be empty."""
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """What is held back, as it is: an incomplete character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)
