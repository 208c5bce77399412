"""The sink of one choice of a streamed answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError
from services.gateway.dialects.dialect import Projector
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.streaming.stream import ResponseStream


class StreamSink(ChoiceSink):
    """Projects the events of one choice and writes them to its stream."""

    __slots__ = ("_loop_time", "_project", "_projector", "_stream", "_texts", "_unsent_tokens")

    def __init__(
        self, choice: int, stream: ResponseStream, projector: Projector, *, window_tokens: int
    ) -> None:
        super().__init__(choice, window_tokens=window_tokens)
        self._stream = stream
        self._projector = projector
        self._project = projector.text
        self._texts: list[str] = []
        self._unsent_tokens = 0
        self._loop_time = asyncio.get_running_loop().time
        stream.sinks.append(self)

    @property
    @override
    def may_restart(self) -> bool:
        return not self.first_token_at

    @property
    @override
    def is_committed(self) -> bool:
        return self._stream.is_committed

    @override
    def begin(self, *, goes_on: bool = False) -> asyncio.Future[FleetError | None]:
        if goes_on:
            self._stream.arrived()  # its second `started` is not passed on
        return super().begin(goes_on=goes_on)

    @override
    def waiting(self, step: registry.EnsureModelResponse) -> None:
        self._stream.waiting(step)

    @override
    def text(self, text: str, tokens: int, token_ids: Sequence[int] = ()) -> None:
        self._stirred = self._heard = True
        self._told_tokens += tokens
        self.made.extend(token_ids)
        if not self.first_visible_at:
            self._note_delta(visible=True)
        self._texts.append(text)
        self._unsent_tokens += tokens

    @override
    def take(self, kind: str, event: generation.GenerateResponse) -> None:
        self._stream.begin()
        self._stream.hold(self._projected_text() + self._projector.event(self.choice, event))
        if kind == "started":
            self._stream.arrived()

    @override
    def flush(self) -> None:
        stream = self._stream
        if not self.first_token_at:
            return  # nothing that commits the answer has come yet
        if stream.is_behind:
            stream.fall_behind(self._loop_time())
            return
        if self._texts:
            stream.write(self._projected_text())
        else:
            stream.release()
        if self._used_tokens >= self._credit_step:
            self._repay()

    @override
    def finished(self, finished: generation.GenerationFinished) -> None:
        self._stream.begin()
        tail = self._projected_text() + self._projector.finish(self.choice, finished)
        self._stream.end_choice(tail)
        super().finished(finished)

    def _projected_text(self) -> bytes:
        texts = self._texts
        if not texts:
            return b""
        text = texts[0] if len(texts) == 1 else "".join(texts)
        texts.clear()
        tokens, self._unsent_tokens = self._unsent_tokens, 0
        self._used_tokens += tokens
        return self._project(self.choice, text, tokens)
