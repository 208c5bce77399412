"""One worker process: its start, its frames, its end and its last words.

The process is spawned, never forked from a live interpreter's state, with an environment of its own
and in a session of its own, so that a signal to its group reaches its children too. It ends when
its socket closes, so it never outlives the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol, cast

import msgspec
import structlog
from typing_extensions import override

from services.backplane.first_ended import first_ended
from services.backplane.process.cpus import SPIN_COUNT
from services.backplane.process.faults import Faults
from services.neuron.engine_api.frames import (
    HEADER,
    MAX_FRAME_BYTES,
    REPORTS,
    Command,
    Report,
    pack,
)
from services.neuron.supervisor.last_words import LastWords

_EXIT_SECONDS: Final = 5.0
# What a worker may know of the daemon's environment; the rest is set for it.
_INHERITED: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV",
    "XDG_CACHE_HOME", "CUDA_HOME", "COVERAGE_PROCESS_START", "CORTEX_EXLLAMAV2_ATTENTION",
    # which driver and which of its devices ggml is to see
    "VK_DRIVER_FILES", "VK_ICD_FILENAMES", "MESA_SHADER_CACHE_DIR", "GGML_VK_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR",
    # how the GPUs of a group reach each other
    "NCCL_SOCKET_IFNAME", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE", "NCCL_DEBUG",
)  # fmt: skip

# Lines of tracebacks and of faulthandler's dumps.
_IN_DUMP: Final = re.compile(r"\s|$|Traceback |Thread 0x|Current thread |Fatal |Extension modules")
_PATH: Final = re.compile(r"/[\w.+@-]+(?:/[\w.+@-]+)+")

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Death:
    """How a worker process ended.

    Attributes:
        exit_code: negative is the signal that ended it.
        cause: in words: what it did, or why it was ended.
        last_words: the tail of its standard error.
        pid: its process id; 0 where it never had one.
    """

    exit_code: int
    cause: str
    last_words: str
    pid: int = 0

    def __str__(self) -> str:
        """The cause, and the last line that says something; without places in code and on disk."""
        said = [line for line in self.last_words.splitlines() if not _IN_DUMP.match(line)]
        tail = _PATH.sub(lambda path: path[0].rpartition("/")[2], said[-1].strip() if said else "")
        return f"{self.cause}: {tail}" if tail else self.cause


class WorkerCommand(Protocol):
    """The command line of a worker."""

    def __call__(self, *, engine: str, fd: int) -> Sequence[str]:
        """Arguments of exec for an engine, speaking frames over an inherited descriptor."""
        ...


def python_worker(*, engine: str, fd: int) -> Sequence[str]:
    """The worker of this package, in this interpreter."""
    module = "services.neuron.worker"
    return [sys.executable, "-m", module, "--engine", engine, "--fd", str(fd)]


def environment(
    inherited: Mapping[str, str],
    *,
    device_ids: Sequence[str],
    settings: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The fixed environment of a worker that owns the given devices.

    Args:
        inherited: of the daemon.
        device_ids: GPUs by NVML's id are shown to CUDA; of other drivers' the engine is told.
        settings: variables that hand the neuron's settings on.
    """
    made = {name: inherited[name] for name in _INHERITED if name in inherited} | dict(settings)
    gpus = [device for device in device_ids if device.lower().startswith(("gpu-", "mig-"))]
    return made | {
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_HUB_OFFLINE": "1",
        "GOMP_SPINCOUNT": SPIN_COUNT,
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


class WorkerProcess(asyncio.Protocol):
    """One running worker. Made by `spawn`; ends once, and says how in `ended`."""

    def __init__(self, on_report: Callable[[Report], None], faults: Faults) -> None:
        self._on_report = on_report
        self._faults = faults
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._process: asyncio.subprocess.Process
        self._last_words = LastWords()
        self._kill_cause: str | None = None
        self._closed = asyncio.Event()
        self._life: asyncio.Task[Death]
        self.last_heard = time.monotonic()

    @classmethod
    async def spawn(
        cls,
        command: WorkerCommand,
        *,
        engine: str,
        env: Mapping[str, str],
        on_report: Callable[[Report], None],
        faults: Faults,
    ) -> WorkerProcess:
        """Starts a worker.

        Args:
            command: its command line.
            engine: which engine it runs.
            env: its whole environment.
            on_report: called for each frame, in order, from the event loop; must not raise.
            faults: told of exceptions.

        Raises:
            OSError: it cannot be started.
        """
        self = cls(on_report, faults)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *command(engine=engine, fd=theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    env=dict(env),
                    start_new_session=True,
                )
            ours.setblocking(False)
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
            undo.pop_all()
        self._life = asyncio.create_task(self._live(), name=f"worker-{self.pid}")
        return self

    @property
    def pid(self) -> int:
        """Process id; also its group's."""
        return self._process.pid

    def send(self, *commands: Command) -> None:
        """Writes commands; those to a process that has ended are dropped."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(map(pack, commands)))

    def kill(self, cause: str, *, dump: bool = False) -> None:
        """Ends the process and its children; `cause` becomes part of its `Death`.

        Args:
            cause: why, in words.
            dump: ask for a dump of all stacks first, which then is in the last words.
        """
        if self._kill_cause is not None:
            return
        self._kill_cause = cause
        if dump:
            self._signal(signal.SIGUSR1)
            asyncio.get_running_loop().call_later(0.5, self._signal, signal.SIGKILL)
        else:
            self._signal(signal.SIGKILL)

    async def ended(self) -> Death:
        """Waits for the end of the process, and says how it ended."""
        return await asyncio.shield(self._life)

    async def _live(self) -> Death:
        stderr = self._process.stderr
        assert stderr is not None
        reading = asyncio.create_task(self._listen(stderr))
        exited = asyncio.create_task(self._process.wait())
        closed = asyncio.create_task(self._closed.wait())
        try:
            await first_ended(kept=(exited, closed))
            # A socket that closed first is a process that is about to end, or has lost its way.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(exited), _EXIT_SECONDS)
            self._signal(signal.SIGKILL)
            code = await exited
            # Frames and words that were written before the end are read to their end.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(reading, closed), 1.0)
        finally:
            for task in (reading, exited, closed):
                task.cancel()
            self._signal(signal.SIGKILL)
            if self._transport is not None:
                self._transport.abort()
        return Death(code, self._kill_cause or _cause(code), str(self._last_words), self.pid)

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stderr.readline()
            except ValueError:  # a line longer than the reader's limit; it was discarded
                continue
            if not line:
                return
            text = self._last_words.take(line)
            if text is None:
                continue
            with self._faults.contained("worker.stderr"):
                log.debug("worker.wrote", pid=self.pid, text=text)

    def _signal(self, number: signal.Signals) -> None:
        # While the process is not yet waited for, its id cannot be another's.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    # asyncio.Protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket to the worker is open."""
        self._transport = cast("asyncio.WriteTransport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the worker has closed its end of the socket."""
        self._closed.set()

    @override
    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the worker, cut into frames and handed on."""
        self.last_heard = time.monotonic()
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        while end - at >= HEADER.size:
            (length,) = HEADER.unpack_from(buffer, at)
            if length > MAX_FRAME_BYTES:
                self.kill(f"it sent a frame of {length} bytes")
                return
            stop = at + HEADER.size + length
            if stop > end:
                break
            try:
                report = REPORTS.decode(memoryview(buffer)[at + HEADER.size : stop])
            except msgspec.DecodeError as error:
                self.kill(f"it sent a frame that cannot be read: {error}")
                return
            at = stop
            self._on_report(report)
        if at:
            del buffer[:at]


def _cause(code: int) -> str:
    if code >= 0:
        return f"the worker exited with code {code}"
    try:
        return f"the worker was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the worker was ended by signal {-code}"
