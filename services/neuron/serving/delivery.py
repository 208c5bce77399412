"""Turns one generation's output into its caller's events: parses text, keeps count of tokens.

Every token is told once, with the piece that it ended in. Where a parser holds text back, its
tokens wait for the next piece, unless the caller's credit would run out over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from cortex.v1 import generation_pb2 as generation
from services.neuron.chat.stream import ChatParser, Piece, ReasoningPiece, TextPiece, ToolCallPiece
from services.neuron.engine_api.events import Delta, TokenLogprob
from services.neuron.serving.event_sink import EventSink


class Delivery:
    """The text side of one generation."""

    def __init__(
        self,
        *,
        parser: ChatParser,
        sink: EventSink,
        made: Sequence[int],
        credit: int | None,
        most_calls: int | None = None,
    ) -> None:
        """Begins with nothing sent.

        Args:
            parser: reads the output.
            sink: takes the events.
            made: tokens of the same answer that were sent before, elsewhere.
            credit: tokens that may be sent; None is no limit.
            most_calls: tool calls that may be made; None is no limit.
        """
        self._most_calls = most_calls
        self._parser = parser
        self._sink = sink
        self._carried_ids: list[int] = []
        self._carried_logprobs: list[TokenLogprob] = []
        self.made = list(made)
        self.credit = credit
        self.reasoning_tokens = 0
        self.has_called = False
        """The newest call is whole, as far as is known: it is the client's turn."""
        self.is_done = False
        """One call too many has begun: it is not sent, and nothing behind it."""

    @property
    def is_reasoning(self) -> bool:
        """Whether the next text belongs to the reasoning, as far as is known."""
        return self._parser.is_reasoning

    def take(self, delta: Delta) -> None:
        """Parses a delta, and sends what later output cannot change: text, reasoning, calls."""
        count = len(delta.token_ids)
        self.made += delta.token_ids
        if self._parser.is_reasoning:
            self.reasoning_tokens += count
        if self.credit is not None:
            self.credit -= count
        self._emit(self._parser.feed(delta.text), delta.token_ids, delta.logprobs)

    def insert(self, text: str, token_ids: Sequence[int]) -> None:
        """Sends what the neuron itself put into the output; it costs no credit."""
        self.made += token_ids
        self._emit(self._parser.feed(text), token_ids, ())

    def replay(self, texts: Sequence[str]) -> None:
        """Reads what was sent before, elsewhere, and sends none of it.

        Args:
            texts: what came with each token of `made`. They are read one by one, as they came, so
                that what is held back now is what was held back there.
        """
        for text in texts:
            self.reasoning_tokens += self._parser.is_reasoning
            for piece in self._allowed(self._parser.feed(text)):
                if isinstance(piece, ToolCallPiece):
                    self.has_called = not piece.incomplete

    def finish(self, *, is_cut: bool) -> None:
        """Sends what was held back; `is_cut` as in `ChatParser.finish`."""
        self._emit(self._parser.finish(is_cut=is_cut), (), ())
        self._flush()

    def _emit(
        self, pieces: Sequence[Piece], token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> None:
        # The prompt's own log probabilities come without tokens.
        if self._carried_ids or self._carried_logprobs:
            token_ids = [*self._carried_ids, *token_ids]
            logprobs = [*self._carried_logprobs, *logprobs]
            self._carried_ids, self._carried_logprobs = [], []
        if not pieces:
            self._carried_ids, self._carried_logprobs = list(token_ids), list(logprobs)
            # A caller that counts tokens to give credit has to hear of the last ones too.
            if self.credit is not None and self.credit <= 0:
                self._flush()
            return
        pieces = self._allowed(pieces)
        for piece in pieces[:-1]:
            self._send(piece, (), ())
        if pieces:
            self._send(pieces[-1], token_ids, logprobs)

    def _allowed(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        if self._most_calls is None:
            return pieces
        for number, piece in enumerate(pieces):
            if isinstance(piece, ToolCallPiece) and piece.index >= self._most_calls:
                self.is_done = True
                return pieces[:number]
        return pieces

    def _flush(self) -> None:
        ids, self._carried_ids = self._carried_ids, []
        logprobs, self._carried_logprobs = self._carried_logprobs, []
        if ids or logprobs:
            piece = ReasoningPiece("") if self._parser.is_reasoning else TextPiece("")
            self._send(piece, ids, logprobs)

    def _send(
        self, piece: Piece, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> None:
        match piece:
            case TextPiece():
                self._sink.text(piece.text, token_ids, logprobs)
            case ReasoningPiece():
                reasoning = generation.ReasoningDelta(text=piece.text, token_ids=token_ids)
                event = generation.GenerateResponse(reasoning=reasoning)
                self._sink.event(event, len(token_ids))
            case ToolCallPiece():
                self.has_called = not piece.incomplete
                call = generation.ToolCallDelta(
                    index=piece.index,
                    call_id=piece.call_id,
                    name=piece.name,
                    arguments_json=piece.arguments_json,
                    repair=piece.repair,
                    incomplete=piece.incomplete,
                    token_ids=token_ids,
                )
                event = generation.GenerateResponse(tool_call=call)
                self._sink.event(event, len(token_ids))
            case _:
                assert_never(piece)
