"""Commands that go on while the model does other things; a session owns and ends them."""

import asyncio
import codecs
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from services.agent.core.text import clean
from services.agent.tools.processes.process import CappedOutput, run_command
from services.backplane.first_ended import first_ended
from services.backplane.timeouts import timeout

MOST_RUNNING = 8
_MOST_KEPT = 32  # records, those that have ended among them
_CARD_BYTES = 16_384
_START_SECONDS = 0.5  # in which a command that cannot run at all has usually said so
_LAST_UPDATE_SECONDS = 2.0


class BackgroundError(Exception):
    """A command cannot be started or is not known; the message is what the model reads."""


@dataclass(frozen=True, slots=True)
class News:
    """What a command has printed since it was last asked, and how it is.

    Attributes:
        ending: how it ended, such as `exit code 1`; empty while it runs.
        is_failure: it ended otherwise than with exit code 0.
    """

    text: str
    ending: str = ""
    is_failure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """How a command is shown as it goes on.

    Attributes:
        shown: gets what the card is to show, twice a second at most.
        ended: gets the last of it, once.
    """

    shown: Callable[[str], Awaitable[None]]
    ended: Callable[[News], Awaitable[None]]


class _Output(CappedOutput):
    """What a command printed: all of it for its card, and the part that nobody has read yet."""

    def __init__(self, limit: int, *, unread: int) -> None:
        super().__init__(limit)
        self._unread_limit = unread
        self._unread = CappedOutput(unread)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # cuts no character
        self.arrived = asyncio.Event()

    @override
    def add(self, data: bytes) -> None:
        super().add(data)
        self._unread.add(self._decoder.decode(data).encode())
        self.arrived.set()

    def take(self) -> str:
        """Returns what is new since the last time."""
        text = self._unread.text()
        self._unread = CappedOutput(self._unread_limit)
        self.arrived.clear()
        return text


class BackgroundCommand:
    """One command in the background, running or ended."""

    def __init__(
        self,
        name: str,
        command: str,
        *,
        cwd: Path,
        environment: Mapping[str, str],
        seconds: float | None,
        output_bytes: int,
        watching: Watching,
    ) -> None:
        self.name = name
        self.command = command
        self._watching = watching
        self._output = _Output(_CARD_BYTES, unread=output_bytes)
        self._ending = ""
        self._is_failure = True
        self._start_error: Exception | None = None
        self._task = asyncio.create_task(
            self._run(cwd, environment, seconds), name=f"background {name}"
        )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return not self._task.done()

    async def started(self) -> None:
        """Waits a moment, in which a command that cannot run says so; raises BackgroundError."""
        await asyncio.wait({self._task}, timeout=_START_SECONDS)
        if (error := self._start_error) is not None:
            raise BackgroundError(f"the command could not be started: {error}") from error

    async def news(self, seconds: float) -> News:
        """Returns new output, waiting up to a time for some."""
        await first_ended(self._output.arrived.wait(), kept=(self._task,), seconds=seconds)
        is_over = not self.is_running
        return News(self._output.take(), self._ending, is_failure=is_over and self._is_failure)

    async def end(self, why: str) -> None:
        """Kills it with all that it has started, and waits for that."""
        if self.is_running:
            self._ending = self._ending or why
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, cwd: Path, environment: Mapping[str, str], seconds: float | None) -> None:
        try:
            async with timeout(seconds):
                code = await run_command(
                    ["sh", "-c", self.command],
                    cwd=cwd,
                    environment=environment,
                    output=self._output,
                    shown=self._show,
                )
            self._ending, self._is_failure = f"exit code {code}", code != 0
        except TimeoutError:
            self._ending = f"killed after {seconds:g} s"
        except asyncio.CancelledError:
            self._ending = self._ending or "ended with the session"
        except (OSError, ValueError) as error:
            self._ending, self._start_error = f"the command could not be started: {error}", error
        news = News(self._output.text(), self._ending, self._is_failure)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with timeout(_LAST_UPDATE_SECONDS):
                await self._watching.ended(news)

    async def _show(self, text: str) -> None:
        """Passes on what was printed; who looks on may have left, and the command goes on."""
        with contextlib.suppress(ConnectionError):
            await self._watching.shown(text)


class BackgroundCommands:
    """Those of one session. Close it in the end."""

    def __init__(self) -> None:
        self._commands: dict[str, BackgroundCommand] = {}
        self._count = 0

    async def start(
        self,
        command: str,
        *,
        cwd: Path,
        environment: Mapping[str, str],
        seconds: float | None,
        output_bytes: int,
        watching: Watching,
    ) -> BackgroundCommand:
        """Starts a command; `seconds` is when it is killed, None for the session's end.

        Raises:
            BackgroundError: as many run as may, or it could not be started.
        """
        running = self.running()
        if len(running) >= MOST_RUNNING:
            names = ", ".join(each.name for each in running)
            raise BackgroundError(f"{MOST_RUNNING} commands run already ({names}); end one first")
        for name in [each.name for each in self._commands.values() if not each.is_running]:
            if len(self._commands) >= _MOST_KEPT:
                del self._commands[name]
        self._count += 1
        started = BackgroundCommand(
            f"b{self._count}",
            command,
            cwd=cwd,
            environment=environment,
            seconds=seconds,
            output_bytes=output_bytes,
            watching=watching,
        )
        self._commands[started.name] = started
        try:
            await started.started()
        except BackgroundError:
            del self._commands[started.name]
            raise
        except asyncio.CancelledError:
            await started.end("cancelled as it started")
            raise
        return started

    def get(self, name: str) -> BackgroundCommand:
        """Returns the command of a name; raises BackgroundError."""
        if name not in self._commands:
            known = ", ".join(self._commands) or "none"
            raise BackgroundError(f"no background command {clean(name)!r:.50}; there are: {known}")
        return self._commands[name]

    def running(self) -> list[BackgroundCommand]:
        """Returns those that have not ended, oldest first."""
        return [each for each in self._commands.values() if each.is_running]

    async def close(self) -> None:
        """Ends all that run."""
        await asyncio.gather(*(each.end("ended with the session") for each in self.running()))
