"""A whole fleet as a newcomer starts it: `cortex up` in a process of its own."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil

from tests.doubles.processes import workers_below

READY_SECONDS = 180.0


@dataclasses.dataclass
class RunningFleet:
    """Where the parts of one `cortex up` are."""

    process: subprocess.Popen[str]
    data_dir: pathlib.Path
    reader: threading.Thread
    url: str = ""
    metrics_url: str = ""
    registry: str = ""
    output: list[str] = dataclasses.field(default_factory=list)

    def child(self, name: str) -> psutil.Process:
        """The process of one service."""
        for process in psutil.Process(self.process.pid).children():
            if name in process.cmdline():
                return process
        raise LookupError(name)

    def workers(self) -> list[psutil.Process]:
        """The engine processes below the neuron."""
        return workers_below(self.child("neuron").pid)

    def log(self, name: str) -> str:
        """What one service wrote."""
        return (self.data_dir / "logs" / f"{name}.log").read_text(errors="replace")

    def end(self) -> int:
        """Ctrl-C; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(60)
            self.reader.join(10)
            assert self.process.stdout is not None
            self.process.stdout.close()
            return code
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def start(data_dir: pathlib.Path, *arguments: str, environment: dict[str, str]) -> RunningFleet:
    """Starts `cortex up` and waits until it says where it is.

    A free port that it chose may be taken by another test before it listens: then once more.
    """
    for _ in range(3):
        try:
            return _start(data_dir, *arguments, environment=environment)
        except RuntimeError as error:
            if "already in use" not in str(error):
                raise
    return _start(data_dir, *arguments, environment=environment)


def _start(data_dir: pathlib.Path, *arguments: str, environment: dict[str, str]) -> RunningFleet:
    command = [sys.executable, "-m", "services.cli", "up", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(data_dir), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    fleet = RunningFleet(process, data_dir, reader)
    try:
        _wait_until_ready(fleet, lines)
    except BaseException:  # nothing is left running of one that nobody gets
        fleet.end()
        raise
    text = "".join(fleet.output)
    fleet.url = _find(r"ANTHROPIC_BASE_URL=(\S+)", text)
    fleet.metrics_url = _find(r"metrics\s+(\S+)", text)
    fleet.registry = _find(r"--registry (\S+)", text)
    return fleet


def _wait_until_ready(fleet: RunningFleet, lines: queue.Queue[str | None]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while "curl " not in "".join(fleet.output):
        try:
            line = lines.get(timeout=max(0.1, deadline - time.monotonic()))
        except queue.Empty:
            told = "".join(fleet.output) + fleet.log("neuron")[-2000:]
            raise TimeoutError(f"cortex up was not ready in {READY_SECONDS} s:\n{told}") from None
        if line is None:
            raise RuntimeError("cortex up ended:\n" + "".join(fleet.output))
        fleet.output.append(line)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """Waits for a condition; returns how long it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.005)
    return time.monotonic() - started


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]
