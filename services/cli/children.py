"""Child processes of `cortex up`: started in order, restarted when they die, ended in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import structlog

from services.backplane.backoff import delays
from services.backplane.process.lifecycle import DIE_WITH_PARENT, EX_CONFIG, EX_UNAVAILABLE

# A service ends by itself within its own drain; this is for one that does not.
_END_SECONDS: Final = 40.0
# Settings do not mend themselves; a port may, but somebody should be told at once.
_HOPELESS: Final = frozenset({EX_CONFIG, EX_UNAVAILABLE})
# A child that ran this long was healthy: its next death starts a new back-off.
_HEALTHY_SECONDS: Final = 30.0
_LAST_WORDS_BYTES: Final = 2000

log = structlog.get_logger()


class ChildFailedError(Exception):
    """A child cannot run; the message has its last words."""


class Child:
    """One service as a process of its own, with its output in a log file."""

    def __init__(
        self,
        *,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log_path: pathlib.Path,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._arguments = (sys.executable, "-m", "services.cli", *arguments)
        self._environment = {**os.environ, **environment, DIE_WITH_PARENT: "1"}
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False

    @property
    def pid(self) -> int | None:
        """Process id of the service, while it runs."""
        return self._process.pid if self._process else None

    async def keep_running(self) -> None:
        """Runs the service, again and again, until `end` is called.

        Raises:
            ChildFailedError: it cannot run with these settings.
        """
        loop = asyncio.get_running_loop()
        pauses: Iterator[float] = delays(first=0.5, cap=10.0)
        while not self._ending:
            started = loop.time()
            code = await self._run_once()
            if self._ending:
                return
            if code in _HOPELESS:
                raise ChildFailedError(f"{self.name}: {self._last_words()}")
            log.warning("child.died", child=self.name, exit_code=code, log=str(self.log_path))
            if loop.time() - started > _HEALTHY_SECONDS:
                pauses = delays(first=0.5, cap=10.0)
            await asyncio.sleep(next(pauses))

    def reload(self) -> None:
        """Makes the running process read its settings again."""
        if self._process is not None:
            _signal(self._process, signal.SIGHUP)

    async def end(self) -> None:
        """Asks the process to end, and ends it where it does not; idempotent."""
        self._ending = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        _signal(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            log.warning("child.killed", child=self.name)
            _signal(process, signal.SIGKILL)
            await process.wait()

    async def _run_once(self) -> int:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as sink:
            # a session of its own: Ctrl-C reaches us alone, and we end the children in order
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        return await self._process.wait()

    def _last_words(self) -> str:
        with self.log_path.open("rb") as log_file:
            log_file.seek(max(0, log_file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            lines = log_file.read().decode("utf-8", "replace").splitlines()
        said = [line for line in lines if line.startswith("cortex:")]
        return said[-1].removeprefix("cortex: ") if said else f"see {self.log_path}"


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
