"""`python -m bench.report SAMPLES.jsonl`: medians, ratios and the goals, as Markdown.

CPU time per request or token is the figure that repeats on a shared machine; wall times are
given beside it, their tail as the best round's, since the rest of it is other people's load.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from bench.goals import GOALS
from bench.samples import Record, Records, cpu, p50, p99, rate


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
            spoilt = " (dirty)" if records.is_spoilt(target, workload) else ""
            lines.append(
                f"| {workload} | {target}{spoilt} | {cost:.1f} | {speed:.0f} | {middle:.0f} "
                f"| {tail:.0f} | {records.errors(target, workload)} |"
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
