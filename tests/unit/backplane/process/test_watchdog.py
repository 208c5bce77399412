"""A loop that stands still ends its process; systemd hears of one that does not."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time

from services.backplane.process import watchdog

STALLING = """
import asyncio, time
from services.backplane.process import watchdog

async def main():
    with watchdog.watching(0.5):
        await asyncio.sleep(0)
        hold_everything_up()

def hold_everything_up():
    secret = "a prompt"
    time.sleep(60)

asyncio.run(main())
"""


def test_a_loop_that_stands_still_tells_its_stacks_and_ends():
    ended = subprocess.run(
        [sys.executable, "-c", STALLING], capture_output=True, text=True, timeout=30, check=False
    )

    assert ended.returncode == 70
    assert "stood still" in ended.stderr
    assert "hold_everything_up" in ended.stderr
    assert "a prompt" not in ended.stderr


async def test_a_loop_that_is_busy_now_and_then_goes_on():
    stalls: list[float] = []

    with watchdog.watching(2.0, on_stall=stalls.append):
        for _ in range(4):
            time.sleep(0.3)  # noqa: ASYNC251 - what is tested
            await asyncio.sleep(0.01)

    assert not stalls


async def test_systemd_hears_of_a_loop_that_is_alive(tmp_path, monkeypatch):
    heard = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def listen() -> None:
            assert manager.recv(64) == b"WATCHDOG=1"
            heard.set()

        with watchdog.watching(60):
            await asyncio.to_thread(listen)

    assert heard.is_set()
