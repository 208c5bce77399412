"""`python -m bench.tracing`: what traces by OpenTelemetry take of a request.

Three fleets of real processes answer the same requests in turn: one without an endpoint, one that
records a tenth of all requests, and one that records all of them and tells a collector. The figure
is the CPU time of gateway and neuron for each request, the sending of its spans included. Before
it, what one span takes of the event loop, which is what others wait for.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.conditions import Conditions
from bench.processes import cpu_seconds
from services.backplane.tracing.otlp import OtlpExporter
from services.backplane.tracing.spans import SpanKind, Tracer
from tests.doubles.otlp_collector import Collector, collecting
from tests.system.fleet.clients import Clients
from tests.system.fleet.models import build_models
from tests.system.fleet.processes import Fleet, until

_MODEL: Final = "alpha"
_PARTS: Final = ("gateway", "neuron")
_RATIOS: Final[Mapping[str, float | None]] = {"off": None, "a tenth": 0.1, "all": 1.0}
# How often OpenTelemetry's processor sends what it has, where its queue is not long before.
_SEND_SECONDS: Final = 5.0
_SPANS: Final = 200
_SPAN_ROUNDS: Final = 15


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.tracing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=16, help="requests at one time")
    parser.add_argument("--times", type=int, default=20, help="so often in a round")
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    asked = parser.parse_args()
    conditions = Conditions(python=sys.executable)
    wanted = [[(_MODEL, asked.tokens)] * asked.streams] * asked.times
    found: dict[str, list[Sequence[float]]] = {kind: [] for kind in _RATIOS}
    with (
        tempfile.TemporaryDirectory(prefix="cortex-tracing-") as folder,
        collecting() as collector,
        ExitStack() as stack,
    ):
        _print_spans(collector)
        models = build_models(Path(folder), [_MODEL])
        fleets = {
            kind: stack.enter_context(_fleet(Path(folder) / kind, models, collector, ratio))
            for kind, ratio in _RATIOS.items()
        }
        for number in range(asked.rounds + 1):
            for kind, fleet in fleets.items():
                taken = asyncio.run(_measure(fleet, wanted, collector))
                if number:  # the first warms them up
                    found[kind].append(taken)
    _print(found)
    print(conditions.describe(rounds=asked.rounds, seconds=0))
    return 0


def _print_spans(collector: Collector) -> None:
    """CPU µs that one span with ten attributes takes of the thread that makes it."""
    print("| CPU µs of the event loop for a span | median | least |")
    print("|---|---|---|")
    for ratio, words in ((0.0, "that is not recorded"), (1.0, "that is recorded")):
        tracer = Tracer(OtlpExporter("bench", endpoint=collector.url), sample_ratio=ratio)
        taken: list[float] = []
        for _ in range(_SPAN_ROUNDS):
            began = time.thread_time()
            for _ in range(_SPANS):
                span = tracer.start("request openai_chat", kind=SpanKind.SERVER)
                span.attributes.update((f"cortex.{number}", number) for number in range(10))
                tracer.end(span)
            taken.append((time.thread_time() - began) / _SPANS * 1e6)
        tracer.close()
        print(f"| {words} | {statistics.median(taken):.1f} | {min(taken):.1f} |")
    print()


def _print(found: Mapping[str, list[Sequence[float]]]) -> None:
    """A row for each part: its CPU time, and what pairs of rounds differ by."""
    print("| CPU µs per request | off | a tenth | all | more for a tenth | more for all |")
    print("|---|---|---|---|---|---|")
    for index, part in enumerate((*_PARTS, "both")):
        off, tenth, everything = ([taken[index] for taken in each] for each in found.values())
        told = [f"{statistics.median(each):.0f}" for each in (off, tenth, everything)]
        told += [_more(off, tenth), _more(off, everything)]
        print(f"| {part} | {' | '.join(told)} |")
    spans = " | ".join(
        f"{statistics.median(taken[-1] for taken in each):.2f}" for each in found.values()
    )
    print(f"| spans that came, per request | {spans} | | |")


def _more(off: Sequence[float], on: Sequence[float]) -> str:
    """The median of what the two of a round differ by, and from where to where that goes."""
    more = sorted(b - a for a, b in zip(off, on, strict=True))
    return f"{statistics.median(more):+.0f} ({more[0]:+.0f} to {more[-1]:+.0f})"


async def _measure(
    fleet: Fleet, wanted: Sequence[Sequence[tuple[str, int]]], collector: Collector
) -> Sequence[float]:
    """CPU µs per request of gateway, of neuron, and of both; and the spans that came of it."""
    spans = len(collector.spans)
    before = [cpu_seconds(fleet[part].process.pid) for part in _PARTS]
    async with Clients(fleet.url) as clients:
        for together in wanted:
            answers = await clients.all(together)
            assert all(answer.is_whole for answer in answers), answers
    await asyncio.to_thread(_wait_until_sent, collector)
    after = [cpu_seconds(fleet[part].process.pid) for part in _PARTS]
    requests = sum(map(len, wanted))
    each = [(b - a) * 1e6 / requests for a, b in zip(before, after, strict=True)]
    return (*each, sum(each), (len(collector.spans) - spans) / requests)


def _wait_until_sent(collector: Collector) -> None:
    """As long for each fleet, since idle processes use time too; longer where spans still come."""
    time.sleep(1.5 * _SEND_SECONDS)
    count = -1
    while count != len(collector.spans):
        count = len(collector.spans)
        time.sleep(0.5)


@contextmanager
def _fleet(own: Path, models: str, collector: Collector, ratio: float | None) -> Generator[Fleet]:
    own.mkdir()
    traced = f'\n[telemetry]\notlp_endpoint = "{collector.url}"\nsample_ratio = {ratio}\n'
    settings = "" if ratio is None else traced
    fleet = Fleet(own, models)
    try:
        fleet.add_registry(settings=settings)
        until(fleet.state)
        fleet.add_neuron("neuron", settings=settings)
        fleet.add_gateway(settings=settings)
        fleet.wait("neuron")
        yield fleet
    finally:
        fleet.end()


if __name__ == "__main__":
    sys.exit(main())
