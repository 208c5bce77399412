"""The report that ships with this build. Written by scripts/test-clients."""

from __future__ import annotations

from importlib import resources
from typing import Final

import msgspec

ASPECTS: Final = ("basics", "stream", "tools", "structured output", "errors", "cancel")


class Check(msgspec.Struct, frozen=True):
    """One check of one client.

    Attributes:
        aspect: one of ASPECTS.
        check: what was tried.
        why: why it failed; empty where it passed.
        seconds: how long it took.
    """

    aspect: str
    check: str
    why: str = ""
    seconds: float = 0.0


class Absent(msgspec.Struct, frozen=True):
    """An aspect that has no meaning for a client, and why."""

    aspect: str
    reason: str


class Client(msgspec.Struct, frozen=True):
    """One client or test suite, with the results of its checks."""

    client: str
    version: str
    checks: tuple[Check, ...]
    absent: tuple[Absent, ...] = ()

    def cell(self, aspect: str) -> str:
        """What a table says of an aspect: passed of all, `n/a`, or a dash where nobody looked."""
        passed, of = self.tally(aspect)
        if of:
            return f"{passed}/{of}"
        return "n/a" if any(one.aspect == aspect for one in self.absent) else "–"

    def tally(self, aspect: str) -> tuple[int, int]:
        """How many checks of an aspect passed, and of how many."""
        found = [check for check in self.checks if check.aspect == aspect]
        return sum(not check.why for check in found), len(found)


class ConformanceReport(msgspec.Struct, frozen=True):
    """One run against one build.

    Attributes:
        cortex: version of the build.
        commit: of the source it was made from.
        date: of the run, ISO 8601.
        model: the real model; scripted neurons did what it cannot be trusted to.
        clients: in the order of the run.
    """

    cortex: str
    commit: str
    date: str
    model: str
    clients: tuple[Client, ...] = ()


def packaged() -> bytes:
    """The report as it was written."""
    return (resources.files("services.gateway.conformance") / "report.json").read_bytes()


def load() -> ConformanceReport:
    """The report of this build."""
    return msgspec.json.decode(packaged(), type=ConformanceReport)


def as_markdown(report: ConformanceReport) -> str:
    """A table: client by aspect, passed of all; failures and what does not apply below it."""
    lines = [
        f"Cortex {report.cortex} ({report.commit}), {report.date}, {report.model}",
        "",
        "| client | version | " + " | ".join(ASPECTS) + " |",
        "|---|---|" + "---|" * len(ASPECTS),
    ]
    for client in report.clients:
        cells = [client.cell(aspect) for aspect in ASPECTS]
        lines.append(f"| {client.client} | {client.version} | " + " | ".join(cells) + " |")
    failed = [
        f"- {client.client}, {check.aspect}, {check.check}: {check.why}"
        for client in report.clients
        for check in client.checks
        if check.why
    ]
    absent = [
        f"- {client.client}, {one.aspect}: n/a, {one.reason}"
        for client in report.clients
        for one in client.absent
    ]
    for more in (failed, absent):
        if more:
            lines += ["", *more]
    return "\n".join(lines) + "\n"
