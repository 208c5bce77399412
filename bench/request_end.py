"""CPU time of the end of a request: its log line, its metrics, usage, and what the console keeps.

Run as `python -m bench.request_end`. Requests end as they do in the gateway, many at a time, with
and without a console; the least of many rounds counts, since on a machine that others use too it
has met nobody.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.process.faults import Faults
from services.gateway.api.access_log import AccessLog, RequestListener
from services.gateway.api.request import RequestRecord
from services.gateway.console.history import RequestHistory
from services.gateway.limits.device_costs import DeviceCosts
from services.gateway.limits.usage import UsageCounts
from services.gateway.routing.candidates import Availability, InstanceCandidate
from services.gateway.streaming.collect import CollectSink
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.outcome import RequestOutcome
from services.gateway.telemetry.request_log import BufferedLog, RequestLine

_ROUNDS: Final = 200
_TIMES: Final = 5
# As many as wait to be settled, a few times over.
_REQUESTS: Final = 512


class _Nobody(RequestListener):
    """Hears of every request and keeps nothing."""

    @override
    def ended(self, record: RequestRecord, line: RequestLine, model: str) -> None:
        pass

    @override
    def counted(self, outcome: RequestOutcome) -> None:
        pass


def _record(number: int) -> RequestRecord:
    """A request that was answered well."""
    record = RequestRecord("openai_chat", f"req_{number}")
    record.name, record.status, record.principal = "tiny", 200, "ada"
    record.served_by.last = InstanceCandidate(
        instance_id="one",
        model="tiny",
        neuron="cellar",
        address="127.0.0.1:1",
        availability=Availability.SERVING,
    )
    record.served_by.attempts = 1
    sink = CollectSink(0, window_tokens=64)
    sink.started_event = generation.GenerationStarted(prompt_tokens=200, cached_prompt_tokens=128)
    sink.first_token_at = sink.first_visible_at = record.started_at + 0.02
    sink.queue_seconds = 0.001
    usage = generation.Usage(prompt_tokens=200, cached_prompt_tokens=128, completion_tokens=16)
    sink.finished_event = generation.GenerationFinished(
        reason=generation.FINISH_REASON_END_OF_TURN, usage=usage
    )
    record.sinks = (sink,)
    return record


def _seconds(*, with_console: bool) -> float:
    """Of one request, least of all rounds."""
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    history = RequestHistory(list, UsageCounts("bench"))
    with Path(os.devnull).open("wb") as stream:
        log = BufferedLog(stream)
        access_log = AccessLog(
            metrics,
            log,
            lambda name: name,
            usage=UsageCounts("bench"),
            device_costs=DeviceCosts(),
            faults=Faults(registry, "bench"),
            listener=history if with_console else _Nobody(),
        )
        found: list[float] = []
        records = [_record(number) for number in range(_REQUESTS)]
        for _ in range(_ROUNDS):
            began = time.process_time()
            for record in records:
                access_log.write(record)
            access_log.settle()
            metrics.settle()
            log.drain()
            history.rates.tick()
            found.append(time.process_time() - began)
    return min(found) / _REQUESTS


def main() -> None:
    """Prints microseconds of CPU, and the load."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(_TIMES):
        for with_console, each in found.items():
            each.append(_seconds(with_console=with_console) * 1e6)
    print("| of a request | µs of CPU, least | median of rounds |")
    print("|---|---|---|")
    for with_console, each in found.items():
        name = "all" if with_console else "without the console"
        print(f"| {name} | {min(each):.2f} | {statistics.median(each):.2f} |")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
