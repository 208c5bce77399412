"""The process of a rank that follows, and how it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from services.neuron.engines.exllamav2.parallel.channel import Channel
from services.neuron.engines.exllamav2.parallel.messages import (
    REPLIES,
    Order,
    RankHello,
    RunForward,
)

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="devices are emulated")
LASTING = """
import atexit, runpy, sys, time
atexit.register(time.sleep, 600)
runpy.run_module("services.neuron.engines.exllamav2.parallel", run_name="__main__")
"""
"""The process with a library whose clean-up hangs, as one does whose device failed."""


@pytest.mark.parametrize(
    ("order", "code", "words"),
    [(None, 0, ""), (RunForward("unknown", 1, 1, b"\0" * 8), 70, "KeyError")],
    ids=["rank 0 is gone", "a pass failed"],
)
def test_it_ends_at_once(order: Order | None, code: int, words: str) -> None:
    root = Path(__file__).parents[3]
    paths = [Path(__file__).parent / "emulated", root, root / "protos"]
    ours, theirs = socket.socketpair()
    arguments = ["--fd", str(theirs.fileno()), "--rank", "1", "--ranks", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", LASTING, *arguments],
        pass_fds=[theirs.fileno()],
        env=os.environ | {"PYTHONPATH": ":".join(map(str, paths))},
        stderr=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    channel = Channel(ours, REPLIES)
    try:
        assert channel.receive(seconds=100.0) == RankHello()
        if order is None:
            channel.close()
        else:
            channel.send(order)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        channel.close()

    assert process.returncode == code
    assert words in told
