"""What one generation leaves behind: one log line and the figures of the metrics."""

from __future__ import annotations

import time

import structlog

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.neuron.engine_api.events import Ended
from services.neuron.metrics import NeuronMetrics

log = structlog.get_logger()


class Account:
    """Measures one generation; writes its log line and metrics once, at its end.

    Args:
        request_id: the gateway's.
        model: the model's own name.
        instance_id: where it runs.
        metrics: where the figures go.
        moved_tokens: tokens of the answer that another neuron has made, and counted.
    """

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        instance_id: str,
        metrics: NeuronMetrics,
        moved_tokens: int,
    ) -> None:
        self._moved_tokens = moved_tokens
        self._request_id = request_id
        self._model = model
        self._instance_id = instance_id
        self._metrics = metrics
        self._begun_at = time.monotonic()
        self.has_output = False

    def note_output(self) -> None:
        """Output has come; the first call fixes the time to the first token."""
        if not self.has_output:
            self.has_output = True
            waited = time.monotonic() - self._begun_at
            self._metrics.first_token.labels(self._model).observe(waited)

    def note_resumed(self) -> None:
        """The generation goes on after its worker died."""
        self._metrics.resumed.labels(self._model).inc()

    def note_times(self, event: Ended, completion_tokens: int) -> None:
        """Counts the times and tokens that the worker reports of a generation that ended well."""
        metrics = self._metrics
        metrics.queued.labels(self._model).observe(event.queued_seconds)
        metrics.prefill.labels(self._model).observe(event.prefill_seconds)
        own_tokens = completion_tokens - self._moved_tokens
        if event.decode_seconds > 0 and own_tokens > 1:
            metrics.rate.labels(self._model).observe(own_tokens / event.decode_seconds)

    def close(
        self, outcome: str, usage: generation.Usage, *, error: FleetError | None, resumed: bool
    ) -> None:
        """The end: `finished`, `failed` or `cancelled`."""
        metrics = self._metrics
        metrics.generations.labels(self._model, outcome).inc()
        metrics.prompt_tokens.labels(self._model).inc(usage.prompt_tokens)
        metrics.cached_tokens.labels(self._model).inc(usage.cached_prompt_tokens)
        metrics.completion_tokens.labels(self._model).inc(
            usage.completion_tokens - self._moved_tokens
        )
        log.info(
            "generation.ended",
            request_id=self._request_id,
            model=self._model,
            instance_id=self._instance_id,
            outcome=outcome,
            reason=error.reason.value if error else None,
            prompt_tokens=usage.prompt_tokens,
            cached_prompt_tokens=usage.cached_prompt_tokens,
            completion_tokens=usage.completion_tokens,
            resumed=resumed,
            moved_tokens=self._moved_tokens,
            elapsed_ms=round((time.monotonic() - self._begun_at) * 1000, 1),
        )
