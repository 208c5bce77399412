"""What one generation is counted as: one log line and the figures of the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.neuron.engine_api.device_time import Charge
from services.neuron.engine_api.events import Ended
from services.neuron.metrics import NeuronMetrics
from services.neuron.serving import convert
from services.neuron.serving.generation_trace import GenerationTrace

_NANOSECOND: Final = 1e-9

log = structlog.get_logger()


class GenerationFigures:
    """Measures one generation; writes its log line and metrics once, at its end.

    Args:
        request_id: the gateway's.
        model: the model's own name.
        instance_id: where it runs.
        metrics: where the figures go.
        devices: that work together for it.
        watts: their power together, where it is known.
        moved_tokens: tokens of the answer that another neuron has made, and counted.
        trace: takes its times.
    """

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        instance_id: str,
        metrics: NeuronMetrics,
        devices: int,
        watts: Callable[[], float | None],
        moved_tokens: int,
        trace: GenerationTrace,
    ) -> None:
        self._trace = trace
        trace.submitted()
        self._devices = devices
        self._watts = watts
        self._prefill_ns = self._decode_ns = 0
        self._joules: float | None = 0.0
        self._moved_tokens = moved_tokens
        self._request_id = request_id
        self._model = model
        self._instance_id = instance_id
        self._metrics = metrics
        self._begun_at = time.monotonic()
        self.has_output = False

    def note_admitted(self) -> None:
        """Records that it has left the worker's queue."""
        self._trace.admitted()

    def note_output(self) -> None:
        """Output has come; the first call fixes the time to the first token."""
        if not self.has_output:
            self.has_output = True
            self._trace.answered()
            waited = time.monotonic() - self._begun_at
            self._metrics.first_token.labels(self._model).observe(waited)

    def note_resumed(self) -> None:
        """The generation goes on after its worker died."""
        self._metrics.resumed.labels(self._model).inc()

    def note_times(self, event: Ended, completion_tokens: int) -> None:
        """Counts the times and tokens that the worker reports of a generation that ended well."""
        self._trace.measured(event)
        metrics = self._metrics
        metrics.queued.labels(self._model).observe(event.queued_seconds)
        metrics.prefill.labels(self._model).observe(event.prefill_seconds)
        own_tokens = completion_tokens - self._moved_tokens
        if event.decode_seconds > 0 and own_tokens > 1:
            metrics.rate.labels(self._model).observe(own_tokens / event.decode_seconds)

    def note_time(self, charge: Charge) -> None:
        """Adds device time that the worker has reported for it."""
        self._prefill_ns += charge.prefill_ns * self._devices
        self._decode_ns += charge.decode_ns * self._devices
        watts = self._watts()
        if watts is None or self._joules is None:
            self._joules = None
        else:
            self._joules += watts * (charge.prefill_ns + charge.decode_ns) * _NANOSECOND

    def timings(self, event: Ended | None) -> generation.Timings:
        """Its times as the client gets them; after a cut those of the worker are missing."""
        made = generation.Timings() if event is None else convert.timings(event)
        made.device_prefill.FromNanoseconds(self._prefill_ns)
        made.device_decode.FromNanoseconds(self._decode_ns)
        if self._joules:  # without any time of devices nothing is known of it
            made.joules = self._joules
        return made

    def close(
        self, outcome: str, usage: generation.Usage, *, error: FleetError | None, resumed: bool
    ) -> None:
        """The end: `finished`, `failed` or `cancelled`."""
        self._trace.end(outcome, usage, instance_id=self._instance_id, error=error)
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
            device_ms=round((self._prefill_ns + self._decode_ns) / 1e6, 1),
            elapsed_ms=round((time.monotonic() - self._begun_at) * 1000, 1),
        )
