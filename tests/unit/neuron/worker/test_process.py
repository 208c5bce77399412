"""How a worker process begins, shows itself and ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.neuron.engine_api.frames import (
    HEADER,
    Beat,
    Load,
    LoadAborted,
    Stepped,
    StopWorker,
    Submit,
    Unloaded,
)
from tests.doubles import scripted
from tests.doubles.scripted import Script
from tests.doubles.worker_process import WorkerProcess, plan, task


def test_hello_comes_first(worker: WorkerProcess) -> None:
    hello = worker.receive()

    assert getattr(hello, "pid", None) == worker.process.pid
    assert getattr(hello, "facts", {})["llama.cpp"]


def test_stop_ends_it(worker: WorkerProcess) -> None:
    worker.hello()

    worker.send(StopWorker())

    assert worker.process.wait(10) == 0


def test_it_ends_when_the_daemon_closes_the_socket(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless))
    worker.send(Submit(task(1)))

    worker.close()

    assert worker.process.wait(10) == 0


def test_a_frame_that_is_no_frame_ends_it_loudly(worker: WorkerProcess) -> None:
    worker.hello()

    worker.send_raw(HEADER.pack(3) + b"\xc1\xc1\xc1")

    assert worker.last_words().startswith("worker: The daemon sent what is no frame")
    assert worker.process.returncode == 76


def test_its_threads_are_shown_on_demand(worker: WorkerProcess) -> None:
    worker.until(Beat)

    worker.process.send_signal(signal.SIGUSR1)
    worker.until(Beat)
    worker.send(StopWorker())

    assert "loop.py" in worker.last_words()


def test_a_killed_worker_is_an_end_of_stream(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless, max_context_tokens=4096))
    worker.send(Submit(task(1)))
    worker.until(Stepped)

    worker.kill()

    with pytest.raises(EOFError):
        worker.until(Unloaded)
    assert worker.process.wait(10) == -signal.SIGKILL


def test_it_dies_with_its_parent() -> None:
    ours, theirs = socket.socketpair()
    parent = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'services.neuron.worker',"
        f" '--engine', 'llamacpp', '--fd', '{theirs.fileno()}']\n"
        f"child = subprocess.Popen(command, pass_fds=[{theirs.fileno()}])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    theirs.close()
    ours.settimeout(30)
    ours.recv(1)  # it is up

    process.kill()
    process.wait()
    process.stdout.close()

    # The socket stays open on our side: only the kernel's signal can end it.
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and not _is_zombie(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ours.close()


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return True


def test_a_missing_engine_is_told_in_one_line() -> None:
    with WorkerProcess("nope") as worker:
        words = worker.last_words()

    assert worker.process.returncode == 69
    assert words.startswith("worker: There is no engine 'nope'")
    assert "Traceback" not in words


def test_a_library_that_aborts_leaves_its_words(tmp_path: Path) -> None:
    # A duplicate token is one of the few faults of a file that llama.cpp does not survive.
    path = tmp_path / "twice.gguf"
    good = scripted.build(tmp_path / "good.gguf", Script(words=("Hello", "World")))
    path.write_bytes(good.read_bytes().replace(b"World", b"Hello"))
    with WorkerProcess() as worker:
        worker.send(Load(plan(path)))
        with pytest.raises(EOFError):
            worker.until(LoadAborted)
        words = worker.last_words()

    assert worker.process.returncode == -signal.SIGABRT
    assert "GGML_ASSERT" in words
