"""A process that a service has started in its own place: nobody's child, and no less ours to end."""

from __future__ import annotations

import signal
import subprocess

import psutil


class Successor:
    """As much of `subprocess.Popen` as a service asks. Its exit code goes to init: 0 stands for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process = psutil.Process(pid)

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """None while it runs."""
        try:
            has_ended = self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            has_ended = True
        return 0 if has_ended else None

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended."""
        try:
            self._process.wait(timeout)
        except psutil.TimeoutExpired as error:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from error
        return 0

    def send_signal(self, number: signal.Signals) -> None:
        """As kill(2) does."""
        self._process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
