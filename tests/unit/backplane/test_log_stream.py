import os
import re
import signal
import subprocess
import sys

import pytest

from services.backplane.log_stream import UnblockedFile

SECONDS = 20.0
# Writes lines until it is told to end, as a service does.
SERVICE = """
import asyncio, structlog
from services.backplane import logs
from services.backplane.process import lifecycle
async def main(shutdown):
    logs.configure(logs.LogSettings(format="json"), service="test")
    while not shutdown.requested:
        structlog.get_logger().info("line", words="x" * 5000)
        print("up", flush=True)
        await asyncio.sleep(0.001)
    return 0
raise SystemExit(lifecycle.run(main))
"""


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", 0) as ours, os.fdopen(writer, "wb", 0) as theirs:
        yield ours, theirs


def test_lines_reach_the_reader(pipe):
    reader, writer = pipe

    UnblockedFile(writer.fileno()).write(b"one\n")

    assert reader.read(100) == b"one\n"


@pytest.mark.parametrize("opening", ["own", "shared"])
def test_a_reader_that_stands_still_costs_lines_and_is_told(pipe, opening, monkeypatch):
    reader, writer = pipe
    if opening == "shared":
        monkeypatch.setattr("services.backplane.log_stream._own_pipe", lambda number: number)
    file = UnblockedFile(writer.fileno())
    line = b"x" * 999 + b"\n"

    for _ in range(3_000):
        assert file.write(line) == 1000
    read = b""
    for _ in range(100):
        read += reader.read(65536)
        file.write(line)
        if b"cortex: " in read:
            break

    others = [each for each in read.splitlines(keepends=True) if each != line]
    assert len(others) == 1
    assert re.fullmatch(rb"cortex: \d{4} writes to this log were dropped: .*\n", others[0])


def test_a_reader_that_has_gone_is_no_error(pipe):
    reader, writer = pipe
    file = UnblockedFile(writer.fileno())
    reader.close()

    assert file.write(b"one\n") == 4
    assert UnblockedFile(writer.fileno()).write(b"two\n") == 4


def test_a_descriptor_that_is_closed_is_no_error(pipe):
    _, writer = pipe
    file = UnblockedFile(writer.fileno())
    writer.close()

    assert file.write(b"one\n") == 4


@pytest.mark.parametrize("reader", ["gone", "still", "closed"])
def test_a_service_ends_whatever_became_of_its_standard_error(pipe, reader):
    """As `cortex gateway 2>&1 | head -1`, a pager that waits, and `2>&-`."""
    read_end, write_end = pipe
    command = [sys.executable, "-c", SERVICE]
    if reader == "closed":
        command = ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, SERVICE]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=write_end)
    write_end.close()
    try:
        if reader == "gone":
            read_end.close()
        assert service.stdout is not None
        for _ in range(300):
            assert service.stdout.readline() == b"up\n"

        service.send_signal(signal.SIGTERM)
        while service.stdout.readline():
            pass

        assert service.wait(SECONDS) == 0
    finally:
        service.kill()
        service.communicate()
