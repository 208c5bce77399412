import asyncio
import os
import signal
import sys

import pytest

from services.backplane.process.lifecycle import EX_CONFIG
from services.cli import children
from services.cli.children import Child, ChildFailedError


@pytest.fixture
def make(tmp_path):
    def make(program):
        child = Child(
            name="part", arguments=(), environment={"MARK": "1"}, log_path=tmp_path / "part.log"
        )
        child._arguments = (sys.executable, "-c", program)
        return child

    return make


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_child_that_dies_is_started_again(make):
    child = make("import time; print('up', flush=True); time.sleep(60)")
    running = asyncio.create_task(child.keep_running())
    await until(lambda: child.log_path.exists() and b"up" in child.log_path.read_bytes())
    first = child.pid

    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid != first)

    await child.end()
    await running
    assert child.log_path.read_bytes().count(b"up") >= 1


async def test_a_child_with_bad_settings_is_not_tried_again(make):
    child = make(f"import sys; sys.stderr.write('cortex: f: k: bad\\n'); sys.exit({EX_CONFIG})")

    with pytest.raises(ChildFailedError, match="part: f: k: bad"):
        await child.keep_running()


async def test_a_child_that_will_not_end_is_killed(make, monkeypatch):
    monkeypatch.setattr(children, "_END_SECONDS", 0.2)
    child = make(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); time.sleep(60)"
    )
    running = asyncio.create_task(child.keep_running())
    await until(lambda: child.log_path.exists() and b"deaf" in child.log_path.read_bytes())

    await child.end()

    await asyncio.wait_for(running, 60)
