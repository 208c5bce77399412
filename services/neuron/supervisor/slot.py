"""One device set with its engine, over all the worker processes that run in it.

A process that dies, stands still or grows without bound is ended alone, its listener is told, and
the next one starts after a pause. Too many deaths quarantine the slot, with the last words of its
worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Mapping

import structlog

from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.backplane.process.faults import Faults
from services.neuron.devices.watch import DeviceWatch
from services.neuron.engine_api.frames import Charged, Hello, StopWorker
from services.neuron.settings import WorkerLimits
from services.neuron.supervisor.device_use import DeviceUse
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.listener import SlotView, WorkerKey, WorkerListener
from services.neuron.supervisor.process import Death, WorkerCommand, WorkerProcess, environment
from services.neuron.supervisor.restart_policy import HealthLimits, RestartPolicy
from services.neuron.supervisor.watch import WorkerWatch

log = structlog.get_logger()


class WorkerSlot:
    """Starts the worker of one device set, watches it, starts another when it dies."""

    def __init__(
        self,
        key: WorkerKey,
        *,
        listener: WorkerListener,
        limits: WorkerLimits,
        memory_bytes: int,
        command: WorkerCommand,
        environment: Mapping[str, str],
        task_ids: itertools.count[int],
        device_watch: DeviceWatch,
        device_use: DeviceUse,
        faults: Faults,
    ) -> None:
        self.key = key
        self._faults = faults
        self._device_watch = device_watch
        self._device_use = device_use
        self._listener = listener
        self._limits = limits
        self._health_limits = HealthLimits(
            limits.stall_seconds, limits.load_stall_seconds, memory_bytes
        )
        self._command = command
        self._environment = environment
        self._task_ids = task_ids
        self._restart_policy = RestartPolicy(
            limits.deaths, limits.deaths_within_seconds, limits.first_pause_seconds
        )
        self._state = "starting"
        self._process: WorkerProcess | None = None
        self._link: WorkerLink | None = None
        self._last_words = ""
        self._quarantine_reason = ""
        self._replaced_because = ""
        self._is_condemned = False
        self._stopping = asyncio.Event()
        self._up: asyncio.Future[WorkerLink] = asyncio.get_running_loop().create_future()
        self._life = faults.vital(self._live(), name="worker.slot", may_end=True)
        self._load_cycles = 0
        self.load_gate = asyncio.Lock()
        self._load_progressed_at = time.monotonic()

    @property
    def view(self) -> SlotView:
        """State, process and deaths, for the status."""
        return SlotView(
            key=self.key,
            state=self._state,
            pid=self._process.pid if self._process else 0,
            rank_pids=self._link.rank_pids if self._process and self._link else (),
            deaths=self._restart_policy.total,
            last_words=self._last_words,
            quarantine_reason=self._quarantine_reason,
            load_cycles=self._load_cycles,
        )

    async def ready(self) -> WorkerLink:
        """The link to a running process, once there is one.

        Raises:
            FleetError: LOAD_FAILED, the process cannot be started or died too often.
        """
        return await asyncio.shield(self._up)

    def note_load(self) -> None:
        """A load begins in the running process."""
        self._load_cycles += 1
        self.note_load_progress()

    def note_load_progress(self) -> None:
        """The load goes on: the limit on loads that stand still counts from now."""
        self._load_progressed_at = time.monotonic()

    async def recycle(self, why: str) -> None:
        """Replaces the running process at once, or behind a load under way. `why` is in words."""
        async with self.load_gate:
            process = self._process
            if process is not None and self._state == "running":
                self._replaced_because = why
                await self._end(process, f"it was replaced: {why}")

    def condemn(self, why: str) -> None:
        """Ends the process for good: its device cannot be used any more. `why` is in words."""
        self._is_condemned = True
        if self._process is not None:
            self._process.kill(why)

    async def stop(self) -> None:
        """Ends the process and the slot."""
        self._stopping.set()
        process = self._process
        if process is not None:
            await self._end(process, "the daemon ended it")
        # One that is being started is ended as soon as it can be.
        await self._life

    async def _end(self, process: WorkerProcess, why: str) -> None:
        """Lets a process save its caches and end by itself; kills it where that takes too long."""
        process.send(StopWorker())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.ended()), self._limits.stop_seconds)
        process.kill(why)
        await process.ended()

    async def _live(self) -> None:
        while not self._stopping.is_set():
            link, death = await self._one_process()
            if self._stopping.is_set():
                link.on_death(FleetError(Reason.SHUTTING_DOWN, "The worker was stopped."))
                return
            why, self._replaced_because = self._replaced_because, ""
            if why:
                error = FleetError(Reason.WORKER_LOST, f"The worker is being replaced: {why}")
                self._go_down(link, death, error, for_good=False, planned=True)
                await self._pause((death.pid, *link.rank_pids), 0.0)
            elif await self._mourn(link, death):
                return
            else:
                pids = (death.pid, *link.rank_pids)
                await self._pause(pids, self._restart_policy.pause_seconds)

    async def _mourn(self, link: WorkerLink, death: Death) -> bool:
        """Tells of a death; True if no other process will come."""
        said = ""
        with self._faults.contained("worker.cause"):
            said = await self._device_watch.cause(self.key.device_ids)
        if said:
            death = dataclasses.replace(death, cause=f"{death.cause}; the driver says: {said}")
        self._restart_policy.note(time.monotonic(), link.callers)
        self._last_words = "\n".join(filter(None, (death.last_words, said)))
        for_good = self._restart_policy.is_too_many or self._is_condemned
        error = FleetError(
            Reason.WORKER_LOST,
            # Clients are told this: the log and the status have its last words.
            f"The worker process died ({death.cause}).",
            retry_after_seconds=self._restart_policy.pause_seconds,
        )
        log.error(
            "worker.died",
            engine=self.key.engine,
            devices=self.key.device_ids,
            cause=death.cause,
            last_words=death.last_words,
            quarantined=for_good,
        )
        if for_good:
            self._quarantine_reason = f"Its worker is not started any more: {death.cause}."
        self._go_down(link, death, error, for_good=for_good, planned=False)
        return for_good

    async def _pause(self, pids: tuple[int, ...], seconds: float) -> None:
        """Until the memory of the dead is free and the pause is over, or the slot is stopped."""

        async def over() -> None:
            await asyncio.gather(
                self._device_watch.vacated(self.key.device_ids, pids), asyncio.sleep(seconds)
            )

        with self._faults.contained("worker.pause"):
            ended = await first_ended(over(), self._stopping.wait())
            if ended is not None:
                ended.result()

    def _go_down(
        self,
        link: WorkerLink,
        death: Death,
        error: FleetError,
        *,
        for_good: bool,
        planned: bool,
    ) -> None:
        self._state = "quarantined" if for_good else "restarting"
        failed = FleetError(Reason.LOAD_FAILED, f"The worker cannot run: {death}")
        if not self._up.done():  # it died before it was ready: whoever waits hears why
            self._up.set_exception(failed)
            self._up.exception()
        self._up = asyncio.get_running_loop().create_future()
        if for_good:
            self._up.set_exception(failed)
            self._up.exception()
        # The listener first: a task that is lost asks its instance whether that will come back.
        with self._faults.fatal("worker.down"):
            self._listener.on_worker_down(self.key, error, for_good=for_good, planned=planned)
        link.on_death(error)

    async def _one_process(self) -> tuple[WorkerLink, Death]:
        self._state, self._load_cycles = "starting", 0
        process: WorkerProcess | None = None
        link = WorkerLink(
            lambda *commands: process.send(*commands) if process else None,
            on_stats=self._listener.on_stats,
            on_cache=self._listener.on_cache,
            on_charged=self._charge,
            task_ids=self._task_ids,
            faults=self._faults,
        )
        self._link = link
        told = {**self._environment, **self.key.variables}
        env = environment(os.environ, device_ids=self.key.shown_ids, settings=told)
        try:
            process = await WorkerProcess.spawn(
                self._command,
                engine=self.key.engine,
                env=env,
                on_report=link.on_report,
                faults=self._faults,
            )
        except OSError as error:
            return link, Death(1, f"the worker cannot be started: {error.strerror}", "")
        except Exception as error:  # noqa: BLE001 - counts as a death, and is tried again as one
            self._faults.note("worker.start", error)
            return link, Death(1, "the worker cannot be started", "")
        self._process = process
        if self._stopping.is_set():
            process.kill("the daemon ended it")
        with self._faults.contained("worker.changed"):
            self._listener.on_worker_changed()
        watch = asyncio.create_task(
            WorkerWatch(
                process,
                link,
                limits=self._health_limits,
                start_seconds=self._limits.start_seconds,
                load_progressed_at=lambda: self._load_progressed_at,
                faults=self._faults,
            ).run(functools.partial(self._on_hello, process, link))
        )
        try:
            return link, await process.ended()
        except Exception as error:  # noqa: BLE001 - likewise
            self._faults.note("worker.life", error)
            return link, Death(1, "the worker could not be watched any more", "", process.pid)
        finally:
            watch.cancel()
            process.kill("the daemon ended it")
            self._process = None

    def _charge(self, report: Charged) -> None:
        self._device_use.add(
            report.charges,
            busy_ns=report.busy_ns,
            devices=self.key.device_count,
            device_ids=self.key.device_ids,
        )

    def _on_hello(self, process: WorkerProcess, link: WorkerLink, hello: Hello) -> None:
        """Lets a process in that is ready."""
        log.info("worker.ready", engine=hello.engine, pid=process.pid, facts=hello.facts)
        self._state = "running"
        self._up.set_result(link)
        self._listener.on_worker_up(self.key, link)
