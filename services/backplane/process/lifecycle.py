"""From the first signal to the exit code.

SIGTERM and SIGINT ask for an orderly end; a second one ends the process at once. SIGHUP never ends
it: whoever can take something in anew does (`reloading`). Nor does SIGUSR2: whoever can hand its
work to a new process of the same kind does (`succeeding`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final

import structlog

from services.backplane.address import BadAddressError, PortTakenError
from services.backplane.log_stream import unblock_standard_error
from services.backplane.logs import LogSettings, configure
from services.backplane.process.parent_death import die_with_parent
from services.backplane.process.service_manager import notify
from services.backplane.settings import SettingsError

EX_CONFIG: Final = 78  # sysexits.h
EX_UNAVAILABLE: Final = 69
EX_SOFTWARE: Final = 70
DIE_WITH_PARENT: Final = "CORTEX_DIE_WITH_PARENT"
_HARMLESS: Final = (signal.SIGHUP, signal.SIGUSR2)

# Signals belong to the process, and so does the list of those who follow one.
_reloads: list[Callable[[], object]] = []
_successions: list[Callable[[], None]] = []

log = structlog.get_logger()


class Shutdown:
    """Tells everyone that the end was asked for. Set once, never cleared."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def requested(self) -> bool:
        """True from the first request on."""
        return self._event.is_set()

    def request(self, reason: str = "asked") -> None:
        """Asks for the end; later requests change nothing."""
        if not self._event.is_set():
            log.info("shutdown.requested", reason=reason)
            notify("STOPPING=1")
            self._event.set()

    async def wait(self) -> None:
        """Returns when the end was asked for."""
        await self._event.wait()


@contextlib.contextmanager
def reloading(reload: Callable[[], object]) -> Generator[None]:
    """Calls `reload` in the event loop at every SIGHUP while the context is open."""
    _reloads.append(reload)
    try:
        yield
    finally:
        _reloads.remove(reload)


@contextlib.contextmanager
def succeeding(hand_over: Callable[[], None]) -> Generator[None]:
    """Calls `hand_over` in the event loop at every SIGUSR2 while the context is open."""
    _successions.append(hand_over)
    try:
        yield
    finally:
        _successions.remove(hand_over)


def complain(words: object) -> None:
    """Says on standard error why a program cannot run."""
    unblock_standard_error()
    sys.stderr.write(f"cortex: {words}\n")


def run(
    main: Callable[[Shutdown], Awaitable[int]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Runs a service until it returns or is told to stop.

    Settings that cannot be used and ports that are taken end with one clear line and no traceback.

    Args:
        main: the service; returns the exit code, and ends soon after `Shutdown` is requested.
        loop_factory: makes the event loop; None for asyncio's own.

    Returns: the exit code.
    """
    unblock_standard_error()
    if not structlog.is_configured():  # its own form would quote whatever is at hand
        configure(LogSettings(), service="cortex")
    _ignore_harmless()
    if os.environ.get(DIE_WITH_PARENT):
        die_with_parent()
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_guarded(main))
    except (SettingsError, BadAddressError) as error:
        complain(error)
        return EX_CONFIG
    except (PortTakenError, OSError) as error:
        complain(error)
        return EX_UNAVAILABLE


async def _guarded(main: Callable[[Shutdown], Awaitable[int]]) -> int:
    shutdown = Shutdown()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if shutdown.requested:
            log.warning("shutdown.forced", signal=number.name)
            os._exit(128 + number)
        shutdown.request(number.name)

    loop.set_exception_handler(tell_defect)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, _reload_all)
    loop.add_signal_handler(signal.SIGUSR2, _hand_over)
    try:
        return await main(shutdown)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, *_HARMLESS):
            loop.remove_signal_handler(number)
        _ignore_harmless()


def _ignore_harmless() -> None:
    """While no loop follows them: what is started or ended then must not die of a reload."""
    if threading.current_thread() is threading.main_thread():
        for number in _HARMLESS:
            signal.signal(number, signal.SIG_IGN)


def _reload_all() -> None:
    if not _reloads:
        log.warning("reload.nothing", detail="Nothing here is read again without a restart.")
    _call_all(_reloads, "reload.crashed")


def _hand_over() -> None:
    if not _successions:
        log.warning("handover.refused", detail="This service hands nothing over; restart it.")
    _call_all(_successions, "handover.crashed")


def _call_all(followers: Sequence[Callable[[], object]], event: str) -> None:
    for follow in tuple(followers):
        try:
            follow()
        except Exception:  # a defect in one of these must not end what runs
            log.exception(event)


def tell_defect(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An event loop's exception handler: logs exceptions that no code has caught.

    Without the arguments of the callback, which hold user data.
    """
    said = str(context.get("message", "")).partition("(")[0]
    log.error("loop.defect", detail=said, exc_info=context.get("exception"))
