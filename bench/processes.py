"""Child processes that are pinned to a core and end with the benchmark."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

TARGET_CPU = 0
LOAD_CPU = 1
START_SECONDS = 120.0


class StartError(Exception):
    """A process that did not come up; the message holds its last words."""


def pinned(cpu: int, command: Sequence[str]) -> list[str]:
    """Prefixes a command so that it and its children run on one core."""
    return ["taskset", "-c", str(cpu % (os.cpu_count() or 1)), *command]


class Process:
    """One child process in a group of its own, with a log; on one core where that is named."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        cpu: int | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command if cpu is None else pinned(cpu, command),
                env={**os.environ, **(environment or {})},
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def pids(self) -> list[int]:
        """It and all its descendants."""
        return _tree(self._popen.pid)

    def resident_bytes(self) -> int:
        """Memory of the whole tree, shared pages counted as often as they are mapped."""
        page = os.sysconf("SC_PAGE_SIZE")
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError, IndexError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        return total

    def wait_for_port(self, port: int) -> None:
        """Waits until it listens.

        Raises:
            StartError: it ended, or took too long.
        """
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.running:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.1)
        raise StartError(f"nothing listens on port {port}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-1500:]

    def stop(self) -> None:
        """Ends it and its children; kills what does not go."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGTERM)
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait(5)


def _tree(pid: int) -> list[int]:
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found


@contextlib.contextmanager
def ending(processes: list[Process]) -> Generator[list[Process]]:
    """Stops whatever was put on the list, the last one first."""
    try:
        yield processes
    finally:
        for process in reversed(processes):
            process.stop()


def cpu_seconds(pid: int) -> float:
    """What one process has used so far, with its threads and without its children."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9
