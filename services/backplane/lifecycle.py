"""From the first signal to the exit code.

SIGTERM and SIGINT ask for an orderly end; a second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from services.backplane.address import BadAddressError, PortTakenError
from services.backplane.settings import SettingsError

EX_CONFIG: Final = 78  # sysexits.h
EX_UNAVAILABLE: Final = 69
DIE_WITH_PARENT: Final = "CORTEX_DIE_WITH_PARENT"
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

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
            self._event.set()

    async def wait(self) -> None:
        """Returns when the end was asked for."""
        await self._event.wait()


def die_with_parent() -> None:
    """Ends this process when the one that started it dies, where the system can (Linux)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


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
    if os.environ.get(DIE_WITH_PARENT):
        die_with_parent()
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_guarded(main))
    except (SettingsError, BadAddressError) as error:
        sys.stderr.write(f"cortex: {error}\n")
        return EX_CONFIG
    except (PortTakenError, OSError) as error:
        sys.stderr.write(f"cortex: {error}\n")
        return EX_UNAVAILABLE


async def _guarded(main: Callable[[Shutdown], Awaitable[int]]) -> int:
    shutdown = Shutdown()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if shutdown.requested:
            log.warning("shutdown.forced", signal=number.name)
            os._exit(128 + number)
        shutdown.request(number.name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await main(shutdown)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
