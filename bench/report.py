"""`python -m bench.report SAMPLES.jsonl`: medians, ratios and the goals, as Markdown.

CPU time per request or token is the figure that repeats on a shared machine; wall times are
given beside it, their tail as the best round's, since the rest of it is other people's load.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.load import Sample
from bench.workloads import WORKLOADS, Workload

US = "cortex"


class Record(msgspec.Struct, frozen=True):
    """One sample of one round."""

    round: int
    target: str
    workload: str
    resident_bytes: int
    sample: Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One line of the table of goals.

    Attributes:
        measure: from the records to the figure, or None where a part of it is missing.
        at_least: whether more is better.
        commit: what the project promises.
        moonshot: what it hopes for.
        digits: behind the point.
    """

    name: str
    what: str
    measure: Callable[["Records"], float | None]
    commit: float
    moonshot: float
    at_least: bool = True
    digits: int = 2

    def verdict(self, value: float | None) -> str:
        """Words for the table."""
        if value is None:
            return "not measured"
        if self._reaches(value, self.moonshot):
            return "beyond the moonshot"
        return "met" if self._reaches(value, self.commit) else "MISSED"

    def _reaches(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound


class Records:
    """All samples of a run, with the questions that the tables ask."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._by_cell: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            self._by_cell.setdefault((record.target, record.workload), []).append(record)

    @property
    def targets(self) -> list[str]:
        """In the order in which they appear."""
        return list(dict.fromkeys(target for target, _ in self._by_cell))

    @property
    def workloads(self) -> list[str]:
        """In the order of bench.workloads."""
        seen = {workload for _, workload in self._by_cell}
        return [name for name in WORKLOADS if name in seen]

    def median(
        self, target: str, workload: str, of: Callable[[Sample, Workload], float]
    ) -> float | None:
        """The median over rounds; clean ones alone where there are any."""
        samples = [record.sample for record in self._by_cell.get((target, workload), [])]
        kind = WORKLOADS[workload]
        clean = [sample for sample in samples if not sample.is_dirty(kind)]
        values = [of(sample, kind) for sample in clean or samples]
        return statistics.median(values) if values else None

    def best(
        self, target: str, workload: str, of: Callable[[Sample, Workload], float]
    ) -> float | None:
        """The least over rounds."""
        found = [r.sample for r in self._by_cell.get((target, workload), [])]
        return min((of(sample, WORKLOADS[workload]) for sample in found), default=None)

    def resident_bytes(self, target: str) -> int:
        """The most that it held."""
        held = [
            r.resident_bytes
            for (name, _), rs in self._by_cell.items()
            for r in rs
            if name == target
        ]
        return max(held, default=0)

    def errors(self, target: str, workload: str) -> int:
        """Answers that were no answers."""
        return sum(r.sample.errors for r in self._by_cell.get((target, workload), []))

    def per_core_over(self, peer: str, workload: str) -> float | None:
        """How many times as much one core of ours carries."""
        ours, theirs = self.median(US, workload, cpu), self.median(peer, workload, cpu)
        return theirs / ours if ours and theirs else None


def cpu(sample: Sample, workload: Workload) -> float:
    """CPU microseconds per request or token."""
    return sample.cpu_per_unit(workload)


def rate(sample: Sample, workload: Workload) -> float:
    """Requests or tokens a second."""
    return sample.units(workload) / sample.seconds


def _latency(quantile: str) -> Callable[[Sample, Workload], float]:
    def read(sample: Sample, workload: Workload) -> float:
        if workload.whole:
            quantiles = sample.whole_us
        elif workload.stamped:
            quantiles = sample.delivery_us
        else:
            quantiles = sample.first_us
        return float(getattr(quantiles, quantile))

    return read


p50, p99 = _latency("p50"), _latency("p99")


def _over(peer: str, workload: str) -> Callable[[Records], float | None]:
    return lambda records: records.per_core_over(peer, workload)


def _added(
    workload: str, of: Callable[[Sample, Workload], float], *, best: bool = False
) -> Callable[[Records], float | None]:
    def read(records: Records) -> float | None:
        pick = records.best if best else records.median
        ours, floor = pick(US, workload, of), records.median("direct", workload, p50)
        return None if ours is None or floor is None else (ours - floor) / 1000

    return read


def _ratio_of_added(workload: str, peer: str) -> Callable[[Records], float | None]:
    def read(records: Records) -> float | None:
        ours, theirs, floor = (records.median(t, workload, p50) for t in (US, peer, "direct"))
        if ours is None or theirs is None or floor is None or theirs <= floor:
            return None
        return (ours - floor) / (theirs - floor)

    return read


def _streams_per_core(records: Records) -> float | None:
    cost = records.median(US, "ST1024", cpu) or records.median(US, "ST512", cpu)
    return 1e6 / cost / 50 if cost else None


# The goals of the project's performance study, section 6; smg and memory per stream aside.
GOALS = (
    Goal(
        name="G1",
        what="requests per core, 64 at once, over LiteLLM",
        measure=_over("litellm", "NS64"),
        commit=40,
        moonshot=100,
        digits=0,
    ),
    Goal(
        name="G2",
        what="requests per core, 64 at once, over vllm-router",
        measure=_over("vllm-router", "NS64"),
        commit=0.7,
        moonshot=1.0,
    ),
    Goal(
        name="G3",
        what="requests per core, one at a time, over vllm-router",
        measure=_over("vllm-router", "NS1"),
        commit=0.4,
        moonshot=0.7,
    ),
    Goal(
        name="G4",
        what="tokens per core, 64 streams in lockstep, over LiteLLM",
        measure=_over("litellm", "PX64"),
        commit=25,
        moonshot=40,
        digits=0,
    ),
    Goal(
        name="G5a",
        what="tokens per core, 64 streams in lockstep, over vllm-router",
        measure=_over("vllm-router", "PX64"),
        commit=0.9,
        moonshot=1.2,
    ),
    Goal(
        name="G5b",
        what="tokens per core, 64 streams spread, over vllm-router",
        measure=_over("vllm-router", "ST64"),
        commit=0.5,
        moonshot=1.2,
    ),
    Goal(
        name="G5c",
        what="tokens per core, 512 streams spread, over vllm-router",
        measure=_over("vllm-router", "ST512"),
        commit=0.9,
        moonshot=1.2,
    ),
    Goal(
        name="G7",
        what="streams of 50 tokens/s that one core carries",
        measure=_streams_per_core,
        commit=750,
        moonshot=1500,
        digits=0,
    ),
    Goal(
        name="G8a",
        what="added time to first token, median, over vllm-router's",
        measure=_ratio_of_added("T64", "vllm-router"),
        commit=2.0,
        moonshot=1.2,
        at_least=False,
    ),
    Goal(
        name="G8b",
        what="added time to first token, median, ms",
        measure=_added("T64", p50),
        commit=0.6,
        moonshot=0.3,
        at_least=False,
    ),
    Goal(
        name="G9",
        what="added time to first token, 99th percentile of the best round, ms",
        measure=_added("T64", p99, best=True),
        commit=3.0,
        moonshot=1.0,
        at_least=False,
    ),
    Goal(
        name="G10",
        what="added delay of a token at 64 streams in lockstep, median, ms",
        measure=_added("PX64", p50),
        commit=0.2,
        moonshot=0.06,
        at_least=False,
    ),
)


def render(records: Iterable[Record]) -> str:
    """The whole report."""
    asked = Records(records)
    return "\n".join([*_cells(asked), "", *_goals(asked), "", *_memory(asked)])


def _cells(records: Records) -> list[str]:
    lines = ["| workload | target | CPU us/unit | units/s | p50 us | best p99 us | errors |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for workload in records.workloads:
        for target in records.targets:
            cost = records.median(target, workload, cpu)
            if cost is None:
                continue
            speed, middle, tail = (
                records.median(target, workload, rate),
                records.median(target, workload, p50),
                records.best(target, workload, p99),
            )
            lines.append(
                f"| {workload} | {target} | {cost:.1f} | {speed:.0f} | {middle:.0f} | {tail:.0f} "
                f"| {records.errors(target, workload)} |"
            )
    return lines


def _goals(records: Records) -> list[str]:
    lines = ["| goal | what | here | commit | moonshot | verdict |", "|---|---|---|---|---|---|"]
    for goal in GOALS:
        value = goal.measure(records)
        here = "-" if value is None else f"{value:.{goal.digits}f}"
        sign = ">=" if goal.at_least else "<="
        lines.append(
            f"| {goal.name} | {goal.what} | {here} | {sign} {goal.commit:g} "
            f"| {sign} {goal.moonshot:g} | {goal.verdict(value)} |"
        )
    return lines


def _memory(records: Records) -> list[str]:
    lines = ["| target | most resident memory, MB |", "|---|---|"]
    lines += [f"| {name} | {records.resident_bytes(name) / 1e6:.0f} |" for name in records.targets]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report of a file of samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    options = parser.parse_args(arguments)
    lines = options.samples.read_bytes().splitlines()
    print(render([msgspec.json.decode(line, type=Record) for line in lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
