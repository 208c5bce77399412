"""Collects the events of one choice: an answer that is not streamed is a stream, collected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.dialect import Collected, CollectedToolCall
from services.gateway.streaming.choice import ChoiceSink


class CollectSink(ChoiceSink):
    """Collects one choice. The client sees nothing before the end, so any attempt may restart."""

    __slots__ = (
        "_calls",
        "_early_logprobs",
        "_logprob_counts",
        "_logprobs",
        "_parts",
        "_pieces",
        "_token_ids",
    )

    def __init__(self, choice: int, *, window_tokens: int) -> None:
        super().__init__(choice, window_tokens=window_tokens)
        self._reset()

    def _reset(self) -> None:
        self._parts: list[tuple[str, Any]] = []
        self._pieces: list[str] = []
        self._calls: dict[int, CollectedToolCall] = {}
        self._logprobs: list[generation.TokenLogprob] = []
        self._logprob_counts: list[int] = []
        # Of tokens that had no text yet when they came; they are the next text's.
        self._early_logprobs = 0
        self._token_ids: list[int] = []

    @property
    @override
    def may_restart(self) -> bool:
        return True

    @override
    def begin(self, *, goes_on: bool = False) -> asyncio.Future[FleetError | None]:
        """Drops what an earlier attempt has brought, unless this one goes on behind it."""
        if not goes_on and (self._parts or self._logprobs or self._token_ids):
            self._reset()
        return super().begin(goes_on=goes_on)

    @override
    def text(self, text: str, tokens: int, token_ids: Sequence[int] = ()) -> None:
        self._stirred = self._heard = True
        self._told_tokens += tokens
        self.made.extend(token_ids)
        if not self.first_visible_at:
            self._note_delta(visible=True)
        self._used_tokens += tokens
        if self._parts and text and self._parts[-1][0] == "text":
            self._pieces.append(text)
        else:
            self._grow("text", text)

    @override
    def take(self, kind: str, event: generation.GenerateResponse) -> None:
        if kind == "text":
            self._grow("text", event.text.text)
            self._take_logprobs(event.text.logprobs)
            self._token_ids.extend(event.text.token_ids)
        elif kind == "reasoning":
            self._grow("reasoning", event.reasoning.text)
        elif kind == "tool_call":
            self._grow_call(event.tool_call)

    @override
    def flush(self) -> None:
        if self._used_tokens >= self._credit_step:
            self._repay()

    def collected(self) -> Collected:
        """The whole choice; only after `finished`."""
        assert self.finished_event is not None
        self._close_part()
        return Collected(
            self._parts,
            self._logprobs,
            self._token_ids,
            self.finished_event,
            self._logprob_counts,
        )

    def _grow(self, kind: str, text: str) -> None:
        if not text:
            return  # tokens without text of their own end no part
        if not self._parts or self._parts[-1][0] != kind:
            self._close_part()
            self._parts.append((kind, ""))
            if kind == "text":
                self._logprob_counts.append(self._early_logprobs)
                self._early_logprobs = 0
        self._pieces.append(text)

    def _take_logprobs(self, logprobs: Sequence[generation.TokenLogprob]) -> None:
        self._logprobs.extend(logprobs)
        if self._parts and self._parts[-1][0] == "text":
            self._logprob_counts[-1] += len(logprobs)
        else:
            self._early_logprobs += len(logprobs)

    def _grow_call(self, delta: generation.ToolCallDelta) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            self._close_part()
            call = self._calls[delta.index] = CollectedToolCall(delta.call_id, delta.name, "")
            self._parts.append(("tool_call", call))
        call.arguments_json += delta.arguments_json
        call.is_cut = call.is_cut or delta.incomplete

    def _close_part(self) -> None:
        """Joins the pieces of the part that was growing."""
        if self._pieces:
            self._parts[-1] = (self._parts[-1][0], "".join(self._pieces))
            self._pieces.clear()
