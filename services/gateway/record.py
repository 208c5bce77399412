"""One request as its log line and its metrics tell it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import structlog

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dispatch import ServedBy
from services.gateway.gauges import UNKNOWN_MODEL, Gauges, Outcome
from services.gateway.sink import ChoiceSink

CLIENT_GONE_STATUS = 499

log = structlog.get_logger()


class Record:
    """Filled in on the way; written once, at the end."""

    __slots__ = (
        "client_gone",
        "dialect",
        "error",
        "name",
        "principal",
        "request_id",
        "served_by",
        "sinks",
        "started_at",
        "status",
        "stream",
    )

    def __init__(self, dialect: str, request_id: str) -> None:
        self.dialect = dialect
        self.request_id = request_id
        self.started_at = time.monotonic()
        self.name = ""
        self.stream = False
        self.status = 0
        self.error: FleetError | None = None
        self.client_gone = False
        self.principal = ""
        self.served_by = ServedBy()
        self.sinks: Sequence[ChoiceSink] = ()

    def write(self, gauges: Gauges) -> None:
        """Logs and counts the request."""
        elapsed = time.monotonic() - self.started_at
        status = CLIENT_GONE_STATUS if self.client_gone else self.status
        gauges.ended(self._outcome(status, elapsed))
        served = self.served_by.last
        facts: dict[str, Any] = {
            "request_id": self.request_id,
            "dialect": self.dialect,
            "model": self.name,
            "stream": self.stream,
            "status": status,
            "elapsed_ms": round(elapsed * 1000, 1),
            "client_gone": self.client_gone,
        }
        if self.principal:
            facts["principal"] = self.principal
        if served is not None:
            facts["instance_id"] = served.instance_id
            facts["neuron"] = served.neuron
            facts["attempts"] = self.served_by.attempts
        facts.update(self._tokens())
        if self.error is not None:
            facts["reason"] = self.error.reason.value
            facts["detail"] = self.error.message
            log.warning("request.failed", **facts)
        else:
            log.info("request.finished", **facts)

    def _outcome(self, status: int, elapsed: float) -> Outcome:
        served = self.served_by.last
        ends = [s.finished_event for s in self.sinks if s.finished_event is not None]
        first = self.sinks[0] if self.sinks else None
        began = first.first_token_at if first is not None else 0.0
        return Outcome(
            model=UNKNOWN_MODEL if served is None else served.model,
            dialect=self.dialect,
            status=status,
            reason=self._reason(),
            seconds=elapsed,
            first_token_seconds=began - self.started_at if began else 0.0,
            first_visible_seconds=(
                first.first_visible_at - self.started_at
                if first is not None and first.first_visible_at
                else 0.0
            ),
            queue_seconds=first.queue_seconds if first is not None else 0.0,
            decode_seconds=self.started_at + elapsed - began if began else 0.0,
            usages=tuple(end.usage for end in ends),
        )

    def _reason(self) -> Reason | None:
        if self.client_gone:
            return Reason.CANCELLED
        return None if self.error is None else self.error.reason

    def _tokens(self) -> dict[str, Any]:
        """Counts over all choices, and the times of the first."""
        if not self.sinks:
            return {}
        first = self.sinks[0]
        facts: dict[str, Any] = {}
        if first.first_token_at:
            facts["first_token_ms"] = round((first.first_token_at - self.started_at) * 1000, 1)
            facts["queue_ms"] = round(first.queue_seconds * 1000, 1)
        ends = [s.finished_event for s in self.sinks if s.finished_event is not None]
        if ends:
            facts["finish_reason"] = generation.FinishReason.Name(ends[0].reason).removeprefix(
                "FINISH_REASON_"
            )
            for name in (
                "prompt_tokens", "cached_prompt_tokens", "completion_tokens", "reasoning_tokens",
            ):  # fmt: skip
                facts[name] = sum(getattr(end.usage, name) for end in ends)
        return facts
