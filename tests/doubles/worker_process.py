"""A worker process as the daemon sees it: frames over a socket pair."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from services.neuron.engine_api.events import Delta, Ended, Event, Failed
from services.neuron.engine_api.frames import (
    HEADER,
    REPORTS,
    Command,
    Hello,
    Load,
    LoadAborted,
    Loaded,
    Report,
    Stepped,
    Submit,
    pack,
)
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Prompt, SamplingParams, Segment, Task

DEADLINE_SECONDS = 60.0
R = TypeVar("R", bound=Report)


class WorkerProcess:
    def __init__(self, engine: str = "llamacpp", *, module: str = "services.neuron.worker") -> None:
        """Starts it; `module` is run with `--engine` and `--fd`."""
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(DEADLINE_SECONDS)
        self._buffer = b""
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                module,
                "--engine",
                engine,
                "--fd",
                str(theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        try:
            self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            assert self.process.stderr is not None
            self.process.stderr.close()

    def send(self, *commands: Command) -> None:
        self._socket.sendall(b"".join(pack(command) for command in commands))

    def send_raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> Report:
        while True:
            if len(self._buffer) >= HEADER.size:
                (length,) = HEADER.unpack_from(self._buffer)
                end = HEADER.size + length
                if len(self._buffer) >= end:
                    body, self._buffer = self._buffer[HEADER.size : end], self._buffer[end:]
                    report: Report = REPORTS.decode(body)
                    return report
            data = self._socket.recv(1 << 20)
            if not data:
                raise EOFError("the worker closed the socket")
            self._buffer += data

    def until(self, kind: type[R], matches: Callable[[R], bool] = lambda _: True) -> R:
        """The next report of a kind; the others before it are dropped."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            report = self.receive()
            if isinstance(report, kind) and matches(report):
                return report
        raise TimeoutError(f"no {kind.__name__} came")

    def load(self, plan: LoadPlan) -> Loaded:
        self.send(Load(plan))
        while True:
            report = self.receive()
            assert not isinstance(report, LoadAborted), report
            if isinstance(report, Loaded):
                return report

    def generate(self, *tasks: Task) -> dict[int, list[Event]]:
        """Submits tasks and returns the events of each when all have ended."""
        self.send(*[Submit(task) for task in tasks])
        return self.collect({task.task_id for task in tasks})

    def collect(self, open_ids: set[int]) -> dict[int, list[Event]]:
        events: dict[int, list[Event]] = {task_id: [] for task_id in open_ids}
        waiting = set(open_ids)
        while waiting:
            for event in self.until(Stepped).events:
                if event.task_id in events:
                    events[event.task_id].append(event)
                if isinstance(event, Ended | Failed):
                    waiting.discard(event.task_id)
        return events

    def hello(self) -> Hello:
        return self.until(Hello)

    def close(self) -> None:
        self._socket.close()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def last_words(self) -> str:
        assert self.process.stderr is not None
        self.process.wait(DEADLINE_SECONDS)
        return self.process.stderr.read().decode()


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def plan(path: Path, instance_id: str = "i", **fields: Any) -> LoadPlan:
    """A load of a file by llama.cpp."""
    fields.setdefault("max_context_tokens", 1024)
    return LoadPlan(instance_id, "llamacpp", str(path), **fields)


def task(task_id: int, text: str = "Hi\n", instance_id: str = "i", **fields: Any) -> Task:
    """A greedy continuation of a text."""
    prompt = Prompt((Segment(text),))
    return Task(task_id, instance_id, prompt, SamplingParams(temperature=0), **fields)


def active(report: Stepped) -> int:
    """Tasks that are being decoded."""
    return report.stats.active
