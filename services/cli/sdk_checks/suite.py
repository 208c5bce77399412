"""A suite of checks of one client, and what came of each.

Suites run in the environment of their client, where none of Cortex's own dependencies need be:
this module and its neighbours import nothing but the standard library and the client.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from importlib import metadata
from typing import Final, Literal

Aspect = Literal["basics", "stream", "tools", "structured output", "errors", "cancel"]
ASPECTS: Final[tuple[Aspect, ...]] = (
    "basics",
    "stream",
    "tools",
    "structured output",
    "errors",
    "cancel",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What is checked.

    Attributes:
        url: of the gateway, without `/v1`.
        model: a real one, that chats.
        scripted: a model that obeys the orders in tests/clients/scripted_neuron.py; empty: none.
        embedding: a model that embeds; empty: none.
    """

    url: str
    model: str
    scripted: str = ""
    embedding: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Target:
        """The target that scripts/test-clients names in the environment."""
        return cls(
            url=environment["CORTEX_URL"],
            model=environment["CORTEX_MODEL"],
            scripted=environment.get("CORTEX_SCRIPTED", ""),
            embedding=environment.get("CORTEX_EMBEDDING", ""),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class CheckOutcome:
    """The result of one check; `why` is empty where it passed."""

    client: str
    version: str
    aspect: Aspect
    check: str
    seconds: float
    why: str


Check = Callable[[Target], Awaitable[None] | None]


class Suite:
    """Checks of one client, in the order in which they were added.

    Args:
        client: as people call it.
        package: whose version is reported.
        version: instead of a package's, for programs.
    """

    def __init__(self, client: str, *, package: str = "", version: str = "") -> None:
        self.client = client
        self._version = version or metadata.version(package)
        self._checks: list[tuple[Aspect, Check]] = []
        self._absent: list[tuple[Aspect, str]] = []

    def lacks(self, aspect: Aspect, reason: str) -> None:
        """Says that an aspect has no meaning for this client, and why."""
        self._absent.append((aspect, reason))

    def check(self, aspect: Aspect) -> Callable[[Check], Check]:
        """Adds a function: it fails by raising."""

        def add(function: Check) -> Check:
            self._checks.append((aspect, function))
            return function

        return add

    def extend(self, other: Suite) -> None:
        """Adds all checks of another suite of the same client."""
        self._checks += other._checks

    def run(self, target: Target) -> Iterator[CheckOutcome]:
        """Makes every check; none stops the others."""
        # one loop for all: clients close their connections later, and on the loop that opened them
        with asyncio.Runner() as runner:
            for aspect, function in self._checks:
                started = time.monotonic()
                why = ""
                try:
                    outcome = function(target)
                    if outcome is not None:
                        runner.run(_finish(outcome))
                except Exception as error:  # noqa: BLE001 - what a client raises is the finding
                    why = _words(error)
                seconds = round(time.monotonic() - started, 2)
                name = function.__name__.replace("_", " ")
                yield CheckOutcome(
                    client=self.client,
                    version=self._version,
                    aspect=aspect,
                    check=name,
                    seconds=seconds,
                    why=why,
                )

    def main(self) -> None:
        """Runs as a script of scripts/test-clients: one JSON object a line."""
        wanted = os.environ.get("CORTEX_ONLY", "")
        if wanted:
            self._checks = [each for each in self._checks if wanted in each[1].__name__]
        head = {"client": self.client, "version": self._version}
        for aspect, reason in self._absent:
            print(json.dumps({**head, "aspect": aspect, "reason": reason}), flush=True)  # noqa: T201
        for outcome in self.run(Target.of(os.environ)):
            print(json.dumps(dataclasses.asdict(outcome)), flush=True)  # noqa: T201 - its output


async def _finish(outcome: Awaitable[None]) -> None:
    await outcome


def _words(error: Exception) -> str:
    """The error and where it was raised, short enough for a table."""
    frames = traceback.extract_tb(error.__traceback__)
    own = next((frame for frame in frames[1:] if "checks" in frame.filename), frames[-1])
    said = str(error)[:600] or own.line
    return f"{type(error).__name__}: {said} (line {own.lineno}: {own.line})"
