"""What a run recorded, and the questions that its tables ask."""

import statistics
from collections.abc import Callable, Iterable

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
        values = [of(sample, WORKLOADS[workload]) for sample in samples]
        clean = self.clean_median(target, workload, of)
        return clean if clean is not None else statistics.median(values) if values else None

    def clean_median(
        self, target: str, workload: str, of: Callable[[Sample, Workload], float]
    ) -> float | None:
        """The median over rounds that nobody spoilt; None where there are none."""
        kind = WORKLOADS[workload]
        found = [record.sample for record in self._by_cell.get((target, workload), [])]
        values = [of(sample, kind) for sample in found if not sample.is_dirty(kind)]
        return statistics.median(values) if values else None

    def is_spoilt(self, target: str, workload: str) -> bool:
        """Whether every round of a cell was spoilt by somebody else's load."""
        return self.clean_median(target, workload, cpu) is None

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
        ours, theirs = (self.clean_median(name, workload, cpu) for name in (US, peer))
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
