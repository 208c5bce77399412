"""One local command with its process group: run, watched, capped, and ended for certain."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from services.agent.core.text import clean
from services.backplane.timeouts import timeout, timeout_at

_GRACE_SECONDS = 1.0
_DRAIN_SECONDS = 0.5
_SHOW_SECONDS = 0.5
_CHUNK = 16384
# Its input ends when the agent does, even by SIGKILL; a parent-death signal would reach the
# command alone and not what that has started.
# Groups beside the command's own (`timeout` makes one) are found by their session, the sixth word
# of `stat`, where the system has that; a process's name in it may hold spaces.
_GUARD = """
read -r _
kill -s KILL -- "-$1"
for file in /proc/[0-9]*/stat; do
    { read -r line < "$file"; } 2>/dev/null || continue
    pid=${file#/proc/}
    session=${line##*) }; session=${session#* * * }; session=${session%% *}
    [ "$session" != "$1" ] || kill -s KILL "${pid%/stat}"
done
"""
_MOST_SWEEPS = 5  # what forks while it is being killed is found by the next one


class CappedOutput:
    """Keeps the first and the last half of `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0

    def add(self, data: bytes) -> None:
        """Takes what was printed next."""
        room = self._half - len(self._head)
        self._head += data[:room]
        rest = data[room:] if room < len(data) else b""
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
        while self._tail_size - len(self._tail[0] if self._tail else b"") >= self._half:
            dropped = self._tail.popleft()
            self._tail_size -= len(dropped)
            self._dropped += len(dropped)

    def text(self) -> str:
        """Returns what is kept, with a line that says how much is missing."""
        tail = b"".join(self._tail)
        excess = max(len(tail) - self._half, 0)
        dropped = self._dropped + excess
        middle = f"\n[... {dropped} bytes left out ...]\n".encode() if dropped else b""
        return clean((bytes(self._head) + middle + tail[excess:]).decode(errors="replace"))


async def run_command(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    output: CappedOutput,
    shown: Callable[[str], Awaitable[None]] | None = None,
) -> int:
    """Runs a command to its end, without input, standard error among its output.

    However this ends, by itself, by an error, by cancellation or with the whole agent, nothing
    of the command's process group is left running.

    Args:
        command: program and arguments.
        cwd: its directory.
        environment: all of its environment.
        output: takes what it prints, as it prints it: it is there however this ends.
        shown: gets the output so far, twice a second at most.

    Returns: the exit code; a negative one is the signal that ended it.

    Raises:
        OSError: the command or its directory does not exist.
    """
    reader, writer = os.pipe()
    # The guard goes last, when the group is gone.
    with ExitStack() as guarded:
        async with AsyncExitStack() as cleanup:
            cleanup.callback(os.close, reader)
            # Shielded: one that was cancelled half-way would leave its children running.
            starting = asyncio.create_task(_start(command, cwd, environment, writer))
            cleanup.push_async_callback(_end, starting)
            process = await asyncio.shield(starting)
            guarded.callback(_dismiss, _guard(process.pid))
            reading = asyncio.create_task(_read(reader, output, shown))
            cleanup.push_async_callback(_stop, reading)
            exit_code = await process.wait()
            # A child in the background may hold the pipe open for ever.
            await asyncio.wait({reading}, timeout=_DRAIN_SECONDS)
    if not reading.cancelled() and (error := reading.exception()):
        raise error
    return exit_code


async def _start(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], writer: int
) -> asyncio.subprocess.Process:
    """Starts the leader of a new process group.

    It prints into a pipe of ours: with one of asyncio's, Python 3.11 waits for the end of the
    pipe, which a child in the background may hold, and not for the end of the process.
    """
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writer,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.close(writer)


def _guard(group: int) -> "subprocess.Popen[bytes]":
    """Starts what kills a process group when this process is gone."""
    return subprocess.Popen(
        ["sh", "-c", _GUARD, "sh", str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _dismiss(guard: "subprocess.Popen[bytes]") -> None:
    """Ends a guard before its input ends, so that it kills nobody."""
    with guard:
        guard.kill()


async def _stop(reading: "asyncio.Task[None]") -> None:
    reading.cancel()
    await asyncio.wait({reading}, timeout=_GRACE_SECONDS)


async def _read(
    descriptor: int, output: CappedOutput, shown: Callable[[str], Awaitable[None]] | None
) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK)
    file = os.fdopen(descriptor, "rb", buffering=0, closefd=False)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    try:
        due: float | None = None  # when something that was printed has to be shown
        last = float("-inf")
        while True:
            try:
                async with timeout_at(due):
                    data = await reader.read(_CHUNK)
            except TimeoutError:
                data = None
            if data == b"":
                return
            if data is not None:
                output.add(data)
                due = max(loop.time(), last + _SHOW_SECONDS)
            if shown is None:
                due = None
            elif due is not None and due <= loop.time():
                await shown(output.text())
                last, due = loop.time(), None
    finally:
        transport.close()


async def _end(starting: "asyncio.Task[asyncio.subprocess.Process]") -> None:
    """Ends the whole group: asks first if the command still runs, then kills."""
    try:
        process = await starting
    except (OSError, ValueError):  # it never ran
        return
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with timeout(_GRACE_SECONDS):
                await process.wait()
    _signal_group(process.pid, signal.SIGKILL)
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):
            async with timeout(_GRACE_SECONDS):
                await process.wait()


def _signal_group(leader: int, number: signal.Signals) -> None:
    """Signals a command's process group, then all else that it has started and can be found."""
    started = _started_by(leader)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
    signalled: set[int] = set()
    for _ in range(_MOST_SWEEPS):
        found = (started | _started_by(leader)) - signalled
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        signalled |= found
        if not found:
            return


def _started_by(leader: int) -> set[int]:
    """Returns the processes of a command's session and their children, in whatever group.

    Empty where the system has no `/proc`.
    """
    found: set[int] = set()
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            after_name = path.read_text(errors="replace").rpartition(")")[2].split()
            parent, session = int(after_name[1]), int(after_name[3])
            children.setdefault(parent, []).append(int(path.parent.name))
            if session == leader:
                found.add(int(path.parent.name))
    left = [leader, *found]
    while left:
        new = set(children.get(left.pop(), ())) - found
        found |= new
        left += new
    return found
