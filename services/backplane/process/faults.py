"""Exceptions that nobody foresaw.

In a loop that serves many, such an exception ends the one request that it came from: it is logged
once, by type and frames, and counted, and the loop goes on. A loop that ends all the same takes its
process with it, for a process that is alive and does nothing helps nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.backplane.errors import FleetError, Reason

log = structlog.get_logger()


class Faults:
    """Contains, logs and counts the unforeseen exceptions of one process.

    Attributes:
        broken: set once a task that the process cannot do without has ended by itself. Whoever runs
            the service then stops admitting at once, and ends the process.
    """

    def __init__(self, registry: CollectorRegistry, service: str) -> None:
        """Has seen none yet.

        Args:
            registry: gets the counter.
            service: part of the counter's name.
        """
        self._seen = Counter(
            f"cortex_{service}_unforeseen_errors_total",
            "Exceptions that nobody foresaw, by where they were contained.",
            ["place"],
            registry=registry,
        )
        self.broken = asyncio.Event()

    def note(self, place: str, error: BaseException, **facts: object) -> FleetError:
        """Logs and counts an exception.

        Args:
            place: where it was contained; a constant, as a label of the counter.
            error: the exception.
            facts: more for the log line; never a prompt, an output or a key.

        Returns: INTERNAL, what the one who asked is told.
        """
        self.note_remote(place, "", exc_info=error, **facts)
        return FleetError(Reason.INTERNAL, "The service failed; its log says why.")

    def note_remote(self, place: str, trace: str, **facts: object) -> None:
        """Logs and counts an exception of a process of ours, as `tracebacks.describe` has it."""
        self._seen.labels(place).inc()
        log.error("fault.contained", place=place, **({"trace": trace} if trace else {}), **facts)

    @contextlib.contextmanager
    def contained(self, place: str, **facts: object) -> Generator[None]:
        """Lets no exception out of the block but those that end tasks on purpose."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - this is the place where they end
            self.note(place, error, **facts)

    @contextlib.contextmanager
    def fatal(self, place: str) -> Generator[None]:
        """As `contained`, for errors after which the process cannot go on: sets `broken` too."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - likewise
            self.note(place, error)
            self.broken.set()

    @contextlib.asynccontextmanager
    async def watching_loop(self) -> AsyncGenerator[None]:
        """Notes what the event loop's own callbacks and forgotten tasks raise, while it is open."""
        loop = asyncio.get_running_loop()

        def on_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            # The arguments of the callback, which hold user data, stand behind the bracket.
            said = str(context.get("message", "")).partition("(")[0]
            error = context.get("exception") or RuntimeError(said)
            self.note("event-loop", error, detail=said)

        before = loop.get_exception_handler()
        loop.set_exception_handler(on_error)
        try:
            yield
        finally:
            loop.set_exception_handler(before)

    def repeat(
        self, name: str, work: Callable[[], Awaitable[None]], seconds: float
    ) -> asyncio.Task[None]:
        """Repeats some work for as long as the process lives; one that fails is tried again.

        Args:
            name: of the task, and of the place where its exceptions are counted.
            work: what is done each time.
            seconds: between the end of one time and the beginning of the next.
        """

        async def again() -> None:
            while True:
                await asyncio.sleep(seconds)
                with self.contained(name):
                    await work()

        return self.vital(again(), name=name)

    def vital(
        self, work: Coroutine[Any, Any, None], *, name: str, may_end: bool = False
    ) -> asyncio.Task[None]:
        """Starts a task that the process cannot do without: `broken` is set if it ends by itself.

        Args:
            work: runs until it is cancelled.
            name: of the task, and of the place where its exception is counted.
            may_end: ending without an exception is no fault.
        """

        def on_end(ended: asyncio.Task[None]) -> None:
            # A cancellation that nobody asked for is an end by itself too.
            if ended.cancelled():
                is_asked, how, error = ended.cancelling() > 0, "cancelled", None
            else:
                error = ended.exception()
                is_asked, how = may_end and error is None, "failed" if error else "returned"
            if not is_asked:
                self.note(name, error or RuntimeError(how), end=how)
                self.broken.set()

        task = asyncio.create_task(work, name=name)
        task.add_done_callback(on_end)
        return task
