"""One process that renders, and what waits for it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from typing import Final

import structlog

from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.timeouts import timeout
from services.neuron.engine_api.frames import pack
from services.neuron.rendering.frames import Answer, Broken, Overrun, Ping, RenderingFailed
from services.neuron.rendering.process import LostError, RenderProcess
from services.neuron.settings import TemplateLimits

PING: Final = pack(Ping())
_START_SECONDS: Final = 30.0
_WAIT_SECONDS: Final = 60.0
_MOST_WAITING: Final = 1_024
_TRIES: Final = 2

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Blame:
    """How the error for an exceeded limit is worded: what exceeded it, and which request field.

    Attributes:
        subject: in words, as the beginning of a sentence.
        reason: of the error.
        field: that is to blame.
    """

    subject: str
    reason: Reason
    field: str | None = None

    def error(self, predicate: str) -> FleetError:
        """The error. `predicate` ends its sentence: "takes more memory than it may."."""
        return FleetError(self.reason, f"{self.subject} {predicate}", field=self.field)


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    question: bytes
    answer: asyncio.Future[Answer]


class Lane:
    """A queue of questions in front of one process that answers them, one after another.

    A process that dies or exceeds its limits is replaced. At most 1,024 questions wait, each for a
    minute at most.
    """

    def __init__(
        self, prepare: bytes, *, limits: TemplateLimits, blame: Blame, faults: Faults, model: str
    ) -> None:
        self._prepare = prepare
        self._blame = blame
        self._limits = limits
        self._faults = faults
        self._model = model
        self._jobs: collections.deque[_Job] = collections.deque()
        self._wake = asyncio.Event()
        self._process: RenderProcess | None = None
        self._is_kept_ready = False
        self._life: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Id of the process, None while there is none."""
        process = self._process
        return None if process is None or process.is_lost else process.pid

    @property
    def is_over(self) -> bool:
        """True once the lane is closed and its process has ended."""
        return self._is_closed and (self._life is None or self._life.done())

    async def ask(self, question: bytes) -> Answer:
        """Waits for the process's answer to a packed question.

        Raises:
            FleetError: why there is none.
        """
        if self._is_closed:
            raise _gone()
        if len(self._jobs) >= _MOST_WAITING:
            told = "Too many requests wait to be prepared."
            raise FleetError(Reason.QUEUE_FULL, told, retry_after_seconds=1.0)
        if self._life is None:
            self._life = asyncio.create_task(self._run(), name=f"render-{self._model}")
        job = _Job(question, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._wake.set()
        try:
            async with timeout(_WAIT_SECONDS):
                return await job.answer
        except TimeoutError as error:
            told = "The request waited too long for those before it to be prepared."
            raise FleetError(Reason.QUEUE_TIMEOUT, told) from error

    def close(self) -> None:
        """Kills the process; whoever waits for an answer gets INSTANCE_GONE."""
        self._is_closed = True
        if self._process is not None:
            self._process.kill()
        for job in self._jobs:
            _settle(job, _gone())
        self._jobs.clear()
        self._wake.set()

    async def ended(self) -> None:
        """Waits until the process of a closed lane has ended."""
        if self._life is not None:
            await asyncio.wait({self._life})

    async def _run(self) -> None:
        try:
            while not self._is_closed:
                while self._jobs:
                    job = self._jobs.popleft()
                    if not job.answer.done():  # else its caller has left
                        await self._serve(job)
                if self._is_kept_ready and self.pid is None and not self._is_closed:
                    with self._faults.contained("render.restart"):
                        await self._restart()
                await self._wake.wait()
                self._wake.clear()
        finally:
            await self._drop()

    async def _serve(self, job: _Job) -> None:
        try:
            _settle(job, await self._answer(job.question))
        except FleetError as error:
            _settle(job, error)
        except Exception as error:  # noqa: BLE001 - the others go on
            _settle(job, self._faults.note("render", error))

    async def _answer(self, question: bytes) -> Answer:
        for _ in range(_TRIES):
            process = self._process
            if process is None or process.is_lost:
                process = await self._start()
            try:
                return self._accepted(await process.ask(question, self._limits.seconds))
            except TimeoutError as error:
                await self._drop()
                raise self._late() from error
            except LostError:
                await self._drop()
                if self._is_closed:
                    raise _gone() from None
        raise self._blame.error("ended the process that it ran in, twice.")

    async def _restart(self) -> None:
        """Has a process ready again; where it cannot be, the next question tries."""
        log.info("render.restarted", model=self._model)
        with contextlib.suppress(FleetError):
            await self._start()

    async def _start(self) -> RenderProcess:
        await self._drop()
        self._is_kept_ready = False
        try:
            process = self._process = await RenderProcess.start(
                memory_bytes=self._limits.memory_bytes, on_end=self._wake.set
            )
            if self._is_closed:
                raise _gone()
            self._accepted(await process.ask(PING, _START_SECONDS))
        except (TimeoutError, LostError, OSError) as error:
            await self._drop()
            told = "The process that prepares requests cannot be started."
            raise FleetError(Reason.LOAD_FAILED, told) from error
        try:
            self._accepted(await process.ask(self._prepare, self._limits.seconds))
        except TimeoutError as error:
            await self._drop()
            raise self._late() from error
        except LostError as error:
            await self._drop()
            raise self._blame.error("ended the process that it ran in.") from error
        except FleetError:
            await self._drop()
            raise
        self._is_kept_ready = True
        return process

    async def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.ended()

    def _accepted(self, answer: Answer) -> Answer:
        match answer:
            case RenderingFailed(reason=reason, message=message, field=field):
                raise FleetError(Reason(reason), message, field=field)
            case Overrun():
                raise self._blame.error("takes more memory than it may.")
            case Broken(trace=trace):
                self._faults.note_remote("render", trace, model=self._model)
                raise FleetError(Reason.INTERNAL, "The service failed; its log says why.")
            case _:
                return answer

    def _late(self) -> FleetError:
        return self._blame.error(f"took more than {self._limits.seconds:g} s; it was ended.")


def _settle(job: _Job, result: Answer | FleetError) -> None:
    if job.answer.done():
        return
    if isinstance(result, FleetError):
        job.answer.set_exception(result)
    else:
        job.answer.set_result(result)


def _gone() -> FleetError:
    return FleetError(Reason.INSTANCE_GONE, "The model was unloaded.")
